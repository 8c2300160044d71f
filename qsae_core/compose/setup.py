"""What has to be known before anything is built: the device, and the widths of the data."""

from __future__ import annotations

import torch

from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import DataSource
from qsae_core.errors import ConfigError


def resolve_device(device: str) -> str:
    """``auto`` -> ``cuda`` where there is one, else ``cpu``.

    Raises:
        ConfigError: if a GPU is asked for that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        kind, _, index = device.partition(":")
        known = kind == "cuda" and (index.isdecimal() or device == "cuda")
        if not known or int(index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device '{device}' is not there ({torch.cuda.device_count()} CUDA devices)",
                where="--device",
                allowed="auto, cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count())),
            )
    return device


def usable_device(device: str) -> torch.device:
    """A device on which tensors can be made here.

    Raises:
        ConfigError: if its name is none of torch's, or it is not there.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        return found  # torch has no one error for what follows
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used ({type(error).__name__}: {str(error).splitlines()[0]})",
            where="device",
            allowed="cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count())),
            next='device="cpu", as by default',
        ) from error


def shape_of(data: DataSource) -> CoderShape:
    """The widths that a coder for this data needs."""
    return CoderShape(data.d_in, data.d_out, data.layers_in, data.layers_out)
