"""What ``ae.pt`` holds: a state dict, or the backup of a training that goes on."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading import only_tensors, torch_contents

BACKUP = frozenset({"step", "ae", "optimizer"})
"""Keys by which a backup is known; it also has ``config`` and ``norm_factor``."""
BIASES = frozenset({"bias", "encoder.bias", "decoder.bias", "decoder_bias", "gate_bias", "mag_bias"}) | {
    "b_enc",
    "b_dec",
    "threshold",
}
"""What ``scale_biases`` of the library's classes multiplies."""
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


class State(NamedTuple):
    """A state dict, and how it came out of its file."""

    tensors: dict[str, Tensor]
    step: int | None = None
    """Of a backup: how far training was."""
    norm_factor: float | None = None
    """Of a backup whose vectors were divided by it in training: biases have been multiplied by it here."""


def read_state(path: pathlib.Path) -> State:
    """The tensors of a file, as views of it; those of a backup are for vectors as the model has them.

    Raises:
        ArtifactError: if it is damaged, or holds neither.
    """
    contents = torch_contents(path)
    if not (isinstance(contents, Mapping) and contents.keys() >= BACKUP):
        return State(only_tensors(contents, path))
    tensors = only_tensors(contents["ae"], path)
    step, factor = contents["step"], contents.get("norm_factor")
    if isinstance(step, bool) or not isinstance(step, int):
        raise ArtifactError(f"its step is {step!r}, not a number", where=str(path))
    if factor is None:
        return State(tensors, step)
    if not isinstance(factor, float) or not (math.isfinite(factor) and factor > 0):
        raise ArtifactError(
            f"its norm_factor is {factor!r}", where=str(path), allowed="a number above 0, or none"
        )
    return State({name: _scaled(name, tensor, factor) for name, tensor in tensors.items()}, step, factor)


def number(tensors: Mapping[str, Tensor], name: str, where: str) -> int | float:
    """The one value of a tensor, a whole number if it has that type.

    Raises:
        ArtifactError: if it has several values, or one that is not finite.
    """
    tensor = tensors[name]
    value: int | float | bool = tensor.item() if tensor.numel() == 1 and tensor.dim() <= 1 else math.nan
    if isinstance(value, bool) or not math.isfinite(value):
        raise ArtifactError(
            f"{name} is a tensor of shape {list(tensor.shape)} and type {tensor.dtype}, and not one number",
            where=where,
        )
    return value


def sizes(tensors: Mapping[str, Tensor], n_latents: int, where: str) -> list[int]:
    """``group_sizes``.

    Raises:
        ArtifactError: if they are not whole numbers above 0 that add up to the latents.
    """
    tensor = tensors["group_sizes"]
    is_list = tensor.dim() == 1 and tensor.dtype in INTEGERS and len(tensor) <= n_latents
    found = tensor.tolist() if is_list else []
    if not found or min(found) < 1 or sum(found) != n_latents:
        raise ArtifactError(
            f"group_sizes {found[:20] or list(tensor.shape)} are not those of {n_latents} latents",
            where=where,
            allowed="sizes of 1 or more that add up to the latents",
        )
    return found


def as_read(value: Any, dtype: torch.dtype) -> dict[str, Any]:
    """JSON of numbers that no dense form holds, for the settings."""
    return {"value": value, "dtype": str(dtype).removeprefix("torch.")}


def _scaled(name: str, tensor: Tensor, factor: float) -> Tensor:
    never_set = name == "threshold" and tensor.dim() == 0 and bool(tensor < 0)
    return tensor if name not in BIASES or never_set else (tensor.double() * factor).float()
