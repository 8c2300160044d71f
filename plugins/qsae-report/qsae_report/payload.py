"""Data within a page: JSON that no tag can end, and arrays as base64 of raw deflate. Imports no torch."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TYPES = {
    "uint8": "Uint8Array",
    "int16": "Int16Array",
    "uint16": "Uint16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "float32": "Float32Array",
    "float64": "Float64Array",
}
"""numpy's types that a page may have, and what JavaScript calls them."""
ALIGNED = 8
"""Bytes at multiples of which arrays begin."""


class Block(NamedTuple):
    """What a page unpacks when it needs it."""

    name: str
    about: str
    """JSON: ``[[name, JavaScript's type, offset in bytes, entries], ...]``; of values, ``null``."""
    text: str
    """base64 of raw deflate."""


def block(name: str, arrays: Mapping[str, Array]) -> Block:
    """Arrays, flat, one after another, in the byte order of every browser (little)."""
    parts, about, offset = [], [], 0
    for key, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        raw = flat.astype(flat.dtype.newbyteorder("<")).tobytes()
        about.append([key, TYPES[flat.dtype.name], offset, len(flat)])
        padding = -len(raw) % ALIGNED
        parts += [raw, bytes(padding)]
        offset += len(raw) + padding
    return Block(name, json_text(about), _packed(b"".join(parts)))


def value_block(name: str, value: Any) -> Block:
    """JSON values, packed in the same way."""
    return Block(name, "null", _packed(json_text(value).encode("ascii")))


def _packed(raw: bytes) -> str:
    squeezed = zlib.compressobj(6, zlib.DEFLATED, -15)
    return base64.b64encode(squeezed.compress(raw) + squeezed.flush()).decode("ascii")


def json_text(value: Any) -> str:
    """JSON in ASCII without ``<``, ``>`` and ``&``, so that it stands in a script element as it is. NaN and
    infinities, which JSON does not have, are null; a lone surrogate stays one."""
    text = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return value
