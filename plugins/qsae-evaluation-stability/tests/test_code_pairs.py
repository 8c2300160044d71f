"""Correlations of codes, by hand and against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qsae_evaluation_stability.code_pairs import CodePairs
from qsae_evaluation_stability.seeds import jackknife
from torch import Tensor

from qsae_core.contracts import SparseCodes


def sparse(seed: int, n_latents: int = 5) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    active = torch.rand(400, n_latents, generator=draw) < 0.2
    return torch.rand(400, n_latents, generator=draw) * active


def pairs_of(own: Tensor, other: Tensor, partners: list[int], batch_size: int = 400) -> CodePairs:
    found = CodePairs(torch.arange(own.shape[1]), torch.tensor(partners), own.shape[1], other.shape[1])
    for some in zip(own.split(batch_size), other.split(batch_size), strict=True):
        found.add(*(SparseCodes.from_dense(codes) for codes in some))
    return found


def test_twice_as_large_is_the_same_and_shuffled_tokens_are_nothing() -> None:
    codes, order = sparse(0), torch.randperm(400, generator=torch.Generator().manual_seed(1))
    same = pairs_of(codes, 2 * codes, [0, 1, 2, 3, 4]).correlations(20)
    assert same.tolist() == pytest.approx([1.0] * 5, abs=1e-12)
    shuffled = pairs_of(codes, codes[order], [0, 1, 2, 3, 4]).correlations(20)
    assert float(shuffled.abs().max()) < 0.15  # 3 / sqrt(400)


def test_against_numpy_whatever_the_batch_size() -> None:
    """Latent j of the one is matched with latent (3, 0, 6, 1, 2)[j] of the other."""
    own, other, partners = sparse(0), sparse(1, 7), [3, 0, 6, 1, 2]
    other[:, 3] += own[:, 0] * (own[:, 0] > 0.3)
    expected = [np.corrcoef(own[:, j].double(), other[:, p].double())[0, 1] for j, p in enumerate(partners)]
    found = [pairs_of(own, other, partners, size).correlations(20).tolist() for size in (1, 7, 64)]
    for values in found:
        assert values == pytest.approx(expected, abs=1e-12)
    parts = pairs_of(own[:150], other[:150], partners), pairs_of(own[150:], other[150:], partners)
    parts[0].merge(parts[1])
    assert parts[0].correlations(20).tolist() == pytest.approx(expected, abs=1e-12)


def test_what_is_constant_or_rare_is_not_defined() -> None:
    """Latent 0 is 0.1 on every token; 1 fires nine times; 2 does, on 30 tokens, and its partner never."""
    own = torch.zeros(400, 3)
    own[:, 0], own[:9, 1], own[:30, 2] = 0.1, 1.0, 1.0
    other = own.clone()
    assert pairs_of(own, other, [0, 1, 2]).correlations(20).isnan().tolist() == [True, True, False]
    other[:, 2] = 0
    assert pairs_of(own, other, [0, 1, 2]).correlations(5).isnan().tolist() == [True, False, True]


def test_the_standard_error_is_by_leaving_runs_out() -> None:
    """Three runs, pairs .5, .6, .9: without run 0 .9, without 1 .6, without 2 .5. Their mean is 2/3; sum of
    squares .0867, times 2/3, root: .2404."""
    of_pairs = {(0, 1): 0.5, (0, 2): 0.6, (1, 2): 0.9}
    assert jackknife(of_pairs, 3) == pytest.approx((2 / 3 * 0.26 / 3) ** 0.5)
    assert jackknife({(0, 1): 0.5}, 2) is None


def test_the_order_of_entries_is_free() -> None:
    """One token: latents 2, 0 with 5, 7 in the one, 1, 0 with 3, 4 in the other; 0 belongs to 1, 2 to 0."""
    offsets = torch.tensor([0, 2])
    own = SparseCodes(torch.tensor([2, 0], dtype=torch.int32), torch.tensor([5.0, 7.0]), offsets, 3)
    other = SparseCodes(torch.tensor([1, 0], dtype=torch.int32), torch.tensor([3.0, 4.0]), offsets, 2)
    found = CodePairs(torch.tensor([0, 2]), torch.tensor([1, 0]), 3, 2)
    found.add(own, other)
    assert found.product.tolist() == [5 * 4, 7 * 3]
