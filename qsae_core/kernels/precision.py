"""Products that autocast may not lower."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def full_precision(function: Function) -> Function:
    """Keep a caller's autocast away from a function whose products must have the dtype of their inputs.

    A coder spliced into a language model that runs under autocast computes as it was trained.
    """

    @functools.wraps(function)
    def in_full(*arguments: Any, **options: Any) -> Any:
        tensor = next(a for a in arguments if isinstance(a, torch.Tensor))
        if not torch.is_autocast_enabled(tensor.device.type):
            return function(*arguments, **options)
        with torch.autocast(tensor.device.type, enabled=False):
            return function(*arguments, **options)

    return in_full  # type: ignore[return-value]
