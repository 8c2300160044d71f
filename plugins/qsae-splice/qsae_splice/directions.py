"""A direction in the space of vectors: from a file, or a decoder row of a stored coder. D width."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qsae_core import load, load_set
from qsae_core.contracts import SparseCoder
from qsae_core.errors import ConfigError, DataError
from qsae_core.runs import set_folder
from qsae_splice.grammar import DIRECTION_GRAMMAR

KINDS = (".npy", ".safetensors")


def read_direction(place: str) -> Tensor:
    """float32 ``[D]``.

    Args:
        place: ``FILE[:KEY][:ROW]``: a ``.npy`` or ``.safetensors`` file, of the latter the tensor's name
            where there are several, and the row of a matrix; or ``CODER:[LAYER/]ID``: the decoder row of a
            latent of a stored coder (a run, or a folder with a coder), in the data's own space.

    Raises:
        ConfigError: if there is no such file, tensor, row or latent.
        DataError: if the file cannot be read, or what is there is no vector of numbers that is not zero.
    """
    path, rest = _split(place)
    found = _atom(path, rest, place) if path.is_dir() else _row(path, rest, place)
    check_direction(found, place)
    return found


def check_direction(vector: Tensor, where: str, width: int | None = None) -> None:
    """Refuse what is no direction.

    Args:
        width: D; None: any.

    Raises:
        DataError: for what is not ``[D]``, not finite, or zero.
    """
    fault = None
    if vector.dim() != 1 or not vector.is_floating_point():
        fault = f"is {list(vector.shape)} of {vector.dtype}, and no vector"
    elif width not in (None, len(vector)):
        fault = f"has {len(vector)} dimensions, and the vectors at the site have {width}"
    elif not bool(vector.isfinite().all()):
        fault = f"has {int((~vector.isfinite()).sum())} of {len(vector)} values that are not finite"
    elif not float(vector.norm()):
        fault = "is zero, so it points nowhere"
    if fault is not None:
        allowed = f"a vector of {width} floats" if width else "a vector of floats"
        raise DataError(f"the direction {fault}", where=where, allowed=allowed)


def _split(place: str) -> tuple[pathlib.Path, list[str]]:
    """The longest beginning that is there, and what stands behind it."""
    parts = place.split(":")
    for n in range(len(parts), 0, -1):
        path = pathlib.Path(":".join(parts[:n]))
        if path.exists():
            return path, parts[n:]
    raise ConfigError(f"there is nothing at {place}", where="--direction", allowed=DIRECTION_GRAMMAR)


def _atom(path: pathlib.Path, rest: Sequence[str], place: str) -> Tensor:
    layer, _, number = rest[0].rpartition("/") if len(rest) == 1 else ("", "", "")
    if not number.isdecimal():
        raise ConfigError(
            f"{path} is a folder, and of which latent is not said", where=place, allowed=DIRECTION_GRAMMAR
        )
    coder: SparseCoder = load(path) if set_folder(path) is None else load_set(path)[layer]
    if set_folder(path) is None and layer:
        raise ConfigError(f"there is one coder, and none of layer {layer}", where=place, allowed=f"{number}")
    if int(number) >= coder.n_latents:
        raise ConfigError(f"there is no latent {number}", where=place, allowed=f"0 to {coder.n_latents - 1}")
    with torch.no_grad():
        return coder.atoms_of(torch.tensor([int(number)], device=coder.device))[0].float().clone()


def _row(path: pathlib.Path, rest: Sequence[str], place: str) -> Tensor:
    if path.suffix not in KINDS:
        raise ConfigError(f"a direction is not read from {path.name}", where=place, allowed=DIRECTION_GRAMMAR)
    tensor, rows = _array(path, rest, place) if path.suffix == ".npy" else _tensor(path, rest, place)
    if rows:
        if len(rows) > 1 or not rows[0].isdecimal() or tensor.dim() != 2 or int(rows[0]) >= len(tensor):
            raise ConfigError(
                f"there is no row {':'.join(rows)} of {list(tensor.shape)}",
                where=place,
                allowed=f"0 to {len(tensor) - 1}" if tensor.dim() == 2 else "a vector has no rows",
            )
        tensor = tensor[int(rows[0])]
    if tensor.dim() == 2:
        raise ConfigError(f"of {len(tensor)} rows none is named", where=place, allowed=f"{place}:ROW")
    return tensor.float() if tensor.is_floating_point() else tensor


def _array(path: pathlib.Path, rest: Sequence[str], place: str) -> tuple[Tensor, Sequence[str]]:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)), rest
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=place, allowed="an array of floats") from error


def _tensor(path: pathlib.Path, rest: Sequence[str], place: str) -> tuple[Tensor, Sequence[str]]:
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            named = next(
                (":".join(rest[:n]) for n in range(len(rest), 0, -1) if ":".join(rest[:n]) in keys), None
            )
            if named is None and len(keys) > 1:
                raise ConfigError(
                    "which of its tensors is not said", where=place, allowed=", ".join(sorted(keys)[:10])
                )
            found: Tensor = file.get_tensor(keys[0] if named is None else named)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot be read: {error}", where=place, allowed="a file of tensors") from error
    return found, rest if named is None else rest[named.count(":") + 1 :]
