"""What a coder is given, checked where it enters. Shapes: B tokens, L layers, D width, N entries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.errors import ConfigError, DataError


def vectors(x: Any, shape: CoderShape, reads_layers: bool, like: Tensor, serves: bool) -> Tensor:
    """``x`` in the type of ``like``: ``[B, d_in]``, or ``[B, L, d_in]`` for a coder of several layers.

    Every other shape would be broadcast against the mean, and give a number for something else. A vector
    with NaN in it passes no threshold, and would become the code of nothing. Only a coder that ``serves``
    looks for that, and only on the CPU: in training the loss shows it, with the step and its statistics, and
    on a GPU it would mean to wait for all that the GPU was asked before.

    Raises:
        DataError: for anything but a floating-point tensor of that shape on the device of ``like``; on the
            CPU also where a row is not finite, with the first one.
    """
    layers = (shape.layers_in,) if reads_layers else ()
    wanted = f"a floating-point tensor [B, {', '.join(str(n) for n in (*layers, shape.d_in))}]"
    if not isinstance(x, Tensor):
        raise DataError(
            f"vectors are a tensor, not {_type_name(x)}", allowed=wanted, next="torch.as_tensor(x)"
        )
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
    x = x.to(like.dtype)
    if serves and x.device.type == "cpu":
        _check_finite(x)
    return x


def _check_finite(x: Tensor) -> None:
    if math.isfinite(x.detach().sum().item()):  # one pass; finite terms may overflow it
        return
    finite = x.isfinite().flatten(1).all(1)
    if not finite.all():
        raise DataError(
            f"the vectors have NaN or infinity in {int((~finite).sum())} of {len(finite)} rows, first in row "
            f"{int(finite.int().argmin())}",
            allowed="finite numbers",
            next="x[x.isfinite().flatten(1).all(1)] has the rows without",
        )


def check_type(dtype: torch.dtype) -> None:
    """Refuse to convert a coder: its masters, statistics and packed scales are float32.

    Raises:
        ConfigError: for any other type.
    """
    if dtype != torch.float32:
        raise ConfigError(
            f"a coder computes in float32 and cannot be converted to {dtype}",
            allowed="vectors of any floating-point type: encode and reconstruct read them as float32",
            next="leave the coder as it is, and coder.reconstruct(x).to(x.dtype) where x is bfloat16; of a "
            "model that holds the coder, convert the other modules",
        )


def check_varies(vectors: Tensor, name: str) -> None:
    """Refuse a sample ``[N, ...]`` that is one vector N times: it has no variance to explain, and training
    on it ends in NaN, which looks like a learning rate too high. One vector alone says nothing.

    Raises:
        DataError: with the ``name`` of what does not vary.
    """
    if len(vectors) > 1 and bool((vectors[1:] == vectors[0]).all()):
        raise DataError(
            f"the {name} do not vary: {len(vectors)} of them were read, and all are the same",
            where="data",
            allowed="vectors that differ from one another",
            next="look at the data: a file that was never filled, or a position that is the same in every "
            "text, gives such vectors",
        )


def check_codes(codes: Any, n_latents: int) -> None:
    """Refuse what is no code, and codes of another coder or level: their indices may point behind the last
    atom.

    Raises:
        DataError: with the type, both numbers of latents, or the index.
    """
    if not isinstance(codes, SparseCodes):
        raise DataError(
            f"codes are SparseCodes, not {_type_name(codes)}",
            allowed=f"SparseCodes of {n_latents} latents",
            next="coder.encode(x) gives them; SparseCodes.from_dense(latents) makes them of a tensor [B, F]",
        )
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
            raise DataError(
                f"the codes name latent {wrong}",
                allowed=f"0 to {n_latents - 1}",
                next="encode with the coder that decodes",
            )


def kept_inputs(codes: SparseCodes) -> Tensor:
    """What was encoded, for a decoder with a skip connection.

    Raises:
        DataError: if the codes do not have it, or not for every token.
    """
    if codes.inputs is None or len(codes.inputs) != codes.batch_size:
        what = (
            "no inputs"
            if codes.inputs is None
            else f"{len(codes.inputs)} inputs for {codes.batch_size} tokens"
        )
        raise DataError(
            f"the codes have {what}, and the decoder has a skip connection: it adds W_skip x",
            allowed="codes with the vectors that were encoded, as coder.encode(x) gives them",
            next="dataclasses.replace(codes, inputs=x) adds them",
        )
    return codes.inputs


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
