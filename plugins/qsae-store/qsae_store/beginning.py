"""A harvest that begins, or goes on: what is to be in its manifest, and what is there already."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from qsae_core.contracts import DataSource
from qsae_core.errors import DataError
from qsae_store.folder import Folder
from qsae_store.json_files import MANIFEST, create_text, write_text
from qsae_store.manifest import Manifest, read_manifest
from qsae_store.plan import Plan, StoredPlace


def manifest_of(
    source: DataSource, block: Mapping[str, Any], *, shard_positions: int, **choices: Any
) -> Manifest:
    """The manifest of a harvest that is to begin.

    Args:
        source: gives the text; its places are those that are harvested.
        block: of the data source.
        shard_positions: positions of a shard, which holds whole contexts, and one at least.
        choices: the other fields of ``Plan``.

    Raises:
        DataError: if there is no language model behind the source, its text has not one full context, or
            vectors are to be left out by their norms, which is for those who train on the store.
    """
    if (multiple := block.get("max_norm_multiple")) is not None:
        raise DataError(
            f"all vectors are stored, also those with norms of more than {multiple:g} times the median",
            where="--max-norm-multiple",
            allowed="it is an option of training from the store",
            next=f"leave it out here; then qsae train --store DIR --max-norm-multiple {multiple:g}",
        )
    model = source.language_model()
    if model is None:
        raise DataError(
            f"the data source '{block['use']}' has no language model to harvest from",
            where="--data",
            allowed="a source of a language model's vectors, such as lm",
        )
    first = next(iter(source.contexts(1)), None)
    if first is None:
        raise DataError(
            "the training text has not one full context",
            where="--data",
            next="more text, or a smaller --context",
        )
    known = {
        "name": model.name,
        "fingerprint": model.fingerprint(),
        "predicts_next": model.predicts_next,
        "has_logits": model.has_logits,
    }
    shard_contexts = max(1, shard_positions // first[0].ids.shape[1])
    plan = _plan(source, block, shard_contexts=shard_contexts, **choices)
    part = source.held_out_part()
    return Manifest(plan, known, source.describe(), None if part is None else part.record())


def _plan(source: DataSource, block: Mapping[str, Any], **choices: Any) -> Plan:
    """For the places that the source reads, on both sides."""
    widths = dict.fromkeys(source.source_sites, source.d_in)
    widths |= {site: source.d_out for site in source.target_sites if site not in widths}
    sources, targets = (tuple(map(str, sites)) for sites in (source.source_sites, source.target_sites))
    return Plan(
        source=dict(block),
        places=tuple(StoredPlace(site.layer, site.name, width) for site, width in widths.items()),
        sources=sources,
        targets=() if targets == sources else targets,
        **choices,
    )


def begin(folder: Folder, manifest: Manifest) -> Manifest:
    """Write the manifest of a harvest that begins, or look at that of one that goes on.

    Returns:
        the manifest to go on with; it is complete where nothing is left to do.

    Raises:
        DataError: if the folder holds a store of another plan, or other files.
    """
    folder.clean()
    names = folder.sizes()
    if MANIFEST not in names:
        if names:
            raise DataError(
                f"the folder holds {len(names)} files and no store",
                where=folder.place,
                allowed="an empty folder, or one that does not exist",
                next="another --out",
            )
        if create_text(folder, MANIFEST, manifest.to_json()):
            return manifest
    there = read_manifest(folder)
    changed = _differences(there, manifest)
    if changed:
        raise DataError(
            f"the store there is of another kind: {'; '.join(changed[:4])}",
            where=folder.place,
            allowed="the options with which it was begun; more --tokens, too",
            next="another --out, or the same options",
        )
    if there.shards is not None and there.plan == manifest.plan:
        return there
    begun = dataclasses.replace(there, plan=manifest.plan, shards=None, statistics=None)
    write_text(folder, MANIFEST, begun.to_json())
    return begun


def _differences(there: Manifest, wanted: Manifest) -> list[str]:
    """What is not the same, in words; more vectors than before are no difference."""
    longer = _extended(there.plan, wanted.plan)
    before, now = (
        _flat(
            json.loads(json.dumps({"plan": dataclasses.asdict(plan), "model": of.model, "record": of.record}))
        )
        for plan, of in ((longer, there), (wanted.plan, wanted))
    )
    return [
        f"{key.removeprefix('plan.')} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]


def _extended(there: Plan, wanted: Plan) -> Plan:
    """The plan there, for as many vectors as are wanted now if these are more."""
    more = math.inf if wanted.tokens is None else wanted.tokens
    before = math.inf if there.tokens is None else there.tokens
    return dataclasses.replace(
        there,
        tokens=wanted.tokens if more >= before else there.tokens,
        held_out_tokens=max(there.held_out_tokens, wanted.held_out_tokens),
    )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}.{name}".strip(".")).items()
    }
