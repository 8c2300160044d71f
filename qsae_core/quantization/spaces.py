"""The normalised spaces of a trained coder, turned and scaled: what it computes stays, to rounding.

Shapes: F latents, D width of the source, E width of the target.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsae_core.coders.linear import LinearCoder
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.normalization import Normalization
from qsae_core.config.settings import QuantizeConfig
from qsae_core.contracts.data import Batch
from qsae_core.contracts.dense import ROWS_AT_ONCE
from qsae_core.errors import ConfigError
from qsae_core.reading import let_go

OF_QUANTIZERS = ("quantizer.", "code_quantizer.")
"""In the names of tensors that belong to a quantizer."""
OF_LATENTS = ("activation.", "sparsity.")
"""How the names of parameters begin that know of latents, and of no vectors."""


def rotate(coder: MatrixCoder, wanted: bool | str, message: Callable[[str], None]) -> bool:
    """Rotate a coder where that is wanted; gives whether it is rotated then.

    Raises:
        ConfigError: if it cannot be, and ``wanted`` is True.
    """
    if _are_rotated(coder) or not wanted:
        return _are_rotated(coder)
    reason = refusal_to_rotate(coder)
    if reason is None:
        rotate_coder(coder)
        return True
    if wanted != "auto":
        raise ConfigError(f"this coder cannot be rotated: {reason}", where="--rotate", next="--no-rotate")
    message(f"not rotated: {reason}")
    return False


@torch.no_grad()
def rotate_coder(coder: MatrixCoder) -> None:
    """Turn each normalised space of a coder by a fixed orthogonal matrix; its function stays, to rounding.

    A vector of the source is turned by one matrix, one of the target by another, each of its own width: so
    every dimension of a parameter is turned by that of the space in which it lies.
    """
    turned = [norm for norm in _sides(coder) if not norm.rotated]
    for norm in turned:
        norm.rotate()
    parameters = dict(coder.named_parameters())
    for name, norms in coder.spaces().items():
        tensor = parameters[name]
        for dim, norm in enumerate(norms, start=-len(norms)):
            if any(norm is one for one in turned):
                _turn(tensor.movedim(dim, -1), norm)


def _turn(tensor: Tensor, norm: Normalization) -> None:
    """Turn the last dimension in place, a few rows at a time: matrices may be large."""
    for rows in tensor.split(ROWS_AT_ONCE) if tensor.dim() > 1 else [tensor]:
        rows.copy_(norm.direction(rows))
        let_go(rows)


def refusal_to_rotate(coder: MatrixCoder) -> str | None:
    """Why a trained coder cannot be rotated; None where it can."""
    spaces = coder.spaces()
    if not spaces:
        return "it does not say which of its parameters lie in the spaces of its vectors"
    other = [name for name, matrix in coder.matrices().items() if not matrix.is_plain]
    if other:
        return f"it keeps its weights in a form that cannot be turned: {', '.join(other)}"
    d_in, d_out, layers_in, layers_out = coder.shape
    widths = {d_in, d_in * layers_in, d_out, d_out * layers_out}
    unknown = [
        name
        for name, parameter in coder.named_parameters()
        if name not in spaces and name != "b_enc" and not _of_latents(name) and widths & {*parameter.shape}
    ]
    return f"it has parameters of the data's width besides: {', '.join(unknown)}" if unknown else None


def _of_latents(name: str) -> bool:
    return name.startswith(OF_LATENTS) or any(part in name for part in OF_QUANTIZERS)


def _sides(coder: MatrixCoder) -> list[Normalization]:
    return [coder.norm_in] if coder.is_autoencoder else [coder.norm_in, coder.norm_out]


def _are_rotated(coder: MatrixCoder) -> bool:
    return all(bool(norm.rotated) for norm in _sides(coder))


def normalizes(coder: MatrixCoder, method: QuantizeConfig) -> bool:
    """Whether ``fit`` gives the coder a normalisation first: automatic rates of fine-tuning are for vectors
    of variance 1 per dimension, and it was trained, by qsae or by another library, on others."""
    none = coder.config.normalize == "none"
    one_vector = isinstance(coder, LinearCoder) and all(norm.layers == 1 for norm in _sides(coder))
    return none and method.steps_of_round > 0 and one_vector and refusal_to_rotate(coder) is None


@torch.no_grad()
def normalize_coder(coder: LinearCoder, sample: Batch) -> None:
    """Measure means and scales as training does, and turn the parameters into those of the normalised spaces;
    the coder's function stays, to rounding.

    A source of the space so far is ``x = s x' + m`` in the new one, a target ``y = t y' + n``. So
    ``W_enc (x - b_dec)`` is ``s W_enc (x' - (b_dec - m) / s)``, and ``W_skip x + b_dec`` becomes
    ``s / t W_skip x' + (W_skip m + b_dec - n) / t``.
    """
    targets = coder.target(sample)
    for norm, vectors in zip(_sides(coder), (sample.x, targets), strict=False):
        norm.mode = "scale"
        norm.fit(vectors, rotate=bool(norm.rotated))
    source, target = coder.norm_in, coder.norm_out
    m, n = (norm.direction(norm.mean) for norm in (source, target))
    if not coder.subtract_b_dec:
        coder.b_enc.add_(coder.W_enc.master @ m)
    coder.W_enc.master.mul_(source.scale)
    if coder.W_skip is not None:
        coder.b_dec.add_(coder.W_skip @ m)
        coder.W_skip.mul_(source.scale / target.scale)
    coder.W_dec.master.div_(target.scale)
    coder.b_dec.sub_(n).div_(target.scale)
