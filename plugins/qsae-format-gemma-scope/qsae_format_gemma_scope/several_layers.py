"""Crosscoders and cross-layer transcoders of Gemma Scope 2: a file for each layer.

    f_l = max(z_l, 0) 1[z_l > threshold_l],  z_l = x_l w_enc_l + b_enc_l
    y_m = sum_{l <= m} f_l w_dec_l[:, m] + b_dec_m  [+ x_m A_m]

A latent reads one layer, and writes to it and to later ones: the crosscoders are "weakly causal". So nothing
is summed where they encode, and ``w_dec_l[:, m]`` is 0 for m < l; published code differs in whether it adds
what stands there, and files where anything does are refused. Shapes: L layers, D and E widths of input and
output, F latents of a layer.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from qsae_core.contracts import Checkpoint, CrossLayerForm, DenseForm, LayerForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, safetensors_names
from qsae_format_gemma_scope.config import Found, completed, config_files, settings_in, type_of
from qsae_format_gemma_scope.hooks import provenance_of
from qsae_format_gemma_scope.jumprelu import NEGATIVE, as_jumprelu, at_least_0, homeless, turned
from qsae_format_gemma_scope.one_layer import SKIP, tensors_of

Tensors = dict[str, Tensor]
FILE = "params_layer_{}.safetensors"
MOST_LAYERS = 1000
ROWS_AT_ONCE = 4096
OTHERS = (
    "SAELens reads a layer alone, with its decoders summed over the layers that it writes to; "
    "circuit-tracer's load_gemma_scope_2_clt leaves out the last layer. Here all of it is read"
)


def read(folder: pathlib.Path) -> Checkpoint:
    """The crosscoder or cross-layer transcoder of a folder.

    Raises:
        ArtifactError: if it is damaged, or of another type.
    """
    files = _files(folder)
    first, low = tensors_of(files[0]), False
    sizes = _sizes(first, len(files), files[0])
    for number, file in enumerate(files):  # one after another, for together they may be larger than memory
        tensors = tensors_of(file)
        _check(tensors, first, sizes, file)
        _check_causal(tensors["w_dec"], number, file)
        low |= bool((tensors["threshold"] < 0).any())
    found = Found(len(files) * sizes["b_enc"][0], SKIP in first)
    settings, config = settings_in(folder), config_files(folder)
    kind = type_of(settings, found, str(folder))
    if kind not in ("crosscoder", "clt"):
        raise ArtifactError(
            f"type is {kind!r}, and there is a file for each of {len(files)} layers",
            where=str(folder),
            allowed="crosscoder, clt",
        )
    form = _cross_layer_form(files) if kind == "clt" else _joined_form(files, first, str(folder))
    form.validate(str(folder))
    settings = settings if config else completed(settings, kind, found)
    return Checkpoint(
        form,
        "transcoder" if kind == "clt" else "sae",
        provenance_of(settings, len(files)),
        settings,
        (*files, *config),
        notes=(OTHERS,) * (kind == "clt") + (NEGATIVE,) * low,
    )


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """One for each layer that the first one writes to."""
    first = file_in(folder, FILE.format(0))
    shape = safetensors_names(first).get("w_dec", ())
    if len(shape) != 3 or not 1 <= shape[1] <= MOST_LAYERS:
        raise ArtifactError(
            f"w_dec has shape {list(shape)}", where=str(first), allowed="[latents, layers, width]"
        )
    if is_file_in(folder, FILE.format(shape[1])):
        raise ArtifactError(f"has more files than the {shape[1]} layers of w_dec", where=str(folder))
    return [file_in(folder, FILE.format(layer)) for layer in range(shape[1])]


def _sizes(first: Tensors, n_layers: int, file: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape that it has in each file."""
    if first["w_enc"].dim() != 2:
        raise ArtifactError(f"w_enc has shape {list(first['w_enc'].shape)}", where=str(file))
    (d_in, n_latents), d_out = first["w_enc"].shape, first["w_dec"].shape[2]
    return {
        "w_enc": (d_in, n_latents),
        "w_dec": (n_latents, n_layers, d_out),
        "b_enc": (n_latents,),
        "b_dec": (d_out,),
        "threshold": (n_latents,),
        SKIP: (d_in, d_out),
    }


def _check(
    tensors: Tensors, first: Tensors, sizes: Mapping[str, tuple[int, ...]], file: pathlib.Path
) -> None:
    """Raises an ArtifactError, unless a file is like the first one."""
    if tensors.keys() != first.keys():
        raise ArtifactError("has other tensors than the first layer", where=str(file))
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != sizes[name] or tensor.dtype != first[name].dtype:
            raise ArtifactError(
                f"{name} is {tensor.dtype} {list(tensor.shape)}",
                where=str(file),
                allowed=f"{first[name].dtype} {list(sizes[name])}, as the first layer has it",
            )


def _check_causal(w_dec_FLE: Tensor, number: int, file: pathlib.Path) -> None:
    if any(bool(rows[:, :number].any()) for rows in w_dec_FLE.split(ROWS_AT_ONCE)):
        raise ArtifactError(
            f"its latents write to layers before their own, number {number}; the report says that none "
            "does, published code adds it, and circuit-tracer leaves it out",
            where=str(file),
            allowed="zeros in w_dec for earlier layers",
        )


