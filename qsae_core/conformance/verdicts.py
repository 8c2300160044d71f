"""What a check says: an expectation that holds, a failure with its sentence, or that it does not apply."""

from __future__ import annotations

from typing import Any

import torch


class CheckFailure(AssertionError):  # noqa: N818 (a verdict, not a fault of the kit)
    """The component broke its contract; the message says what it did and what the contract asks."""


class NotApplicable(Exception):  # noqa: N818 (not a fault: the check has nothing to say)
    """The check says nothing about this component; the message says why."""


def set_seed(seed: int) -> None:
    """Seed torch's generator of the CPU, which is all that checks use.

    ``torch.manual_seed`` also takes a stack trace for each accelerator that is absent, which takes longer
    than a small check.
    """
    torch.default_generator.manual_seed(seed)


def expect(condition: bool | torch.Tensor, sentence: str) -> None:
    """Fail the running check with this sentence (what the component did) unless the condition holds."""
    if not bool(condition):
        raise CheckFailure(sentence)


def expect_equal(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Fail unless two tensors are equal in shape, dtype and every value; names the first difference."""
    expect(actual.shape == expected.shape, f"{what}: shape {list(actual.shape)}, not {list(expected.shape)}.")
    expect(actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, not {expected.dtype}.")
    different = (actual != expected) & ~(actual.isnan() & expected.isnan())
    if different.any():
        place = tuple(int(i) for i in different.nonzero()[0])
        raise CheckFailure(
            f"{what}: {int(different.sum())} of {different.numel()} values differ, first at {list(place)}: "
            f"{actual[place].item()!r} against {expected[place].item()!r}."
        )


def expect_finite(tensor: torch.Tensor, what: str) -> None:
    """Fail unless every value is finite."""
    bad = ~tensor.isfinite()
    if bad.any():
        place = [int(i) for i in bad.nonzero()[0]]
        raise CheckFailure(f"{what} has {int(bad.sum())} NaN or infinite values, the first at {place}.")


def expect_same_state(after: dict[str, Any], before: dict[str, Any], what: str) -> None:
    """Fail unless two state dicts have the same names and bit-equal tensors."""
    expect(
        after.keys() == before.keys(),
        f"{what}: the names differ: {sorted(after.keys() ^ before.keys())}.",
    )
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            expect_equal(after[name], value, f"{what}: {name}")
        else:
            expect(after[name] == value, f"{what}: {name} is {after[name]!r}, not {value!r}.")


def copy_of_state(module: torch.nn.Module) -> dict[str, Any]:
    """The module's state dict as copies, so that later changes show."""
    return {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in module.state_dict().items()}


def expect_close(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Fail unless two tensors are equal but for the rounding of another batch size."""
    expect(actual.shape == expected.shape, f"{what}: {list(actual.shape)} against {list(expected.shape)}.")
    error = (actual - expected).abs().max().item() / max(expected.abs().max().item(), 1e-30)
    expect(error <= 1e-4, f"{what}: they differ by {error:.3g} of the largest value.")
