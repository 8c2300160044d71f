"""The file of samples: one safetensors file, whole or not there, with a checksum. Imports no torch.

The README says what each array is. The header holds, beside them, the format and its version, the JSON text
``about`` and a sha256 over all of it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from qsae_core.errors import ArtifactError
from qsae_core.runs import atomic_file

Arrays = Mapping[str, NDArray[Any]]
FORMAT, VERSION = "qsae-samples", "1"
FILE = "samples.safetensors"
FULL = 32767
"""What an activation of a latent's largest magnitude is stored as."""
AGAIN = "copy the file again from its source, or collect anew: qsae samples PATH"
NEEDED = (
    "count",
    "mean",
    "largest",
    "histogram",
    "histogram_top",
    "group_floor",
    "example_offsets",
    "example_group",
    "example_start",
    "example_length",
    "example_peak",
    "example_active",
    "active_at",
    "active_value",
    "tokens",
    "vocabulary_ids",
    "vocabulary_text",
    "stretch_start",
    "stretch_context",
    "stretch_position",
    "stretch_document",
    "random_start",
    "random_length",
    "code_token",
    "code_latent",
    "code_value",
    "cofiring_latent",
    "cofiring_share",
)
"""Arrays that every file has."""


def write(path: pathlib.Path, arrays: Arrays, about: Mapping[str, Any]) -> None:
    """Write a file; an older one is replaced once the new one is complete.

    Raises:
        UnwritableError: for what the disk refuses.
    """
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    header = {"format": FORMAT, "version": VERSION, "about": text, "sha256": digest(arrays, text)}
    with atomic_file(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary, header)


def read(path: pathlib.Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, and what is said about them.

    Raises:
        ArtifactError: if there is no such file, it is of another version, or not as it was written.
    """
    try:
        with safetensors.safe_open(path, framework="np") as reader:
            header = reader.metadata() or {}
            arrays = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise ArtifactError(
            "there is no such file",
            where=str(path),
            allowed=f"a {FILE} of qsae samples",
            next="qsae samples PATH",
        ) from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"is truncated or no safetensors file ({error})", where=str(path), next=AGAIN
        ) from error
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ArtifactError(
            f"is of format {header.get('format')!r}, version {header.get('version')!r}",
            where=str(path),
            allowed=f"{FORMAT!r}, version {VERSION!r}",
            next="pip install -U qsae-samples, or collect anew: qsae samples PATH",
        )
    text = header.get("about", "")
    if digest(arrays, text) != header.get("sha256"):
        raise ArtifactError(
            "was altered: the contents do not match the checksum in its header", where=str(path), next=AGAIN
        )
    if lacking := [name for name in NEEDED if name not in arrays]:
        raise ArtifactError(f"holds no array {lacking[0]}", where=str(path), next=AGAIN)
    about: dict[str, Any] = json.loads(text)
    return arrays, about


def digest(arrays: Arrays, text: str) -> str:
    """sha256 over a text, and over names, types, shapes and bytes of arrays, in the order of names."""
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def packed(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as bytes: zlib of their JSON list in UTF-8."""
    raw = json.dumps(list(texts), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return np.frombuffer(zlib.compress(raw, 9), dtype=np.uint8)


def spelled(raw: bytes | None) -> str:
    """Bytes as arrays of texts have them: hexadecimal digits; nothing for None."""
    return "" if raw is None else raw.hex()


def unpacked(array: NDArray[np.uint8]) -> list[str]:
    """The texts of ``packed``."""
    texts: list[str] = json.loads(zlib.decompress(array.tobytes()).decode("utf-8", "surrogatepass"))
    return texts