def _cross_layer_form(files: Sequence[pathlib.Path]) -> CrossLayerForm:
    layers = []
    for number, file in enumerate(files):
        tensors = tensors_of(file)
        layers.append(
            LayerForm(
                W_enc=tensors["w_enc"].T,
                b_enc=tensors["b_enc"],
                W_dec=tensors["w_dec"][:, number:],
                b_dec=tensors["b_dec"],
                threshold=at_least_0(tensors["threshold"]),
                W_skip=tensors[SKIP].T if SKIP in tensors else None,
            )
        )
    return CrossLayerForm(tuple(layers), "jumprelu")


def _joined_form(files: Sequence[pathlib.Path], first: Tensors, where: str) -> DenseForm:
    """Of the vectors of all layers, one after another: ``W_enc`` has a block for each layer."""
    n_layers, (width, n_latents) = len(files), first["w_enc"].shape
    if SKIP in first or first["b_dec"].shape[0] != width:
        what = "a skip connection" if SKIP in first else "outputs of another width"
        raise ArtifactError(f"type is 'crosscoder', and it has {what}", where=where)
    W_enc = first["w_enc"].new_zeros(n_layers, n_latents, n_layers, width)
    W_dec = first["w_dec"].new_empty(n_layers, n_latents, n_layers, width)
    small: dict[str, list[Tensor]] = {"b_enc": [], "b_dec": [], "threshold": []}
    for number, file in enumerate(files):
        tensors = tensors_of(file)
        W_enc[number, :, number] = tensors["w_enc"].T
        W_dec[number] = tensors["w_dec"]
        for name, parts in small.items():
            parts.append(tensors[name].clone())  # a view would keep the whole file in memory
    return DenseForm(
        W_enc=W_enc.view(n_layers * n_latents, n_layers * width),
        b_enc=torch.cat(small["b_enc"]),
        W_dec=W_dec.view(n_layers * n_latents, n_layers * width),
        b_dec=torch.cat(small["b_dec"]),
        activation="jumprelu",
        threshold=at_least_0(torch.cat(small["threshold"])),
        layers=n_layers,
    )


# --- writing


def as_layers(form: DenseForm | CrossLayerForm, where: str) -> CrossLayerForm:
    """The layers of a crosscoder, or of a cross-layer transcoder, with thresholds alone.

    Raises:
        ArtifactError: if a latent reads several layers, writes to one before its own, or has no threshold.
    """
    layers = form.layers if isinstance(form, CrossLayerForm) else _divided(as_jumprelu(form, where), where)
    if isinstance(form, CrossLayerForm) and form.k is not None:
        raise homeless(f"the {form.k} largest latents of a token", where)
    if form.activation == "identity":
        raise homeless("latents of either sign", where)
    found = []
    for layer in layers:
        zeros = torch.zeros_like(layer.b_enc) if layer.threshold is None else layer.threshold
        if bool((zeros < 0).any()):
            raise homeless("negative latents, above thresholds below 0", where)
        found.append(layer if layer.threshold is not None else LayerForm(**layer.tensors(), threshold=zeros))
    return CrossLayerForm(tuple(found), "jumprelu")


def _divided(dense: DenseForm, where: str) -> tuple[LayerForm, ...]:
    n_layers = dense.layers
    if dense.n_latents % n_layers or dense.W_skip is not None:
        what = "a skip connection" if dense.W_skip is not None else f"{dense.n_latents} latents"
        raise ArtifactError(f"there is no crosscoder of {n_layers} layers with {what}", where=where)
    encoders = [block.unflatten(1, (n_layers, -1)) for block in dense.W_enc.chunk(n_layers)]
    decoders = [block.unflatten(1, (n_layers, -1)) for block in dense.W_dec.chunk(n_layers)]
    for number, (reads, writes) in enumerate(zip(encoders, decoders, strict=True)):
        others = [reads[:, :number], reads[:, number + 1 :], writes[:, :number]]
        if any(bool(rows.any()) for part in others for rows in part.split(ROWS_AT_ONCE)):
            raise ArtifactError(
                "has latents that read several layers, or write to one before their own",
                where=where,
                allowed="crosscoders of gemma-scope-2, whose latents are in the order of the layer they read",
            )
    assert dense.threshold is not None
    parts = zip(*(t.chunk(n_layers) for t in (dense.b_enc, dense.b_dec, dense.threshold)), strict=True)
    return tuple(
        LayerForm(encoders[n][:, n], b_enc, decoders[n][:, n:], b_dec, threshold)
        for n, (b_enc, b_dec, threshold) in enumerate(parts)
    )


def files_of(form: CrossLayerForm) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name -> tensors of each layer's file, made one at a time."""
    for number, layer in enumerate(form.layers):
        assert layer.threshold is not None
        w_dec = layer.W_dec.new_zeros(layer.W_dec.shape[0], len(form.layers), layer.W_dec.shape[2])
        w_dec[:, number:] = layer.W_dec
        tensors = {
            "w_enc": turned(layer.W_enc),
            "w_dec": w_dec,
            "b_enc": layer.b_enc,
            "b_dec": layer.b_dec,
            "threshold": layer.threshold,
        }
        tensors |= {} if layer.W_skip is None else {SKIP: turned(layer.W_skip)}
        # a slice of all layers' is stored whole, so copied
        yield FILE.format(number), {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
