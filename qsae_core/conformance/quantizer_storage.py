"""Rules for quantizers: the grid, and the packed form. Shapes: F rows, D columns, G grid points."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.coders.stored_form import check_tensor
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.quantizer_samples import admits, built, matrices, samples
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import CheckFailure, NotApplicable, expect, expect_equal
from qsae_core.contracts.quantizer import Packed, PackedTensor, Quantizer

RULES = Rules()
MOST_BITS = 36
"""No quantizer stores more than float32 weights and a scale per row."""


@RULES.each_case("grid", "each row of W_hat is a scale (or one per group) times values of grid().")
def _grid(subject: Subject, case: Case) -> None:
    shape = (16, 128)
    if not admits(subject, case, shape):
        raise NotApplicable(f"these options refuse a {list(shape)} matrix")
    weight = matrices(shape)["entries of size 1"]
    quantizer = built(subject, case, weight)
    grid = quantizer.grid()
    if grid is None:
        raise NotApplicable("the quantizer declares no fixed grid")
    expect(grid.dim() == 1 and grid.numel() > 0, f"grid() has shape {list(grid.shape)}, not [G].")
    expect((grid.diff() > 0).all(), f"grid() is not in strictly ascending order: {grid.tolist()[:8]}.")
    groups = _scale_groups(quantizer, weight)
    for row, values in enumerate(quantizer.fake_quantize(weight).double()):
        for group in values.view(groups, -1):
            distinct = group.unique()
            expect(
                _fits(distinct, grid.double()),
                f"row {row} takes {distinct.numel()} values, not a scale times the {grid.numel()} of grid(): "
                f"{[round(v, 6) for v in distinct.tolist()[:8]]}.",
            )


def _scale_groups(quantizer: Quantizer, weight: Tensor) -> int:
    """How many scales a row has, from the packed scales; 1 for scales per row and for the tensor."""
    scales = quantizer.pack(weight).tensors.get("scales")
    if scales is None or scales.numel() % weight.shape[0] or weight.numel() % scales.numel():
        return 1
    return max(1, scales.numel() // weight.shape[0])


def _fits(values: Tensor, grid: Tensor) -> bool:
    """Whether some scale makes every value a grid point; the largest one must then stand for one of them."""
    largest = values[values.abs().argmax()]
    if largest == 0:
        return bool((grid == 0).any())
    for point in grid[grid != 0]:
        scale = largest / point
        if scale > 0:
            distance = (values[:, None] / scale - grid[None, :]).abs().min(dim=1).values
            if distance.max() <= 1e-5 * grid.abs().max():
                return True
    return False


@RULES.each_case(
    "pack", "unpack(pack(W)) by a fresh quantizer equals fake_quantize(W) in evaluation mode, bit for bit."
)
def _pack(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        quantizer = built(subject, case, weight)
        with torch.no_grad():
            packed = quantizer.pack(weight)
            expect(tuple(packed.shape) == tuple(weight.shape), f"Packed.shape of {what} is {packed.shape}.")
            fresh: Quantizer = subject.build(case, (weight.shape[0], weight.shape[1]))
            unpacked = fresh.eval().unpack(_stored(packed))
            master = torch.nn.Parameter(weight.clone())  # as a coder has it: it may take another path
            expect_equal(unpacked, quantizer.fake_quantize(master), f"unpack against fake_quantize of {what}")


@RULES.each_case(
    "declares",
    "packed_tensors says the names, types and shapes of what pack gives; check takes that, and no layout "
    "with a key less or more, or another type of value.",
)
def _declares(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        quantizer = built(subject, case, weight)
        packed = _stored(quantizer.pack(weight))
        fresh: Quantizer = subject.build(case, (weight.shape[0], weight.shape[1]))
        _expect_declared(packed, fresh.packed_tensors(), what)
        try:
            fresh.check(packed)
        except ValueError as error:
            raise CheckFailure(f"check refuses what pack gave of {what}: {error}") from error
        for layout in _others(packed.layout):
            with contextlib.suppress(ValueError):
                fresh.check(Packed(packed.tensors, packed.shape, layout))
                expect(False, f"check takes the layout {layout} of {what}, and pack gave {packed.layout}.")


def _expect_declared(packed: Packed, declared: Mapping[str, PackedTensor], what: str) -> None:
    names = sorted(packed.tensors), sorted(declared)
    expect(names[0] == names[1], f"pack gives {names[0]} of {what}, and packed_tensors says {names[1]}.")
    for name, tensor in packed.tensors.items():
        try:
            check_tensor(name, tensor, declared[name])
        except ValueError as error:
            raise CheckFailure(f"of {what}, {error} by packed_tensors") from error


def _others(layout: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Layouts that no pack gave: a key more, a key less, values of another type."""
    yield {**layout, "another": 1}
    for key in layout:
        yield {k: v for k, v in layout.items() if k != key}
        others: tuple[Any, ...] = ("x", [], {}, -1e30, 10**30)
        for value in others:
            yield {**layout, key: value}


