"""Pairs of latents by hand: survival, support, classes, standard errors, batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.pairs import PairSums, active, another, shared
from qsae_evaluation_quantization_error.survival import class_names, histogram, standard_errors, survival
from torch import Tensor

from qsae_core.contracts import SparseCodes

CONFIG = QuantizationErrorConfig(least_firings=2)


def codes(dense: Sequence[Sequence[float]] | Tensor) -> SparseCodes:
    return SparseCodes.from_dense(torch.as_tensor(dense, dtype=torch.float64))


def sums(a: object, b: object, groups: int = 1, batch_size: int = 10**6) -> PairSums:
    """Of two dense tensors ``[N, F]``; token t is in group t % groups."""
    dense = [torch.as_tensor(side, dtype=torch.float64) for side in (a, b)]
    found = PairSums(dense[0].shape[1], groups)
    every = torch.ones(dense[0].shape[1], dtype=torch.bool)
    numbers = torch.arange(len(dense[0])) % groups
    parts = [side.split(batch_size) for side in (*dense, numbers)]
    for x, y, group in zip(*parts, strict=True):
        left, right = active(codes(x), every), active(codes(y), every)
        found.add(left, right, shared(left, right), group)
    return found


def column(*values: float) -> list[list[float]]:
    return [[value] for value in values]


def test_twice_the_activation_survives() -> None:
    """f' = 2 f: r is 1, the scale 2, the support the same."""
    found = survival(sums(column(0, 1, 0, 3), column(0, 2, 0, 6)), CONFIG)
    assert found.r.tolist() == [1.0]
    assert found.pairs.scale.tolist() == [2.0]
    assert found.pairs.jaccard.tolist() == [1.0]
    assert found.values["survived_share"] == found.values["survived_weighted"] == 1.0


def test_shuffled_tokens_leave_no_correlation() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(10_000, 1, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(10_000, 1, generator=generator) < 0.3)
    other = x[torch.randperm(10_000, generator=generator)]
    found = survival(sums(x, other), CONFIG)
    assert abs(float(found.r)) < 4 / 100  # 4 standard errors of 1 / sqrt(N)
    assert found.values["damaged_share"] == 1.0


def test_a_constant_has_no_correlation() -> None:
    """Of the coder: lost. Of the twin: not judged."""
    lost = survival(sums(column(0, 1, 0, 3), column(2, 2, 2, 2)), CONFIG)
    assert lost.r.isnan().tolist() == [True]
    assert lost.values["lost_share"] == 1.0
    assert lost.values["r_mean"] is None
    never = survival(sums(column(0, 1, 0, 3), column(0, 0, 0, 0)), CONFIG)
    assert never.values["lost_share"] == 1.0
    unknown = survival(sums(column(0.1, 0.1, 0.1), column(0, 1, 2)), CONFIG)
    assert unknown.mask.tolist() == [False]
    assert unknown.values["lost_share"] is None
    assert unknown.values["jaccard"] == pytest.approx(2 / 3)


def test_correlation_over_all_tokens_and_over_the_union() -> None:
    """a = 1 2 0 0, b = 0 1 1 0. All: means .75 and .5; cov 2/4 - .375 = .125; variances 5/4 - 9/16 = 11/16
    and 2/4 - 1/4 = 1/4. The union is three tokens: cov 2/3 - 1 * 2/3 = 0. Jaccard 1/3, scale 2/5."""
    found = survival(sums(column(1, 2, 0, 0), column(0, 1, 1, 0)), CONFIG)
    assert float(found.r) == pytest.approx(0.125 / math.sqrt(11 / 64))
    assert float(found.pairs.r_union) == pytest.approx(0, abs=1e-15)
    assert float(found.pairs.jaccard) == pytest.approx(1 / 3)
    assert float(found.pairs.scale) == pytest.approx(2 / 5)
    assert found.values["left_share"] == found.values["entered_share"] == 0.5


