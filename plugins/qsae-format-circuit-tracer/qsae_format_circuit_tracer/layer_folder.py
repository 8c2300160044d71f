"""A folder with a transcoder for each layer: ``TranscoderSet`` of circuit-tracer."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save_file

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in
from qsae_format_circuit_tracer.config_file import (
    ACTIVATION,
    CONFIG,
    KIND,
    PATHS,
    SET,
    TRAINING_RECORDS,
    Beside,
    K,
    settings_of,
    write_yaml,
)
from qsae_format_circuit_tracer.layer_file import NAME, own_form, tensors_of


def layers_in(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Layer -> its file, in the order of layers.

    Raises:
        ArtifactError: if one is elsewhere.
    """
    found = sorted((int(m[1]), path.name) for path in folder.iterdir() if (m := NAME.fullmatch(path.name)))
    return {layer: file_in(folder, name) for layer, name in found}


def members_in(folder: pathlib.Path, beside: Beside) -> dict[str, pathlib.Path]:
    """Layer -> its file.

    Raises:
        ArtifactError: if ``config.yaml`` lists others, or there is none.
    """
    listed = beside.settings.get(PATHS) if beside.is_config else None
    found = layers_in(folder)
    if listed is not None and listed != [path.name for path in found.values()]:
        raise ArtifactError(
            f"{PATHS} in {CONFIG} lists files that are not here: {listed}"[:300],
            where=str(folder),
            next="download these files and import them one by one, each in the format that its own library "
            "writes; or take a folder with layer_0.safetensors and so on",
        )
    if not found:
        raise ArtifactError("has no layer_0.safetensors or further layers", where=str(folder))
    return {str(layer): path for layer, path in found.items()}


def write_layers(checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
    """``config.yaml`` and the layers' files. Where nothing is known of places there is no ``config.yaml``,
    as in what ``to_safetensors`` of circuit-tracer writes.

    Raises:
        ArtifactError: if circuit-tracer has no such set.
    """
    where = str(path)
    given = {
        layer_of(name, checkpoint.provenance, where): checkpoint for name, checkpoint in checkpoints.items()
    }
    if sorted(given) != list(range(len(checkpoints))):
        raise ArtifactError(
            f"circuit-tracer takes a transcoder for every layer, and these are of {sorted(given)}",
            where=where,
            allowed="layers 0 to the model's last",
            next="export one layer: give the folder of its coder",
        )
    dense = {layer: own_form(given[layer], f"{where}, layer {layer}") for layer in sorted(given)}
    _check_alike(dense, where)
    provenances = [given[layer].provenance for layer in dense]
    settings = dict(given[0].settings) or settings_of(SET, provenances, where)
    k = dense[0].k
    if KIND in settings:
        settings = _with_rule(settings, dense)
    elif k is not None:
        raise ArtifactError(
            f"that the {k} largest stay is said in {CONFIG}, and it is not known where the vectors are from",
            where=where,
            next="export a layer alone: its file has k",
        )
    path.mkdir(parents=True)
    if settings:
        write_yaml(path / (CONFIG if KIND in settings else TRAINING_RECORDS[0]), settings)
    for layer, form in dense.items():
        save_file(tensors_of(form), path / f"layer_{layer}.safetensors")


def layer_of(name: str, provenance: Provenance, where: str) -> int:
    """As the top module's."""
    places = provenance.sources + provenance.targets
    layers = {place.partition(".")[0] for place in places} or {name}
    if len(layers) != 1 or not (layer := layers.pop()).isdecimal():
        raise ArtifactError(
            f"circuit-tracer's transcoders are of one layer each, and one is of {', '.join(places) or name}",
            where=where,
            allowed="transcoders that read and write the same layer",
        )
    return int(layer)


def _check_alike(dense: Mapping[int, DenseForm], where: str) -> None:
    """Raises an ArtifactError unless one class of circuit-tracer's has them all."""
    kinds = {
        (*form.W_enc.shape, "" if form.k is None else f"k={form.k}", "W_skip" * (form.W_skip is not None))
        for form in dense.values()
    }
    if len(kinds) > 1:
        what = "; ".join(" ".join(map(str, kind)).strip() for kind in sorted(kinds))
        raise ArtifactError(
            f"circuit-tracer takes layers that are alike, and these have (latents, width, ...) {what}",
            where=where,
            allowed="one number of latents, one k or none, and skip connections in all layers or in none",
        )


def _with_rule(settings: Mapping[str, Any], dense: Mapping[int, DenseForm]) -> dict[str, Any]:
    """Settings that say the activation as it is."""
    word, k = settings.get(ACTIVATION), dense[0].k
    if k is not None:
        return {**settings, ACTIVATION: "topk", K: k}
    stale = {ACTIVATION} if {form.activation for form in dense.values()} != {word} else set()
    stale |= {K} if word == "topk" else set()
    return {key: value for key, value in settings.items() if key not in stale or value is None}