@RULES.each_case(
    "rows",
    "unpack_rows gives rows of unpack, and lookup is the same matrix as points and scales, bit for bit.",
)
def _rows(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        quantizer = built(subject, case, weight)
        with torch.no_grad():
            packed = _stored(quantizer.pack(weight))
            unpacked = quantizer.unpack(packed)
            some = torch.arange(weight.shape[0] - 1, -1, -2)
            for rows in (some, some[:0]):  # a batch may activate nothing
                found_rows = quantizer.unpack_rows(packed, rows)
                expect_equal(found_rows, unpacked[rows], f"unpack_rows of {len(rows)} rows of {what}")
            found = quantizer.lookup(packed)
        if found is not None:
            expect(
                found.codes.dtype == torch.uint8, f"the codes of lookup are {found.codes.dtype}, not uint8."
            )
            expect_equal(found.matrix(), unpacked, f"points times scales of {what}")


@RULES.each_case(
    "first-rows",
    "cut at row_end along row_dims, packed tensors are the first rows of the matrix, bit for bit.",
)
def _first_rows(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        n_rows, width = (weight.shape[0] + 1) // 2, weight.shape[1]
        quantizer = built(subject, case, weight)
        with torch.no_grad():
            packed = _stored(quantizer.pack(weight))
            whole = _unpacked_by_another(subject, case, packed)
            dims = quantizer.row_dims(packed)
            ends = {name: (dim, quantizer.row_end(packed, name, n_rows)) for name, dim in dims.items()}
            first = Packed(_cut(packed, ends), (n_rows, width), packed.layout)
            smaller: Quantizer = subject.build(case, (n_rows, width))
            unpacked = smaller.eval().unpack(first)
            expect_equal(unpacked, whole[:n_rows], f"the first {n_rows} rows of {what}")


@RULES.each_case(
    "some-rows",
    "where packs_by_row is set, pack of some rows is what pack of the matrix has of them along row_dims; "
    "other tensors and the layout are the same.",
)
def _some_rows(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        n_rows = (weight.shape[0] + 1) // 2
        quantizer = built(subject, case, weight)
        if not quantizer.packs_by_row:
            raise NotApplicable("packs_by_row is not set")
        with torch.no_grad():
            whole, some = quantizer.pack(weight), quantizer.pack(weight[:n_rows])
        ends = {name: (dim, n_rows) for name, dim in quantizer.row_dims(whole).items()}
        for name, wanted in _cut(whole, ends).items():
            expect_equal(some.tensors[name], wanted, f"{name} of the first {n_rows} rows of {what}")
        alike = some.layout == whole.layout
        expect(alike, f"the layout of the first {n_rows} rows of {what} is another one.")


@RULES.each_case(
    "precision",
    "the first entries along level_dims are a coarser matrix for each of levels, the last one the whole; the "
    "squared error does not rise from one to the next.",
)
def _precision(subject: Subject, case: Case) -> None:
    shape = (16, 128)
    if not admits(subject, case, shape):
        raise NotApplicable(f"these options refuse a {list(shape)} matrix")
    weight = matrices(shape)["entries of size 1"]
    quantizer = built(subject, case, weight)
    if quantizer.levels == 1:
        raise NotApplicable("the packed form has one precision")
    with torch.no_grad():
        packed = _stored(quantizer.pack(weight))
        dims, errors = quantizer.level_dims(packed), []
        for level in range(1, quantizer.levels + 1):
            fresh: Quantizer = subject.build(case, shape)
            ends = {name: (dim, level) for name, dim in dims.items()}
            part = Packed(_cut(packed, ends), shape, packed.layout)
            unpacked = fresh.eval().unpack(fresh.at_level(part, level))
            errors.append((weight.double() - unpacked.double()).square().sum().item())
        expect_equal(unpacked, quantizer.unpack(packed), "the highest level against the whole matrix")
    for level, (coarse, fine) in enumerate(itertools.pairwise(errors), 1):
        expect(
            fine <= coarse * (1 + 1e-6),
            f"the squared error rises from {coarse:.6g} at level {level} to {fine:.6g} at level {level + 1}.",
        )


@RULES.each_case(
    "packed-size", "the packed form counts every byte it stores, in plain CPU tensors and small JSON values."
)
def _packed_size(subject: Subject, case: Case) -> None:
    layouts = []
    for shape in ((64, 128), (512, 128)):
        if not admits(subject, case, shape):
            raise NotApplicable(f"these options refuse a {list(shape)} matrix")
        weight = matrices(shape)["entries of size 1"]
        packed = built(subject, case, weight).pack(weight)
        layouts.append(len(json.dumps(packed.layout)))
        for name, tensor in packed.tensors.items():
            expect(not tensor.requires_grad, f"the packed tensor {name!r} carries a gradient.")
        bits = 8 * sum(t.numel() * t.element_size() for t in packed.tensors.values()) / weight.numel()
        expect(
            abs(packed.bits_per_weight - bits) < 1e-9,
            f"bits_per_weight says {packed.bits_per_weight}, but the tensors hold {bits} bits per weight.",
        )
        expect(bits <= MOST_BITS, f"it stores {bits:.1f} bits per weight, more than float32 does.")
    expect(
        layouts[1] <= layouts[0] + 64, "the layout grows with the matrix: it hides data that no one counts."
    )


def _unpacked_by_another(subject: Subject, case: Case, packed: Packed) -> Tensor:
    """The matrix that a fresh quantizer unpacks."""
    fresh: Quantizer = subject.build(case, packed.shape)
    try:
        return fresh.eval().unpack(packed)
    except Exception as error:
        raise NotApplicable(f"a fresh quantizer cannot unpack it ({error}); see 'pack'") from error


def _cut(packed: Packed, ends: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """The first entries of the tensors that have a dimension and an end there, and the others whole."""
    expect(
        ends.keys() <= packed.tensors.keys(), f"it names {sorted(ends)}, and packs {sorted(packed.tensors)}."
    )
    cuts = {name: (dim, 0, end) for name, (dim, end) in ends.items()}
    return {name: t.narrow(*cuts[name]) if name in cuts else t for name, t in packed.tensors.items()}


def _stored(packed: Packed) -> Packed:
    """The packed matrix as it comes back from a file: copies, and a layout that went through JSON."""
    tensors = {name: t.detach().clone().contiguous() for name, t in packed.tensors.items()}
    return Packed(tensors, (packed.shape[0], packed.shape[1]), json.loads(json.dumps(packed.layout)))
