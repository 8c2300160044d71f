"""What ``qsae import`` prints of the coder that it made: what was read, as what, and what it is for."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qsae_core.artifact.checkpoints import (
    CHECKPOINT_FILES,
    IMPORTED,
    SETTINGS_FILES,
    format_of,
)
from qsae_core.artifact.description import read_description
from qsae_core.artifact.places import artifact_folder, member_folders, set_folder
from qsae_core.component import name_of
from qsae_core.contracts.provenance import Provenance
from qsae_core.plugins.addresses import is_address, local_path

if TYPE_CHECKING:
    from qsae_core.coders.coder_set import CoderSet
    from qsae_core.coders.matrix_coder import MatrixCoder
    from qsae_core.registry import Registry


def summary(
    coder: MatrixCoder | CoderSet, out: pathlib.Path, path: str, form: str | None, registry: Registry
) -> list[str]:
    """Lines of what was made at ``out`` of the checkpoint at ``path``.

    Args:
        form: the format that was asked for; None: it was recognized.
    """
    several = set_folder(out)
    folders = [artifact_folder(out)] if several is None else list(member_folders(several).values())
    found = [read_description(folder) for folder in folders]
    sources, config = [description["source"] for description in found], found[0]["config"]
    one = coder.by_layer()[0] if coder.by_layer() else coder
    widths = " -> ".join(str(n) for n in dict.fromkeys((coder.shape.d_in, coder.shape.d_out)))
    kind = f"{name_of(one)}: {one.n_latents:,} latents, d={widths}{_parts(config)}"
    if several is not None:
        names = list(member_folders(several))
        kind = f"{len(names)} coders, one for each of the layers {', '.join(names)}; of each, {kind}"
    return [kind, _format(sources, config, path, form, registry), _places(sources), f"artifact: {out}"]


def _parts(config: Mapping[str, Any]) -> str:
    """The parts that say which latents are active and how strongly."""
    activation, rule = (config.get(slot, {"use": "none"}) for slot in ("activation", "sparsity"))
    named = [f"activation {activation['use']}"] if activation["use"] != "none" else []
    if rule["use"] != "none":
        named.append(f"sparsity {rule['use']}" + (f" (k = {rule['k']})" if rule.get("k") else ""))
    return "".join(f", {part}" for part in named)


def _format(
    sources: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    path: str,
    form: str | None,
    registry: Registry,
) -> str:
    """Of which format the files are, and in which types their weights."""
    made = sources[0].get(IMPORTED)
    asked = path if is_address(path) else str(pathlib.Path(path))
    if made is None or not made["path"].startswith(asked):  # a stored coder, with the record that it had
        form = form or format_of(local_path(path, CHECKPOINT_FILES, beside=SETTINGS_FILES), registry)
        packed = {config[slot]["use"] for slot in ("quantizer", "encoder_quantizer") if slot in config}
        return f"format: {form}, weights as qsae packs them (quantizer {', '.join(sorted(packed))})"
    by_type: dict[str, list[str]] = {}
    for source in sources:
        for name, dtype in source[IMPORTED]["dtypes"].items():
            if name not in by_type.setdefault(dtype, []):
                by_type[dtype].append(name)
    if len(by_type) == 1:
        return f"format: {made['format']}, weights in {next(iter(by_type))}"
    types = "; ".join(f"{dtype} ({', '.join(names)})" for dtype, names in by_type.items())
    return f"format: {made['format']}, weights in {types}"


def _places(sources: Sequence[Mapping[str, Any]]) -> str:
    """Of which model, layers and sites the vectors are, as far as the files or options say it."""
    of_each = [Provenance.of_record(source) for source in sources]
    read = _once(place for own in of_each for place in own.sources)
    written = _once(place for own in of_each for place in own.targets)
    model = of_each[0].model
    if model is None and not read and not written:
        return "vectors: its files name no model, layer or site, and none is chosen"
    layers = _once(place.partition(".")[0] for place in (*read, *written))
    sides = (", ".join(_once(place.partition(".")[2] for place in side)) for side in (read, written))
    site = " -> ".join(filter(None, _once(sides)))
    where = f"layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}, site {site}"
    named = f"of the model {model}" if model else "of a model that is not named"
    return f"vectors: {named}, {where if layers else 'of no layer and site that qsae knows'}"


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
