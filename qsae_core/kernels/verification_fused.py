"""Compiled rotations against torch's; fused operations against a set's own operations one by one.

Shapes: B tokens, F latents, D = S * T width, N entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import OPERATIONS, only
from qsae_core.kernels.fused import DECODES_WITH, ENCODES_WITH, Space, Weights
from qsae_core.kernels.verification_inputs import Functions, Inputs, differ

BITS = 2
"""Of the codes that fused operations are compared on; the lookups alone are compared at every width."""


def rotation(f: Functions, given: Inputs) -> Iterator[str]:
    """Both ways, and that a row does not depend on the rows around it."""
    space, rows = _space(given), given.normal(given.batch, given.width)
    arguments = (space.signs, space.left, space.right)
    for name in ("rotate", "unrotate"):
        ours, theirs = (run(rows, *arguments) for run in (f[name], OPERATIONS[name].torch_implementation))
        yield from differ(ours, theirs, name)
        yield from differ(f[name](rows[:1], *arguments), ours[:1], f"{name} of the first row alone", 0.0)


def encoding(f: Functions, given: Inputs) -> Iterator[str]:
    """With floats and codes, with and without importance, offset and rotation."""
    yield from _missing(f, ENCODES_WITH)
    k, m = given.k, min(2 * given.k + 1, given.latents)
    x, bias, offset = (
        given.normal(given.batch, given.width),
        given.normal(given.latents),
        given.normal(given.width),
    )
    importance, space = given.normal(given.latents).abs(), _space(given)
    still = space._replace(rotated=torch.zeros_like(space.rotated))
    for floats, weights in _matrices(f, given):
        prepared = f["screen_prepare"](floats)
        for arguments in ((bias, offset, importance, space), (bias, None, None, still)):
            coder = f["fused_encoder"](*arguments, weights, prepared)
            one_by_one = _one_by_one(f, given, "fused_encode", (*arguments, weights, prepared), x, k, m)
            yield from differ(f["fused_encode"](coder, x, k, m), one_by_one, "the fused encoding", 0.0)
        spoiled = x.clone()
        spoiled[-1, -1] = torch.inf
        if f["fused_encode"](coder, spoiled, k, m) is not None:
            yield "the fused encoding takes a vector that is not finite"


def decoding(f: Functions, given: Inputs) -> Iterator[str]:
    """With floats and codes, with and without rotation."""
    yield from _missing(f, DECODES_WITH)
    bias, space, (indices, offsets, values) = given.normal(given.width), _space(given), given.codes()
    for _, weights in _matrices(f, given):
        for place in (space, space._replace(rotated=torch.zeros_like(space.rotated))):
            coder = f["fused_decoder"](bias, place, weights)
            entries = (indices, offsets, values)
            one_by_one = _one_by_one(f, given, "fused_decode", (bias, place, weights), *entries)
            yield from differ(f["fused_decode"](coder, *entries), one_by_one, "the fused decoding", 0.0)
        if f["fused_decode"](coder, indices, offsets, values.double()) is not None:
            yield "the fused decoding takes float64"
        for wrong in (-1, given.latents):
            outside = torch.full_like(indices, wrong)
            if len(indices) and f["fused_decode"](coder, outside, offsets, values) is not None:
                yield f"the fused decoding takes latent {wrong} of {given.latents}"


def _missing(f: Functions, names: tuple[str, ...]) -> Iterator[str]:
    missing = [name for name in names if name not in f]
    if missing:
        yield f"it needs {', '.join(missing)} beside it"


def _one_by_one(f: Functions, given: Inputs, name: str, coder: tuple[Any, ...], *arguments: Any) -> Any:
    """What torch's implementation makes of the set's other operations."""
    others = {name: function for name, function in f.items() if not name.startswith("fused")}
    with only(given.device, others):
        return OPERATIONS[name].torch_implementation(coder, *arguments)


def _matrices(f: Functions, given: Inputs) -> Iterator[tuple[Tensor, Weights]]:
    """Floats as they are, and codes; each with its floats."""
    floats = given.normal(given.latents, given.width)
    yield floats, floats
    codes = given.integers(2**BITS, given.latents, given.width).to(torch.uint8)
    points, scales = given.normal(2**BITS).sort().values, given.normal(given.latents).abs()
    packed = f["lookup_pack"](codes, BITS)
    yield points[codes.int()] * scales[:, None], (packed, points, scales, given.width, BITS)


def _space(given: Inputs) -> Space:
    """A rotated space of the width; its factor on the left is symmetric, as ``unrotate`` asks."""
    blocks = next(size for size in (4, 2, 1) if given.width % size == 0)
    reflection = given.normal(blocks)
    left = torch.eye(blocks, dtype=torch.float32, device=reflection.device)
    left = left - 2 * torch.outer(reflection, reflection) / reflection.square().sum()
    size = given.width // blocks
    right = torch.linalg.qr(given.normal(size, size)).Q.contiguous()
    return Space(
        given.normal(given.width),
        given.normal(1).abs()[0] + 0.5,
        torch.ones((), dtype=torch.bool, device=left.device),
        (2 * given.integers(2, given.width) - 1).to(torch.int8),
        left,
        right,
    )
