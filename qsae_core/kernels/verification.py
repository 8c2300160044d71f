"""Compiled operations against torch's, on small inputs: what does not agree is not used.

Shapes: B tokens, F latents, D width, N entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qsae_core.kernels.dispatch import OPERATIONS, only
from qsae_core.kernels.screening import BLOCK
from qsae_core.kernels.verification_fused import decoding, encoding, rotation
from qsae_core.kernels.verification_inputs import Functions, Inputs, Sizes, differ

RECALL = 0.99
"""The least share of the true top k that a screen with 2 k candidates finds among Gaussian scores."""


STANDARD = Sizes()


def disagreements(functions: Functions, device: str, sizes: Sizes = STANDARD) -> dict[str, str]:
    """Name -> what is wrong with it, for the operations that do not do what torch's do.

    An operation that core does not have is wrong too; ``screen`` is compared together with
    ``screen_prepare``, and the ``lookup`` operations with one another. Fused operations are compared, bit
    for bit, with the set's own operations one by one.
    """
    found = {name: "there is no such operation" for name in functions.keys() - OPERATIONS.keys()}
    for names, check in _CHECKS:
        present = [name for name in names if name in functions]
        missing = [name for name in names if name not in functions]
        if not present:
            continue
        if missing:
            found |= {name: f"it needs {', '.join(missing)} beside it" for name in present}
            continue
        try:
            with only(device, {}):  # what is in use meanwhile takes no part
                problem = next(check(functions, Inputs(device, sizes)), None)
        except Exception as error:  # whatever a stranger's code raises
            problem = f"it raises {type(error).__name__}: {error}"
        if problem:
            found |= dict.fromkeys(present, problem)
    return found


def _products(f: Functions, given: Inputs) -> Iterator[str]:
    indices, offsets, values = given.codes()
    right = given.normal(given.latents, given.width)
    arguments = (indices, offsets, values, right)
    yield from differ(f["sparse_product"](*arguments), _torch("sparse_product")(*arguments), "the product")


def _dots(f: Functions, given: Inputs) -> Iterator[str]:
    indices, offsets, _ = given.codes()
    arguments = (
        given.normal(given.batch, given.width),
        given.normal(given.latents, given.width),
        indices,
        offsets,
    )
    yield from differ(f["gather_dot"](*arguments), _torch("gather_dot")(*arguments), "the dot product", 1e-4)


def _transposition(f: Functions, given: Inputs) -> Iterator[str]:
    indices, offsets, _ = given.codes()
    ours, theirs = (
        run(indices, offsets, given.latents) for run in (f["transpose_codes"], _torch("transpose_codes"))
    )
    yield from differ(ours, theirs, "the transposed codes")


def _largest(f: Functions, given: Inputs) -> Iterator[str]:
    scores = given.normal(given.batch, given.latents)
    for k in (1, given.k, given.latents):
        values, columns = f["top_k"](scores, k)
        expected = scores.topk(k, dim=1).values
        yield from differ(values.sort(dim=1, descending=True).values, expected, f"the top {k}", 0.0)
        yield from differ(scores.gather(1, columns.long()), values, f"the columns of the top {k}", 0.0)


def _compression(f: Functions, given: Inputs) -> Iterator[str]:
    scores = given.normal(given.batch, given.latents)
    yield from differ(f["compress"](scores, 0.7), _torch("compress")(scores, 0.7), "what is above 0.7")


def _screening(f: Functions, given: Inputs) -> Iterator[str]:
    x, W = given.normal(given.batch, given.width), given.normal(given.latents, given.width)
    bias, importance = given.normal(2, given.latents)
    in_blocks = zip(*map(f["screen_prepare"], W.split(BLOCK)), strict=True)
    if not all(map(torch.equal, map(torch.cat, in_blocks), f["screen_prepare"](W))):
        yield f"the forms of blocks of {BLOCK} rows are not that of the whole matrix"
    for weights in (None, importance.abs()):
        scores = (x @ W.T + bias) * (1.0 if weights is None else weights)
        exact = scores.topk(given.k, dim=1).indices
        m = min(2 * given.k, given.latents)
        candidates = f["screen"](f["screen_prepare"](W), x, bias, weights, m)
        if candidates.shape != (given.batch, m) or candidates.dtype != torch.int32:
            yield f"the screen gives {candidates.dtype} {list(candidates.shape)}"
        elif (candidates.sort(dim=1).values.diff(dim=1) == 0).any():
            yield "the screen names a latent twice"
        else:
            recall = (exact[:, :, None] == candidates[:, None, :]).any(2).double().mean().item()
            if recall < RECALL:
                yield f"the screen finds {recall:.4f} of the top {given.k}"


def _projection(f: Functions, given: Inputs) -> Iterator[str]:
    grad, weight = (
        given.normal(given.latents, given.width),
        torch.nn.functional.normalize(given.normal(given.latents, given.width)),
    )
    for beside in (weight, None):
        ours, theirs = grad.clone(), grad.clone()
        our_sum, sum_ = f["project_rows"](ours, beside), _torch("project_rows")(theirs, beside)
        yield from differ(ours, theirs, "the projected gradient")
        mean, mean_ = torch.tensor([our_sum, sum_], dtype=torch.float64) / grad.numel()
        yield from differ(mean, mean_, "the mean square")


def _adam(f: Functions, given: Inputs) -> Iterator[str]:
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "step": 3, "grad_scale": 0.5}
    shape = (given.latents, given.width)
    start = [given.normal(*shape) for _ in range(3)] + [given.normal(*shape).square()]
    for unit_rows in (False, True):
        ours, theirs = [t.clone() for t in start], [t.clone() for t in start]
        f["adam"](*ours, **options, unit_rows=unit_rows)
        _torch("adam")(*theirs, **options, unit_rows=unit_rows)
        for i, what in ((0, "the weight"), (2, "the first moment"), (3, "the second moment")):
            yield from differ(ours[i], theirs[i], what)


def _lookups(f: Functions, given: Inputs) -> Iterator[str]:
    indices, offsets, values = given.codes()
    left = given.normal(given.batch, given.width)
    for bits in (1, 2, 4, 8):
        codes = given.integers(2**bits, given.latents, given.width).to(torch.uint8)
        points = given.normal(2**bits).sort().values
        scales = given.normal(given.latents).abs()
        matrix = points[codes.int()] * scales[:, None]
        head = (f["lookup_pack"](codes, bits), points, scales, given.width, bits)
        product = f["lookup_product"](*head, indices, offsets, values)
        expected = _torch("sparse_product")(indices, offsets, values, matrix)
        yield from differ(product, expected, f"the product with {bits}-bit codes")
        dots = f["lookup_gather_dot"](*head, left, indices, offsets)
        expected = _torch("gather_dot")(left, matrix, indices, offsets)
        yield from differ(dots, expected, f"the dot product with {bits}-bit codes", 1e-4)


def _torch(name: str) -> Callable[..., Any]:
    return OPERATIONS[name].torch_implementation


def _scales(f: Functions, given: Inputs) -> Iterator[str]:
    magnitudes = given.normal(given.latents, given.width).abs()

    def error_R(scale_R: Tensor) -> Tensor:  # two counts of kept weights can be equally good but for rounding
        kept = magnitudes > scale_R[:, None] / 2
        return (magnitudes - scale_R[:, None] * kept).double().square().sum(1)

    ours, theirs = (run(magnitudes.clone()) for run in (f["ternary_scales"], _torch("ternary_scales")))
    yield from differ(error_R(ours), error_R(theirs), "the squared error at the best scale")


def _expansion(f: Functions, given: Inputs) -> Iterator[str]:
    indices, offsets, values = given.codes()
    room = given.normal(given.batch, given.latents)
    ours = f["expand_rows"](indices, offsets, values, room.clone())
    theirs = _torch("expand_rows")(indices, offsets, values, room.clone())
    yield from differ(ours, theirs, "the dense chunk", 0.0)


def _collection(f: Functions, given: Inputs) -> Iterator[str]:
    indices, offsets, _ = given.codes()
    dense = given.normal(given.batch, given.latents)
    ours, theirs = (run(dense, indices, offsets) for run in (f["collect_rows"], _torch("collect_rows")))
    yield from differ(ours, theirs, "what is collected", 0.0)


_CHECKS: list[tuple[tuple[str, ...], Callable[[Functions, Inputs], Iterator[str]]]] = [
    (("sparse_product",), _products),
    (("gather_dot",), _dots),
    (("transpose_codes",), _transposition),
    (("top_k",), _largest),
    (("compress",), _compression),
    (("expand_rows",), _expansion),
    (("collect_rows",), _collection),
    (("screen_prepare", "screen"), _screening),
    (("project_rows",), _projection),
    (("adam",), _adam),
    (("ternary_scales",), _scales),
    (("lookup_pack", "lookup_product", "lookup_gather_dot"), _lookups),
    (("rotate", "unrotate"), rotation),
    (("fused_encoder", "fused_encode"), encoding),
    (("fused_decoder", "fused_decode"), decoding),
]
"""Operations that stand or fall together, and their comparison."""