def test_signed_codes() -> None:
    """A sign that turns is as bad as can be, although the support is the same."""
    found = survival(sums(column(-1, 2, 0, 0), column(1, -2, 0, 0)), CONFIG)
    assert float(found.r) == -1
    assert found.values["jaccard"] == 1.0


def test_classes_their_weights_and_their_histogram() -> None:
    """Four latents with r = 1, about .75, -.2 and none, which fire 4, 4, 1 and 3 times of 8 in the twin; the
    third is not judged."""
    a = torch.tensor(
        [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], [1] + [0] * 7, [1, 1, 1] + [0] * 5]
    ).T
    b = a.clone()
    b[:, 1] = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])  # cov 3/8 - 3/16, variances 1/4 and 15/64
    b[:, 2], b[:, 3] = torch.tensor([0, 1] + [0] * 6), 0
    found = survival(sums(a, b), CONFIG)
    assert found.r[:2].tolist() == pytest.approx([1, (3 / 16) / math.sqrt(15 / 256)])
    assert class_names(found, CONFIG) == ["survived", "blurred", None, "lost"]
    shares = [found.values[f"{name}_share"] for name in ("survived", "blurred", "damaged", "lost")]
    assert shares == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    weighted = [found.values[f"{name}_weighted"] for name in ("survived", "blurred", "damaged", "lost")]
    assert weighted == pytest.approx([4 / 11, 4 / 11, 0, 3 / 11])
    table = histogram(found, {"beside": found})
    rows = {str(row[0]): row[1:] for row in table.rows}
    assert rows["0.99 to 1"] == [1, 1, pytest.approx(4 / 11)]
    assert rows["0.7 to 0.8"] == [1, 1, pytest.approx(4 / 11)]
    assert rows["lost"] == [1, 1, pytest.approx(3 / 11)]
    assert sum(int(str(row[1])) for row in table.rows) == 3
    strict = QuantizationErrorConfig(least_firings=2, survived=0.7, damaged=0.7)
    assert class_names(found, strict) == ["survived", "survived", None, "lost"]


def test_standard_errors_are_those_of_the_jackknife() -> None:
    """Pooled Jaccard of 10 tokens in 10 groups, of which 4 have 1 of 1 in common and 6 none: without a token
    of the first kind 3/9, of the second 4/9. Mean 0.4, SE^2 = 9/10 (4 (1/15)^2 + 6 (2/45)^2)."""
    same = torch.tensor([1.0] * 4 + [0.0] * 6)[:, None]
    found = sums(torch.ones(10, 1), same, groups=10)
    errors = standard_errors(found, torch.tensor([False]), CONFIG)
    assert errors["jaccard"] == pytest.approx(math.sqrt(0.9 * (4 / 225 + 6 * 4 / 2025)))
    assert errors["r_mean"] is None
    empty = standard_errors(sums(torch.ones(9, 1), same[:9], groups=10), torch.tensor([True]), CONFIG)
    assert set(empty.values()) == {None}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_sums_do_not_depend_on_batches_and_merge(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(100, 5, generator=generator, dtype=torch.float64).relu() for _ in range(2))
    whole = survival(sums(a, b), CONFIG)
    parts = survival(sums(a, b, batch_size=batch_size), CONFIG)
    assert dict(parts.values) == pytest.approx(dict(whole.values), rel=1e-12)
    merged = sums(a[:30], b[:30])
    merged.merge(sums(a[30:], b[30:]))
    assert dict(survival(merged, CONFIG).values) == pytest.approx(dict(whole.values), rel=1e-12)
    assert float(whole.r[2]) == pytest.approx(float(torch.corrcoef(torch.stack([a[:, 2], b[:, 2]]))[0, 1]))


def test_by_chance_no_latent_meets_itself() -> None:
    other = another(100)
    assert sorted(other.tolist()) == list(range(100))
    assert not bool((other == torch.arange(100)).any())
