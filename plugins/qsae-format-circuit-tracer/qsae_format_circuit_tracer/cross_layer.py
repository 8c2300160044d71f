"""The folder of a cross-layer transcoder: ``CrossLayerTranscoder`` of circuit-tracer.

    f_l = activation(W_enc_l x_l + b_enc_l)               relu, or z 1[z > threshold]
    y_hat_m = sum_{l <= m} f_l W_dec_l[:, m - l] + b_dec_m

Shapes: L layers, D width of both sides, F latents of a layer.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator

from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts import Checkpoint, CrossLayerForm, Function, LayerForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, safetensors_tensors
from qsae_format_circuit_tracer.config_file import (
    ACTIVATION,
    CONFIG,
    CROSS_LAYER,
    KIND,
    SERVED,
    SIGNED,
    provenance_of,
    read_beside,
    settings_of,
    write_yaml,
)

ENCODER, DECODER = "W_enc_{}.safetensors", "W_dec_{}.safetensors"
FIELDS = {"W_enc": "W_enc_{}", "b_enc": "b_enc_{}", "b_dec": "b_dec_{}", "threshold": "threshold_{}"}
"""Of the encoder's file; the other one has ``W_dec_{}``."""


def is_cross_layer(folder: pathlib.Path) -> bool:
    """Whether a folder has the files of the first layer."""
    return all(is_file_in(folder, name.format(0)) for name in (ENCODER, DECODER))


def read_cross_layer(folder: pathlib.Path) -> Checkpoint:
    """The transcoder of a folder.

    Raises:
        ArtifactError: if it is damaged, or its tensors and ``config.yaml`` contradict each other.
    """
    beside, files = read_beside(folder), list(_files(folder))
    layers = []
    for number, (encoder, decoder) in enumerate(files):
        found = safetensors_tensors(encoder) | safetensors_tensors(decoder)
        known = {form.format(number): field for field, form in {**FIELDS, "W_dec": "W_dec_{}"}.items()}
        missing = known.keys() - found.keys() - {f"threshold_{number}"}
        if missing or found.keys() - known.keys():
            raise ArtifactError(
                f"its tensors {', '.join(sorted(found))} are not those of layer {number}",
                where=str(encoder),
                allowed=", ".join(known),
            )
        layers.append(LayerForm(**{known[name]: tensor for name, tensor in found.items()}))
    rule: Function = "jumprelu" if layers[0].threshold is not None else "relu"
    word = beside.settings.get(ACTIVATION) if beside.is_config else None
    if word not in (None, rule):
        fault = f"{CONFIG} says {ACTIVATION}: {word}, and the tensors are those of a {rule}"
        raise ArtifactError(fault, where=str(folder), allowed=f"{rule}, or no such line")
    form = CrossLayerForm(tuple(layers), rule)
    form.validate(str(folder))
    return Checkpoint(
        form,
        "transcoder",
        provenance_of(beside.settings, range(len(layers))),
        beside.settings,
        (*itertools.chain(*files), *([beside.file] if beside.file else [])),
        components=SIGNED if rule == "jumprelu" else {},
    )


def _files(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Of each layer those of the encoder and the decoder; at least of one."""
    for number in itertools.count():
        if number and not is_file_in(folder, ENCODER.format(number)):
            return
        yield file_in(folder, ENCODER.format(number)), file_in(folder, DECODER.format(number))


def write_cross_layer(checkpoint: Checkpoint, form: CrossLayerForm, folder: pathlib.Path) -> None:
    """Two files for each layer and ``config.yaml``; where nothing is known of places, without it.

    Raises:
        ArtifactError: if circuit-tracer has no such transcoder.
    """
    where = str(folder)
    _check(checkpoint, form, where)
    settings = dict(checkpoint.settings) or settings_of(CROSS_LAYER, [checkpoint.provenance], where)
    if settings.get(ACTIVATION, form.activation) != form.activation:
        del settings[ACTIVATION]
    folder.mkdir(parents=True)
    if KIND in settings:
        write_yaml(folder / CONFIG, settings)
    for number, layer in enumerate(form.layers):
        given = {field: tensor.clone().contiguous() for field, tensor in layer.tensors().items()}
        decoder: dict[str, Tensor] = {f"W_dec_{number}": given.pop("W_dec")}
        encoder = {FIELDS[field].format(number): tensor for field, tensor in given.items()}
        save_file(encoder, folder / ENCODER.format(number))
        save_file(decoder, folder / DECODER.format(number))


def _check(checkpoint: Checkpoint, form: CrossLayerForm, where: str) -> None:
    form.validate(where)
    d_in, d_out, n_layers, _ = form.widths
    fault = None
    if form.k is not None or form.activation not in ("relu", "jumprelu"):
        largest = "" if form.k is None else f" of which the {form.k} largest stay"
        fault = f"with activation {form.activation}{largest}"
    elif form.layers[0].W_skip is not None:
        fault = "with skip connections: circuit-tracer has no file for them"
    elif d_in != d_out:
        fault = f"from {d_in} to {d_out}: both sides have one width"
    served = d_in == d_out
    for places in (checkpoint.provenance.sources, checkpoint.provenance.targets):
        if places and [place.partition(".")[0] for place in places] != [*map(str, range(n_layers))]:
            fault = f"of the layers {', '.join(places)}: there is one for every layer of the model, from 0 on"
            served = False
    if fault is not None:
        raise ArtifactError(
            f"circuit-tracer does not have a cross-layer transcoder {fault}",
            where=where,
            allowed="relu and jumprelu, of all layers, without skip connections",
            next=SERVED if served else None,
        )
