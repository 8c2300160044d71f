"""Which implementation of an operation runs: a compiled one where a kernel set brought it, else torch's.

An operation is a function over plain tensors, without gradient; its torch implementation is always there and
is what a compiled one is compared with. Which sets are active is a matter of the process, as with torch's own
backends.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


class Operation(Protocol):
    """A function with the torch implementation behind it."""

    torch_implementation: Callable[..., Any]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run what is active."""


OPERATIONS: dict[str, Operation] = {}
"""Name -> operation: every function that a kernel set may replace."""

MOST_KINDS = 64
"""Shapes of which matrices wait to be used again, at most: those of a coder of 32 layers; old ones go."""

_NOT_COMPILED = frozenset({torch.float64, torch.float16, torch.bfloat16})
"""Compiled functions compute in float32."""

_active: dict[tuple[str, str], Callable[..., Any]] = {}
_workspaces = threading.local()


def operation(function: Function) -> Function:
    """Let a kernel set replace this function for the device of its first tensor argument."""
    name = function.__name__

    @functools.wraps(function)
    def dispatched(*arguments: Any, **options: Any) -> Any:
        chosen = _compiled(name, arguments) if _active else None
        return (chosen or function)(*arguments, **options)

    as_operation = cast(Operation, dispatched)
    as_operation.torch_implementation = function
    OPERATIONS[name] = as_operation
    return cast(Function, dispatched)


def install(device: str, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Run these functions for tensors on this type of device from now on."""
    _active.update({(name, device): function for name, function in functions.items()})


def uninstall() -> None:
    """Back to torch's implementations alone."""
    _active.clear()


def installed(name: str, device: str) -> bool:
    """Whether a compiled implementation of an operation is active."""
    return (name, device) in _active


def current(name: str, tensor: Tensor) -> Callable[..., Any]:
    """What runs now for an operation on tensors of this one's device and dtype.

    For operations that read what another one has laid out (``screen`` after ``screen_prepare``): whoever
    keeps the layout keeps the function with it, whatever is active later.
    """
    return _compiled(name, (tensor,)) or OPERATIONS[name].torch_implementation


@contextmanager
def only(device: str, functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """These compiled functions and no others while this is open."""
    kept = dict(_active)
    _active.clear()
    install(device, functions)
    try:
        yield
    finally:
        _active.clear()
        _active.update(kept)


def torch_only() -> AbstractContextManager[None]:
    """Torch's implementations alone while this is open (comparisons, baselines)."""
    return only("cpu", {})


def workspace(name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A buffer of this thread, kept from call to call under its name; its contents are whatever they are.

    A fresh tensor of 100 MB costs more in page faults than a product that fills it.
    """
    kept: dict[Any, Tensor] = _workspaces.__dict__.setdefault("buffers", {})
    dtype = dtype or like.dtype
    key, size = (name, dtype, like.device), 1
    for length in shape:
        size *= length
    buffer = kept.get(key)
    if buffer is None or buffer.numel() < size or buffer.numel() > 4 * size + 2**20:
        kept.pop(key, None)  # before the new one is there
        with torch.inference_mode(False):  # else no later call outside of it could write there
            kept[key] = buffer = torch.empty(size, dtype=dtype, device=like.device)
    return buffer[:size].view(shape)


def recycle(tensor: Tensor) -> None:
    """Hand back a matrix that ``reused`` gave out and nobody holds any more (a used gradient).

    No more of a kind are kept than it gave out: gradients that came from elsewhere are left to torch.
    """
    kind = _pool().get(_kind_of(tensor.shape, tensor))
    if kind is not None and len(kind.free) < kind.given and tensor.is_contiguous() and tensor._base is None:
        kind.free.append(tensor)


def reused(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor, from what ``recycle`` was given where one of the shape is there."""
    pool = _pool()
    kind = pool.pop(_kind_of(shape, like), None) or _Recycled()
    pool[_kind_of(shape, like)] = kind  # the last one now
    if kind.free:
        return kind.free.pop()
    kind.given += 1
    while len(pool) > MOST_KINDS:
        del pool[next(iter(pool))]
    return torch.empty(shape, dtype=like.dtype, device=like.device)


@dataclass
class _Recycled:
    """Matrices of one shape, dtype and device: how many were made, and those that wait to be used again."""

    given: int = 0
    free: list[Tensor] = field(default_factory=list)


def _pool() -> dict[Any, _Recycled]:
    """This thread's, the kind that was asked for last at the end."""
    pool: dict[Any, _Recycled] = _workspaces.__dict__.setdefault("recycled", {})
    return pool


def _kind_of(shape: tuple[int, ...], like: Tensor) -> tuple[Any, ...]:
    return tuple(shape), like.dtype, like.device


def _compiled(name: str, arguments: tuple[Any, ...]) -> Callable[..., Any] | None:
    """The compiled function for these arguments; None where there is none, or a tensor is not plain."""
    device = None
    for argument in arguments:
        if isinstance(argument, Tensor):
            if argument.dtype in _NOT_COMPILED or not argument.is_contiguous():
                return None
            if device is None:
                device = argument.device.type
    return _active.get((name, device or "cpu"))
