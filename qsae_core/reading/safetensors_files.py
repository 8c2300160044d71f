"""Safetensors files of strangers."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading.files import the_file

T = TypeVar("T")


def safetensors_tensors(path: pathlib.Path) -> dict[str, Tensor]:
    """Name -> tensor, a view of the file.

    Raises:
        ArtifactError: if there is no such file, or it is damaged; sizes and places are those of the file.
    """
    return _opened(path, lambda reader: {name: reader.get_tensor(name) for name in reader.keys()})  # noqa: SIM118


def safetensors_names(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape, from the header alone.

    Raises:
        ArtifactError: as ``safetensors_tensors``.
    """

    def shapes(reader: Any) -> dict[str, tuple[int, ...]]:
        return {name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()}  # noqa: SIM118

    return _opened(path, shapes)


def _opened(path: pathlib.Path, read: Callable[[Any], T]) -> T:
    try:
        with safe_open(the_file(path), framework="pt") as reader:
            return read(reader)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ArtifactError(
            f"cannot be read ({' '.join(str(error).split())[:200]})",
            where=str(path),
            allowed="a whole safetensors file, of types that torch has",
        ) from error
