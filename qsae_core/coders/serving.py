"""What is asked of a trained coder beside codes: float atoms, packed numbers, what rounding does to atoms.

Shapes: F latents, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.component import name_of
from qsae_core.contracts.quantizer import Lookup
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.kernels import Kind
from qsae_core.kernels.packed_rows import ROWS_AT_ONCE, Arithmetic
from qsae_core.reading import let_go


class StoredMasters(NamedTuple):
    """Where the float masters of a loaded coder are."""

    folder: str
    """The artifact's folder, for messages."""
    read: Callable[[str], Tensor] | None
    """Gives a tensor of the file of masters by its name; None where they were not kept."""


def check_choices(screen: Kind, arithmetic: Arithmetic, *, where: str | None = None) -> None:
    """Refuse a screen or an arithmetic that there is not.

    Raises:
        ConfigError: which says what there is.
    """
    for name, value, kind in (("screen", screen, Kind), ("arithmetic", arithmetic, Arithmetic)):
        known = get_args(kind)
        if value not in known:
            what, usual = f"there is no {name} {value!r}", f'{name}="{known[0]}"'
            raise ConfigError(what, where=where, allowed=", ".join(known), next=f"{usual}, as by default")


def rows_before_quantization(
    name: str, decoder: QuantizedMatrix, masters: StoredMasters | None
) -> Tensor | None:
    """``[F, D]``: the decoder of that name before quantization, in the normalised space; None where it was
    not kept.

    Raises:
        ArtifactError: if the file of masters is truncated, altered or another coder's.
    """
    if decoder.weight is not None:
        return decoder.before_quantization(decoder.weight.detach())
    if decoder.quantizer.is_identity:
        return decoder()
    if masters is None or masters.read is None:
        return None
    read = masters.read
    rows = decoder.read_before_quantization(lambda part: read(f"{name}.{part}"))
    return rows[: decoder.shape[0]]


def float_rows(name: str, decoder: QuantizedMatrix, masters: StoredMasters | None) -> Tensor:
    """``rows_before_quantization``, where they were kept.

    Raises:
        ArtifactError: if they were not kept, or their file is truncated, altered or another coder's.
    """
    rows = rows_before_quantization(name, decoder, masters)
    if rows is None:
        raise ArtifactError(
            "the atoms before quantization are not in this artifact, only the packed ones",
            where=None if masters is None else masters.folder,
            allowed="dictionary(quantized=True)",
            next="train with --save-float, which keeps them in masters.safetensors",
        )
    return rows


def squared_sines(a_FD: Tensor | Iterator[Tensor], b_FD: Tensor | Iterator[Tensor]) -> Tensor:
    """float64 ``[F]``, on the CPU: 1 - cos^2 between rows; 1 where one of the two is zero, and 0 where both
    are.

    Args:
        a_FD, b_FD: matrices, or blocks of ``ROWS_AT_ONCE`` of their rows (``QuantizedMatrix.blocks``).
    """
    found = []
    sides = (side.split(ROWS_AT_ONCE) if isinstance(side, Tensor) else side for side in (a_FD, b_FD))
    for a, b in zip(*sides, strict=True):
        stored, a, b = a, a.double(), b.double()
        let_go(stored)
        inner, squares = (a * b).sum(1).square(), a.square().sum(1) * b.square().sum(1)
        both_zero = (a == 0).all(1) & (b == 0).all(1)
        found.append(torch.where(squares > 0, 1 - inner / squares, 1.0 - both_zero.double()).clamp_min(0))
    return torch.cat(found).cpu()


def stored_codes(decoders: Mapping[str, QuantizedMatrix]) -> Lookup:
    """The decoder's integer codes, points and scales.

    Raises:
        ConfigError: if it is several matrices, or not stored as codes into a table of points.
    """
    if len(decoders) != 1:
        raise ConfigError(
            f"the decoder is {len(decoders)} matrices, and none of them has the codes of all atoms",
            allowed="a coder with one decoder matrix",
            next="coder.matrices() has each of them; matrix.quantizer.lookup(matrix.pack()) its codes",
        )
    (decoder,) = decoders.values()
    found = decoder.quantizer.lookup(decoder.pack())
    if found is None:
        raise ConfigError(
            f"the decoder is not stored as codes and scales (its quantizer is {name_of(decoder.quantizer)})",
            allowed="a coder with a quantizer of scaled points, such as ste",
            next="dictionary() gives its atoms as floats",
        )
    return found
