"""Safetensors files with a checksum of their contents in the header."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading import let_go, safetensors_in_memory, safetensors_tensors
from qsae_core.results.files import COPY

BYTES_AT_ONCE = 2**24
"""Of a tensor, that are digested at once."""
WHOLE = "the file as qsae wrote it, beside the JSON file of the same coder"


def tensors_digest(
    tensors: Mapping[str, Tensor], text: str = "", done: Callable[[Tensor], None] | None = None
) -> str:
    """sha256 over a text and over names, dtypes, shapes and bytes of tensors, in the order of names.

    Args:
        done: is given each part of a tensor's bytes that has been read.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.as_strided((tensor.numel(),), (1,))  # a single entry may have any stride else
        for part in flat.view(torch.uint8).split(BYTES_AT_ONCE):
            digest.update(part.numpy().data)
            if done is not None:
                done(part)
    return digest.hexdigest()


def save_tensors(
    path: pathlib.Path,
    tensors: Mapping[str, Tensor],
    text: str = "",
    parts: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write a safetensors file whose header holds the digest of its tensors and of an accompanying text.

    The same tensors and text give the same bytes.

    Args:
        parts: name -> what may be read alone (``load_part``); the header holds a digest of each.
    """
    digests = {f"sha256 {name}": tensors_digest(part, text) for name, part in (parts or {}).items()}
    save_file(dict(tensors), path, metadata={"sha256": tensors_digest(tensors, text), **digests})
    _sort_metadata(path)


def _sort_metadata(path: pathlib.Path) -> None:
    """Put the header's digests in order, in which save_file leaves them to chance; its length stays."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        assert len(text) <= size  # else tensors would be written over
        file.write(text.ljust(size))


def load_tensors(path: pathlib.Path, text: str = "", *, map_large: bool = False) -> dict[str, Tensor]:
    """Read what ``save_tensors`` wrote.

    Args:
        map_large: give views of the file for large tensors, which take memory as they are used
            (``qsae_core.reading.let_go``).

    Raises:
        ArtifactError: if the file is missing, truncated or altered, or the text is not the one of saving.
    """
    with _opened(path) as reader:
        tensors = safetensors_in_memory(path, map_large=map_large)
        _check(tensors, text, "sha256", reader, path)
    return tensors


def load_part(
    path: pathlib.Path, part: str, ends: Mapping[str, tuple[int, int]], text: str = ""
) -> dict[str, Tensor]:
    """Read one part of what ``save_tensors`` wrote, and nothing else of the file.

    Args:
        part: its name among ``parts``.
        ends: tensor -> ``(dim, n)``: only its first n entries along a dimension; none where n is 0. Scalars
            with n above 0, and tensors that are not here, are read whole.

    Raises:
        ArtifactError: as ``load_tensors``.
    """
    tensors = {}
    with _opened(path) as reader:
        for name in reader.keys():  # noqa: SIM118 (no mapping)
            found = reader.get_slice(name)
            dim, n = _cut(ends, name, found.get_shape(), path)
            if n < 0:
                tensors[name] = reader.get_tensor(name).clone()
            elif n > 0:
                where = (slice(None),) * dim + (slice(0, n),)
                tensors[name] = found[where].clone().contiguous()
        _check(tensors, text, f"sha256 {part}", reader, path)
    return tensors


def tensor_reader(path: pathlib.Path, text: str = "") -> Callable[[str], Tensor]:
    """Name -> tensor of what ``save_tensors`` wrote; the whole file is compared with its checksum once, here.

    Only tensors that are asked for are copied into memory.

    Raises:
        ArtifactError: as ``load_tensors``; and by the reader, if the file holds no such tensor.
    """
    with _opened(path) as reader:
        mapped = safetensors_tensors(path)
        _check(mapped, text, "sha256", reader, path)

    def read(name: str) -> Tensor:
        if name not in mapped:
            raise ArtifactError(
                f"holds no tensor {name}",
                where=str(path),
                allowed="the file that qsae wrote under this name, beside the coder",
                next=COPY,
            )
        return mapped[name].clone()

    return read


def part_bytes(path: pathlib.Path, ends: Mapping[str, tuple[int, int]]) -> int:
    """Bytes of tensors that ``load_part`` reads with these ``ends``; only the file's header is read for it.

    Raises:
        ArtifactError: if the file is missing or truncated.
    """
    total = 0
    for name, entry in _header(path).items():
        start, end = entry["data_offsets"]
        dim, n = _cut(ends, name, entry["shape"], path)
        if n < 0:
            total += end - start
        elif n > 0:
            total += (end - start) // entry["shape"][dim] * n
    return total


def _cut(
    ends: Mapping[str, tuple[int, int]], name: str, shape: Sequence[int], path: pathlib.Path
) -> tuple[int, int]:
    """Dimension, and how many entries of it are read: 0: none, -1: the whole tensor."""
    dim, n = ends.get(name, (0, -1))
    if n <= 0 or not shape:
        return dim, 0 if n == 0 else -1
    if dim >= len(shape) or n > shape[dim]:
        raise ArtifactError(
            f"holds no {n} entries of {name} {list(shape)} in dimension {dim}, which a level is to read",
            where=str(path),
            allowed=WHOLE,
            next=COPY,
        )
    return dim, n


def _header(path: pathlib.Path) -> dict[str, Any]:
    """Tensor -> dtype, shape and where its bytes are; the format's first 8 bytes are the header's length."""
    with _opened(path), path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


@contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as reader:
            yield reader
    except FileNotFoundError as error:
        raise ArtifactError("there is no such file", where=str(path), allowed=WHOLE, next=COPY) from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"is truncated or no safetensors file ({error})",
            where=str(path),
            allowed=WHOLE,
            next=COPY,
        ) from error


def _check(tensors: Mapping[str, Tensor], text: str, key: str, reader: Any, path: pathlib.Path) -> None:
    recorded = (reader.metadata() or {}).get(key)
    if recorded is None:
        raise ArtifactError(
            f"holds no checksum ({key}), so qsae did not write it", where=str(path), allowed=WHOLE, next=COPY
        )
    if tensors_digest(tensors, text, let_go) != recorded:
        raise ArtifactError(
            f"was altered{', or the JSON file beside it' * bool(text)}: "
            "the contents do not match the checksum in its header",
            where=str(path),
            allowed=WHOLE,
            next=COPY,
        )
