"""CrossLayerForm: a cross-layer transcoder as plain matrices, which other libraries' files can hold.

Shapes: B tokens, L layers, D width of the input, E width of the output, F latents of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts.dense import DTYPES, ROWS_AT_ONCE, DenseForm, Function, Kept, Pointwise
from qsae_core.errors import ArtifactError

FUNCTIONS = ("relu", "identity", "jumprelu")


@dataclass(frozen=True, eq=False)
class LayerForm:
    """What a cross-layer transcoder has of layer l, of L."""

    W_enc: Tensor
    """``[F, D]``."""
    b_enc: Tensor
    """``[F]``."""
    W_dec: Tensor
    """``[F, L - l, E]``: a latent's vectors for its own layer and all later ones."""
    b_dec: Tensor
    """``[E]``."""
    threshold: Tensor | None = None
    """``[F]``, of a jumprelu and of nothing else."""
    W_skip: Tensor | None = None
    """``[E, D]``, or None."""

    def tensors(self) -> dict[str, Tensor]:
        """Field -> tensor, without those that are None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True, eq=False)
class CrossLayerForm:
    """A whole cross-layer transcoder on vectors as the data has them.

        f_l = activation(W_enc_l x_l + b_enc_l), but for the k largest of a layer 0, where k is given
        y_hat_m = sum_{l <= m} f_l W_dec_l[:, m - l] + b_dec_m + W_skip_m x_m

    Tensors have the type in which a file holds them, as those of ``DenseForm``.
    """

    layers: tuple[LayerForm, ...]
    activation: Function = "relu"
    """``relu``, ``identity`` or ``jumprelu``."""
    k: int | None = None
    """Of each layer's latents."""

    @property
    def n_latents(self) -> int:
        """Of all layers together."""
        return sum(layer.W_enc.shape[0] for layer in self.layers)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Width and layers: D, E, L, L."""
        first = self.layers[0]
        return first.W_enc.shape[1], first.W_dec.shape[2], len(self.layers), len(self.layers)

    def tensors(self) -> dict[str, Tensor]:
        """``layer.field`` -> tensor, such as ``0.W_enc``."""
        return {f"{n}.{key}": t for n, layer in enumerate(self.layers) for key, t in layer.tensors().items()}

    def in_dtypes(self, dtypes: Mapping[str, torch.dtype] | torch.dtype) -> CrossLayerForm:
        """With tensors in these types; of a mapping (name in ``tensors`` -> type), those that it names."""
        layers = []
        for number, layer in enumerate(self.layers):
            changed: dict[str, Any] = {}
            for key, tensor in layer.tensors().items():
                wanted = dtypes if isinstance(dtypes, torch.dtype) else dtypes.get(f"{number}.{key}")
                changed |= {} if wanted is None else {key: tensor.to(wanted)}
            layers.append(replace(layer, **changed))
        return replace(self, layers=tuple(layers))

    def validate(self, where: str | None = None) -> None:
        """Check types, shapes and values, before they are used.

        Raises:
            ArtifactError: with the first fault, and ``where`` it was found.
        """
        fault = _fault(self)
        if fault is not None:
            raise ArtifactError(fault, where=where, allowed="finite tensors as CrossLayerForm describes")

    def encode(self, x_BLD: Tensor) -> Tensor:
        """``[B, L F]``: the latents by the formula above, those of the first layer first."""
        parts = []
        for layer, x_BD in zip(self.layers, x_BLD.unbind(1), strict=True):
            pre_BF = x_BD @ layer.W_enc.to(x_BD).T + layer.b_enc.to(x_BD)
            latents_BF = Pointwise(self.activation, layer.threshold)(pre_BF)
            parts.append(Kept(self.k)(latents_BF, latents_BF.new_ones(latents_BF.shape[1])))
        return torch.cat(parts, dim=1)

    def reconstruct(self, x_BLD: Tensor) -> Tensor:
        """``[B, L, E]``, in the precision of x."""
        latents = self.encode(x_BLD).split([layer.W_enc.shape[0] for layer in self.layers], dim=1)
        outputs = []
        for m, own in enumerate(self.layers):
            y_BE = own.b_dec.to(x_BLD).expand(len(x_BLD), -1)
            for number in range(m + 1):
                y_BE = y_BE + latents[number] @ self.layers[number].W_dec[:, m - number].to(x_BLD)
            if own.W_skip is not None:
                y_BE = y_BE + x_BLD[:, m] @ own.W_skip.to(x_BLD).T
            outputs.append(y_BE)
        return torch.stack(outputs, dim=1)


Form = DenseForm | CrossLayerForm
"""What a checkpoint may hold of one coder."""


def _fault(form: CrossLayerForm) -> str | None:
    if not form.layers:
        return "it has no layers"
    if form.activation not in FUNCTIONS:
        return f"there is no activation {form.activation!r}; there are {', '.join(FUNCTIONS)}"
    first = form.layers[0]
    if first.W_enc.dim() != 2 or first.W_dec.dim() != 3:
        shapes = f"W_enc {list(first.W_enc.shape)} and W_dec {list(first.W_dec.shape)}"
        return f"{shapes} are not [F, D] and [F, L, E]"
    (n_latents, d_in), d_out = first.W_enc.shape, first.W_dec.shape[2]
    if 0 in (n_latents, d_in, d_out):
        return "it has no latents, or no width"
    if form.k is not None and not 1 <= form.k <= n_latents:
        return f"k is {form.k}, with {n_latents} latents of a layer"
    faults = (_fault_of_layer(form, number) for number in range(len(form.layers)))
    return next((fault for fault in faults if fault is not None), None)


def _fault_of_layer(form: CrossLayerForm, number: int) -> str | None:
    layer, first, of_layer = form.layers[number], form.layers[0], f"of layer {number}"
    if (form.activation == "jumprelu") != (layer.threshold is not None):
        there = "no threshold" if layer.threshold is None else "a threshold"
        return f"the {form.activation} {of_layer} has {there}"
    if (layer.W_skip is None) != (first.W_skip is None):
        return f"only some layers have a skip connection; {of_layer} it is otherwise than of layer 0"
    (n_latents, d_in), d_out = first.W_enc.shape, first.W_dec.shape[2]
    sizes = {"W_enc": (n_latents, d_in), "W_dec": (n_latents, len(form.layers) - number, d_out)}
    sizes |= dict.fromkeys(("b_enc", "threshold"), (n_latents,)) | {
        "b_dec": (d_out,),
        "W_skip": (d_out, d_in),
    }
    for name, tensor in layer.tensors().items():
        if tensor.dtype not in DTYPES:
            return f"{name} {of_layer} is {tensor.dtype}, not float32, float16 or bfloat16"
        if tuple(tensor.shape) != sizes[name]:
            shapes = f"{list(tensor.shape)}, and the others ask for {list(sizes[name])}"
            return f"{name} {of_layer} has shape {shapes}"
        if not all(bool(rows.isfinite().all()) for rows in tensor.split(ROWS_AT_ONCE)):
            return f"{name} {of_layer} has NaN or infinite values"
    return None
