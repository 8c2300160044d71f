"""What a store that is not complete lacks, and the command that completes it. Imports no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_core.runs import load_plugins
from qsae_store.folder import Folder
from qsae_store.manifest import Manifest
from qsae_store.plan import SIDES, Plan, Side
from qsae_store.records import ShardRecord, record_file, shard_name


def lacking(folder: Folder, manifest: Manifest, shards: Mapping[Side, Sequence[ShardRecord]]) -> str | None:
    """How much of a store is read, of what was asked for; None: the store is complete.

    Args:
        shards: what ``written_shards`` gave.
    """
    if manifest.shards is not None:
        return None
    names = folder.sizes()
    read = [_side(side, shards[side], manifest.plan.limit(side), names) for side in reversed(SIDES)]
    return (
        f"the store {folder.place} is not complete: {' and '.join(read)} are read; this completes it: "
        f"{completing(manifest.plan, folder.place)}"
    )


def _side(side: Side, shards: Sequence[ShardRecord], limit: int | None, names: Mapping[str, int]) -> str:
    vectors, missing = sum(record.vectors for record in shards), shard_name(side, len(shards))
    if (shards and shards[-1].ends) or (limit is not None and vectors >= limit):
        return f"all {vectors:,} {side} vectors"
    of = f" of {limit:,}" if limit is not None else ""
    asked = "" if of else ", of one pass over the text,"
    records = [name for name in names if name.startswith(f"{side}-") and name.endswith(".json")]
    behind = sum(name > record_file(missing) for name in records)
    lost = f" ({behind} shards behind {missing}, which is missing, are not)" if behind else ""
    return f"{vectors:,}{of} {side} vectors{asked}{lost}"


def completing(plan: Plan, place: str) -> str:
    """The command that harvests by the plan, without options of the source that are its defaults."""
    source = dict(plan.source)
    use = source.pop("use")
    registry = load_plugins().registry
    fields = registry.get("data", use).config.model_fields if use in registry.names("data") else {}
    words = ["qsae", "cache", "--data", use]
    for name, value in source.items():
        if name not in fields or value != fields[name].default:
            words += _flag(name, value)
    words += ["--out", place, "--held-out-tokens", str(plan.held_out_tokens), "--storage", plan.storage]
    words += [] if plan.tokens is None else ["--tokens", str(plan.tokens)]
    words += ["--shard-tokens", str(plan.shard_contexts * int(source.get("context", 1)))]
    words += ["--seed", str(plan.seed)]
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return [f"--data.{name.replace('_', '-')}", str(value)]
    return ["--set", f"data.{name}={json.dumps(value)}"]
