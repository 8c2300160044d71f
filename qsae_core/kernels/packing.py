"""Exact packing of small integers into bytes: trits (five a byte) and bit planes.

Shapes: D entries in the last dimension, any leading dimensions ``...`` (F rows of a matrix).

Every row starts on a byte of its own, so that row j is decoded, gathered or memory-mapped without its
neighbours. This costs less than a byte a row (and plane): 512 trits take 103 bytes where 102.4 would do
(1.609 bits a trit), 512 bits take 64 bytes exactly, and a width that 8 divides costs planes nothing.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError

TRITS_PER_BYTE = 5  # 3^5 = 243 <= 256
ROWS_AT_ONCE = 4096
"""Rows of bit planes that are worked on at one time: matrices may be large."""
_LARGEST_TRIT_BYTE = 3**TRITS_PER_BYTE - 1


def pack_trits(trits: Tensor) -> Tensor:
    """Five trits a byte: ``[..., D]`` of {-1, 0, +1} -> uint8 ``[..., ceil(D / 5)]``.

    A byte is ``sum_i 3^i (t_i + 1)`` over its trits in order, the first one least significant; the last
    byte of a row is filled up with zeros (digit 1). So ``[+1, 0, -1, 0, 0]`` is 2 + 3 + 0 + 27 + 81 = 113.

    Raises:
        ValueError: if an entry is not -1, 0 or +1.
    """
    if not _all_within(trits, -1, 1):
        raise ValueError("trits must be integers -1, 0 or +1")
    digits = _padded((trits.to(torch.int8) + 1).view(torch.uint8), TRITS_PER_BYTE, fill=1)
    packed = digits[..., TRITS_PER_BYTE - 1 :: TRITS_PER_BYTE].contiguous()
    for i in reversed(range(TRITS_PER_BYTE - 1)):  # Horner's rule; 242 fits into uint8
        packed.mul_(3).add_(digits[..., i::TRITS_PER_BYTE])
    return packed


def trits_shape(n_rows: int, width: int) -> tuple[int, int]:
    """Shape of what ``pack_trits`` gives of ``[n_rows, width]``."""
    return n_rows, -(-width // TRITS_PER_BYTE)


def unpack_trits(packed: Tensor, width: int) -> Tensor:
    """The inverse of ``pack_trits``: uint8 ``[..., ceil(width / 5)]`` -> int8 ``[..., width]``.

    Raises:
        ValueError: if the last dimension does not fit the width.
        ArtifactError: if a byte is above 242, which no five trits give.
    """
    _check_width(packed, width, TRITS_PER_BYTE)
    if packed.numel() and int(packed.max()) > _LARGEST_TRIT_BYTE:
        raise ArtifactError(
            f"the byte {int(packed.max())} is not five trits",
            allowed=f"bytes from 0 to {_LARGEST_TRIT_BYTE}",
            next="the file is damaged: fetch or write it again",
        )
    trits = _trit_table(packed.device).index_select(0, packed.reshape(-1).int())
    return trits.view(*packed.shape[:-1], packed.shape[-1] * TRITS_PER_BYTE)[..., :width].contiguous()


def pack_planes(values: Tensor, n_bits: int) -> Tensor:
    """Bit planes: ``[..., D]`` of integers below ``2^n_bits`` -> uint8 ``[n_bits, ..., ceil(D / 8)]``.

    Plane 0 holds the most significant bits, so the first b planes are the value at b bits. Bit i of byte c
    (``byte >> i & 1``) belongs to entry ``8 c + i``; the last byte of a row is filled up with zeros. So the
    2-bit values ``[3, 0, 1]`` are the planes ``[0b001]`` and ``[0b101]``.

    Args:
        values: integers from 0 to ``2^n_bits - 1``.
        n_bits: 1 to 8.

    Raises:
        ValueError: if ``n_bits`` or a value is out of range.
    """
    _check_bits(n_bits)
    if not _all_within(values, 0, 2**n_bits - 1):
        raise ValueError(f"values must be integers from 0 to {2**n_bits - 1} for {n_bits} bits")
    octets = _padded(values.to(torch.uint8), 8, fill=0)
    lead, n_bytes = octets.shape[:-1], octets.shape[-1] // 8
    planes = octets.new_empty(n_bits, lead.numel(), n_bytes)
    rows = octets.view(lead.numel(), n_bytes, 8)
    for some, packed in zip(rows.split(ROWS_AT_ONCE), planes.split(ROWS_AT_ONCE, dim=1), strict=True):
        for bit in range(n_bits):
            ones = some.bitwise_right_shift(bit).bitwise_and_(1)
            plane = packed[n_bits - 1 - bit].copy_(ones[..., 7])
            for i in reversed(range(7)):
                plane.mul_(2).add_(ones[..., i])
    return planes.view(n_bits, *lead, n_bytes)


def planes_shape(n_bits: int, n_rows: int, width: int) -> tuple[int, int, int]:
    """Shape of what ``pack_planes`` gives of ``[n_rows, width]``."""
    return n_bits, n_rows, -(-width // 8)


def unpack_planes(planes: Tensor, width: int) -> Tensor:
    """The inverse of ``pack_planes``: uint8 ``[n_bits, ..., ceil(width / 8)]`` -> uint8 ``[..., width]``.

    The first b planes alone give the b most significant bits, ``values >> (n_bits - b)``.

    Raises:
        ValueError: if the number of planes is not 1 to 8 or the last dimension does not fit the width.
    """
    _check_bits(planes.shape[0])
    _check_width(planes, width, 8)
    table, (lead, n_bytes) = _bit_table(planes.device), (planes.shape[1:-1], planes.shape[-1])
    rows = planes.reshape(planes.shape[0], lead.numel(), n_bytes)
    octets = planes.new_empty(lead.numel(), n_bytes * 8)
    for some, unpacked in zip(rows.split(ROWS_AT_ONCE, dim=1), octets.split(ROWS_AT_ONCE), strict=True):
        entries = table.index_select(0, some[0].reshape(-1).int())
        for plane in some[1:]:
            entries.mul_(2).add_(table.index_select(0, plane.reshape(-1).int()))
        unpacked.copy_(entries.view(unpacked.shape))
    return octets.view(*lead, n_bytes * 8)[..., :width].contiguous()


def _padded(digits: Tensor, multiple: int, fill: int) -> Tensor:
    missing = -digits.shape[-1] % multiple
    return torch.nn.functional.pad(digits, (0, missing), value=fill) if missing else digits.contiguous()


def _all_within(integers: Tensor, low: int, high: int) -> bool:
    if integers.is_floating_point():
        return False
    if not integers.numel():
        return True
    least, greatest = torch.aminmax(integers)  # compared in Python: 256 is no uint8
    return low <= int(least) and int(greatest) <= high


def _check_bits(n_bits: int) -> None:
    if not 1 <= n_bits <= 8:
        raise ValueError(f"bit planes are for 1 to 8 bits, not {n_bits}")


def _check_width(packed: Tensor, width: int, per_byte: int) -> None:
    if packed.dtype != torch.uint8 or packed.shape[-1] != -(-width // per_byte):
        raise ValueError(
            f"rows of {width} entries need uint8 rows of {-(-width // per_byte)} bytes, "
            f"not {packed.dtype} of {packed.shape[-1]}"
        )


@lru_cache(maxsize=8)
def _trit_table(device: torch.device) -> Tensor:
    """int8 ``[243, 5]``: the trits of each byte."""
    powers = 3 ** torch.arange(TRITS_PER_BYTE)
    digits = torch.arange(_LARGEST_TRIT_BYTE + 1)[:, None] // powers % 3
    return (digits - 1).to(device, torch.int8)


@lru_cache(maxsize=8)
def _bit_table(device: torch.device) -> Tensor:
    """uint8 ``[256, 8]``: the bits of each byte, least significant first."""
    return (torch.arange(256)[:, None] >> torch.arange(8) & 1).to(device, torch.uint8)
