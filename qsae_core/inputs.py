"""What a coder is given, checked where it enters. Shapes: B tokens, L layers, D width, N entries."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qsae_core.coder_records import CoderShape
from qsae_core.codes import SparseCodes
from qsae_core.errors import DataError


def vectors(x: Any, shape: CoderShape, reads_layers: bool, like: Tensor) -> Tensor:
    """``x`` in the type of ``like``: ``[B, d_in]``, or ``[B, L, d_in]`` for a coder of several layers.

    Every other shape would be broadcast against the mean, and give a number for something else.

    Raises:
        DataError: for anything but a floating-point tensor of that shape on the device of ``like``.
    """
    layers = (shape.layers_in,) if reads_layers else ()
    wanted = f"a floating-point tensor [B, {', '.join(str(n) for n in (*layers, shape.d_in))}]"
    if not isinstance(x, Tensor):
        kind = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
        raise DataError(f"vectors are a tensor, not {kind}", allowed=wanted, next="torch.as_tensor(x)")
    if x.shape[1:] != (*layers, shape.d_in) or x.dim() == 0:
        one = x.shape == (*layers, shape.d_in)
        raise DataError(
            f"the vectors have the shape {list(x.shape)}", allowed=wanted, next="x[None]" if one else None
        )
    if not x.is_floating_point():
        raise DataError(f"the vectors are {x.dtype}", allowed=wanted, next="x.float()")
    if x.device != like.device:
        raise DataError(
            f"the vectors are on {x.device}, the coder is on {like.device}",
            allowed=wanted,
            next="x.to(coder.device); coder.reconstruct_stream(batches) does so by itself",
        )
    return x.to(like.dtype)


def check_codes(codes: SparseCodes, n_latents: int) -> None:
    """Refuse codes of another coder or level: their indices may point behind the last atom.

    Raises:
        DataError: with both numbers of latents, or the index.
    """
    if codes.n_latents != n_latents:
        raise DataError(
            f"codes of {codes.n_latents} latents are decoded by a coder of {n_latents}",
            allowed="codes of the same coder at the same level",
            next="encode with the coder that decodes",
        )
    if codes.indices.numel() and codes.indices.device.type == "cpu":
        least, largest = (int(bound) for bound in codes.indices.aminmax())
        if least < 0 or largest >= n_latents:
            wrong = least if least < 0 else largest
            raise DataError(f"the codes name latent {wrong}", allowed=f"0 to {n_latents - 1}")
