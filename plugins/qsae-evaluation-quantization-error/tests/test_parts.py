"""Small numbers by hand: flips, strongest tokens, rows, grids, thresholds, noise, ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from qsae_evaluation_quantization_error.dense_forms import ThresholdFit, encode, refusal_to_fit, with_noise
from qsae_evaluation_quantization_error.margins import Margins
from qsae_evaluation_quantization_error.pairs import Active, active, shared
from qsae_evaluation_quantization_error.positions import NOWHERE, TopPositions, overlap
from qsae_evaluation_quantization_error.predictors import spearman
from qsae_evaluation_quantization_error.weights import (
    Grid,
    Space,
    entropy_bits,
    largest_errors,
    most_similar,
    row_errors,
    same_latent_share,
)
from torch import Tensor

from qsae_core.contracts import DenseForm, Lookup, SparseCodes


def codes(dense: Sequence[Sequence[float]] | Tensor) -> SparseCodes:
    return SparseCodes.from_dense(torch.as_tensor(dense, dtype=torch.float64))


def entries(dense: Sequence[Sequence[float]] | Tensor) -> Active:
    """Of latents that all have an atom."""
    found = codes(dense)
    return active(found, torch.ones(found.n_latents, dtype=torch.bool))


def test_latents_without_an_atom_do_not_fire() -> None:
    found = active(codes([[1, 2, 0], [0, 3, 4]]), torch.tensor([True, False, True]))
    assert found.rows.tolist() == [0, 1]
    assert found.latents.tolist() == [0, 2]
    assert found.values.tolist() == [1, 4]


def test_who_flips() -> None:
    """Token of the twin: strengths 1, 1.2 and 3, of which the weakest left. Of the coder: 2 and 6 (its norms
    are 2), and nothing is new."""
    margins = Margins(torch.ones(3, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64))
    a, b = entries([[1, 1.2, 3]]), entries([[0, 1, 3]])
    margins.add(a, b, shared(a, b), 1)
    rows = {row[0]: row for row in margins.table().rows}
    assert rows[1.0] == [1.0, 1.05, 1, 1.0, 1, 0.0]
    assert rows[1.1] == [1.1, 1.25, 1, 0.0, 0, None]
    assert rows[2.0] == [2.0, 4.0, 1, 0.0, 1, 0.0]
    assert margins.near_share(0, 0) == pytest.approx(2 / 3)
    assert (margins.near_share(0, 1), margins.near_share(1, 1)) == (1.0, None)
    assert margins.log_margin.tolist() == pytest.approx([0, math.log2(1.2), math.log2(3)])


def test_the_strongest_tokens() -> None:
    """Values 5 3 5 1 of one latent: the two largest are at 0 and 2, and of equal ones the first counts."""
    whole = TopPositions(2, 2)
    whole.add(entries([[5, 0], [3, 0], [5, 0], [1, 0]]), 0)
    assert whole.places.tolist() == [[0, 2], [NOWHERE, NOWHERE]]
    assert whole.largest().tolist()[0] == 5
    later, earlier = TopPositions(2, 2), TopPositions(2, 2)
    later.add(entries([[5, 0], [5, 0], [5, 7]]), 10)
    earlier.add(entries([[5, 0]]), 3)
    later.merge(earlier)
    assert later.places.tolist() == [[3, 10], [12, NOWHERE]]
    assert overlap(whole, later).tolist()[0] == 0
    later.places[0, 1] = 2
    assert overlap(whole, later).tolist()[0] == 0.5
    assert overlap(whole, later).isnan().tolist() == [False, True]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_strongest_tokens_in_batches(batch_size: int) -> None:
    x = torch.randint(0, 4, (100, 6), generator=torch.Generator().manual_seed(2)).double()
    whole, parts = TopPositions(6, 5), TopPositions(6, 5)
    whole.add(entries(x), 0)
    for start in range(0, 100, batch_size):
        parts.add(entries(x[start : start + batch_size]), start)
    assert torch.equal(parts.places, whole.places)
    expected = sorted(range(100), key=lambda t: (-float(x[t, 3]), t))[:5]
    assert whole.places[3].tolist() == expected


def test_rows_before_and_after() -> None:
    """(3, 4) -> (4, 3): cosine 24/25, error 2 of 25; (0, 1) -> 0: no cosine, error 1 of 1. In all 3 of 26."""
    found = row_errors(torch.tensor([[3.0, 4], [0, 1]]), torch.tensor([[4.0, 3], [0, 0]]))
    assert float(found.cosine[0]) == pytest.approx(24 / 25)
    assert bool(found.cosine[1].isnan())
    assert found.relative.tolist() == pytest.approx([2 / 25, 1])
    assert (found.nmse, found.mse) == pytest.approx((3 / 26, 3 / 4))


def test_whether_latents_are_the_same() -> None:
    rows = torch.eye(4)
    assert same_latent_share(rows, 2 * rows) == (1.0, 4)
    assert same_latent_share(rows, rows[[1, 0, 2, 3]]) == (0.5, 4)
    assert most_similar(5 * rows, rows[[1, 0, 2, 3]], torch.tensor([1, 3])).tolist() == [0, 3]


def test_levels_and_bits() -> None:
    """A grid of three with half of the weights on 0 and the rest on 1: 1 bit; two of three levels."""
    lookup = Lookup(
        torch.tensor([[1, 1], [2, 2]], dtype=torch.uint8), torch.tensor([-1.0, 0, 1]), torch.tensor([2.0, 3])
    )
    grid = Grid("W_dec", lookup)
    assert grid.counts().tolist() == [0, 2, 2]
    assert entropy_bits(grid.counts()) == 1.0
    assert grid.used_by_row().tolist() == [1, 1]
    assert entropy_bits(torch.tensor([4, 0])) == 0.0
    assert entropy_bits(torch.tensor([0, 0])) is None
    space = Space(torch.tensor([[0.5, 0], [1, 3]]), lookup.matrix(), lookup, "stored")
    rows = largest_errors(space, 2).rows
    assert list(rows[0]) == [1, 0, 1.0, 3.0, 2.0, 2, "0b10", 1.0, 3.0, "stored"]
    assert list(rows[1])[:5] == [0, 0, 0.5, 0.0, -0.5]


def form(threshold: float | None) -> DenseForm:
    eye = torch.eye(2)
    limits = None if threshold is None else torch.full((2,), threshold)
    return DenseForm(
        eye, torch.zeros(2), eye, torch.zeros(2), "relu" if limits is None else "jumprelu", limits
    )


def test_thresholds_that_give_as_many_entries() -> None:
    """Entries 0.5, 1.5, 3 and 4 with a threshold of 1: for 4 of them it goes below 0.5, for 1 to 3 and up."""
    x = torch.tensor([[0.5, 1.5], [3.0, 4.0], [-1.0, 0.0]])
    for wanted, least, most in ((4, 0, 0.5), (2, 1.5, 3), (1, 3, 4)):
        fit = ThresholdFit(form(1.0))
        fit.add(x, wanted)
        assert least <= fit.factor() <= most
        assert int(encode(fit.fitted(), x).l0().sum()) == wanted


def test_where_no_threshold_can_be_fitted() -> None:
    assert refusal_to_fit(form(1.0)) is None
    assert "wherever the relu is not 0" in str(refusal_to_fit(form(None)))
    assert "above 0" in str(refusal_to_fit(form(0.0)))
    eye = torch.eye(2)
    top = DenseForm(eye, torch.zeros(2), eye, torch.zeros(2), k=1)
    assert "the 1 largest latents" in str(refusal_to_fit(top))


def test_noise_is_as_large_as_the_error_and_vanishes_at_the_mean() -> None:
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(4, 6, generator=generator)
    before = DenseForm(W, torch.zeros(4), W, torch.zeros(6))
    after = DenseForm(W + torch.tensor([0.0, 1, 2, 3])[:, None], torch.zeros(4), 2 * W, torch.zeros(6))
    mean = torch.randn(6, generator=generator)
    noisy = with_noise(before, after, mean)
    moved = (noisy.W_enc - W).norm(dim=1)
    assert moved.tolist() == pytest.approx([0, 6**0.5, 2 * 6**0.5, 3 * 6**0.5], abs=1e-5)
    assert (noisy.W_dec - W).norm(dim=1).tolist() == pytest.approx(W.norm(dim=1).tolist(), rel=1e-5)
    at_mean = noisy.W_enc @ mean + noisy.b_enc
    assert at_mean.tolist() == pytest.approx((W @ mean).tolist(), abs=1e-5)


def test_rank_correlation() -> None:
    """1 2 3 4 5 against 2 1 4 3 5: rho = 1 - 6 * 4 / (5 * 24) = .8."""
    x = torch.arange(5.0)
    rho, error = spearman(x, torch.tensor([1.0, 0, 3, 2, 4]))
    assert rho == pytest.approx(0.8)
    assert error == pytest.approx(0.36 * math.sqrt(1.32 / 2))
    assert spearman(x, torch.ones(5)) == (None, None)
    assert spearman(x[:3], x[:3]) == (None, None)
