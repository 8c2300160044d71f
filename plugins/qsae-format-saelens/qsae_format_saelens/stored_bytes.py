"""The files of a stored coder as bytes that outlive SAELens' loader, and take fewer bits than they have.

SAELens casts every tensor of sae_weights.safetensors to the floating-point type that cfg.json or the caller
names, and tells an SAE's class neither the folder nor the file. A byte is the same number in each of these
types, so what has to arrive whole is stored as bytes.

Codes of n bits are stored as n planes of bits, of which none can be made smaller. Beside each other the bits
of a code can: codes near 0 are more frequent than others, 3.6 bits for 4 where weights are normal. So planes
are turned first, and then Huffman's codes are taken. Imports no torch.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsae_core.errors import ArtifactError

MOST = 8
"""By which a stream of Huffman codes may grow: a byte takes a bit at least."""
AT_ONCE = 2**18
"""Bytes of a plane that are turned at one time."""
Bytes = NDArray[np.uint8]


def compressed(data: bytes) -> bytes:
    """The bytes of a file: a zlib stream of Huffman codes alone, since nothing repeats."""
    stream = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return stream.compress(_with_planes(data, _turned)) + stream.flush()


def decompressed(data: bytes, where: str) -> bytes:
    """What ``compressed`` was given.

    Raises:
        ArtifactError: if it is no whole stream, or one that grows as none of ``compressed`` does.
    """
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, MOST * len(data) + 1)
    except zlib.error as error:
        raise _damaged(f"is no zlib stream ({error})", where) from error
    if not stream.eof or stream.unused_data:
        raise _damaged("is truncated, or grows more than it can", where)
    return _with_planes(found, _turned_back)


def _with_planes(data: bytes, turn: Callable[[Bytes], Bytes]) -> bytes:
    """A safetensors file with each of its tensors of bit planes turned; other bytes as they are."""
    found = np.frombuffer(data, dtype=np.uint8).copy()
    for start, n_planes, size in _planes(data):
        part = found[start : start + n_planes * size]
        part[:] = turn(part.reshape(-1, size) if turn is _turned else part.reshape(size, -1)).reshape(-1)
    return found.tobytes()


def _planes(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Start, number of planes, and bytes of a plane, of what looks like bit planes in a safetensors file;
    nothing of another file. Of what is no planes nothing is lost either."""
    length = int.from_bytes(data[:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        for name, entry in header.items():
            shape = entry.get("shape", []) if name != "__metadata__" else []
            if entry.get("dtype") == "U8" and len(shape) > 2 and 2 <= shape[0] <= 8:
                start, size = 8 + length + int(entry["data_offsets"][0]), math.prod(shape[1:])
                if size > 0 and 0 <= start <= len(data) - shape[0] * size:
                    yield start, shape[0], size
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return


def _turned(planes_NM: Bytes) -> Bytes:
    """``[M, N]``: of N planes of M bytes, the N bits of each of 8 M codes beside each other."""
    parts = np.array_split(planes_NM, math.ceil(planes_NM.shape[1] / AT_ONCE), axis=1)
    bits = (np.unpackbits(part[:, :, None], axis=2, bitorder="little") for part in parts)  # [N, m, 8]
    return np.concatenate([np.packbits(b.transpose(1, 2, 0).reshape(b.shape[1], -1), axis=1) for b in bits])


def _turned_back(codes_MN: Bytes) -> Bytes:
    """The inverse: ``[N, M]``."""
    n_planes = codes_MN.shape[1]
    parts = np.array_split(codes_MN, math.ceil(len(codes_MN) / AT_ONCE))
    bits = (np.unpackbits(part, axis=1).reshape(len(part), 8, n_planes) for part in parts)
    turned = [np.packbits(b.transpose(2, 0, 1), axis=2, bitorder="little")[:, :, 0] for b in bits]
    return np.concatenate(turned, axis=1)


def _damaged(what: str, where: str) -> ArtifactError:
    return ArtifactError(
        what, where=where, allowed="the bytes as qsae export --format saelens-packed wrote them"
    )
