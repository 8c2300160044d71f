"""The rule ``batchtopk`` by hand, through a batch in chunks, and its threshold."""

from __future__ import annotations

import pytest
import torch
from qsae_sparsity import BatchTopKConfig
from qsae_sparsity.batchtopk import BatchTopK

from qsae_core.contracts.codes import concatenate

LATENTS = torch.tensor([[9.0, 0.0, 8.0, 7.0], [1.0, 6.0, 0.0, 2.0]])


def rule(k: int = 2, n_latents: int = 4) -> BatchTopK:
    return BatchTopK(BatchTopKConfig(k=k), n_latents).train()


def test_the_four_largest_of_two_tokens_with_k_2():
    # 9, 8, 7 and 6 of {9, 8, 7, 1, 6, 2}: three of the first token, one of the second
    codes = rule().select(LATENTS)
    assert codes.to_dense().tolist() == [[9.0, 0.0, 8.0, 7.0], [0.0, 6.0, 0.0, 0.0]]
    assert codes.k is None


def test_importance_ranks_and_values_stay_the_latents_own():
    # latent 3 counts five times: ranks 9, 8, 35 and 1, 6, 10; the largest four are 35, 10, 9 and 8
    codes = rule().select(LATENTS, torch.tensor([1.0, 1.0, 1.0, 5.0]))
    assert codes.to_dense().tolist() == [[9.0, 0.0, 8.0, 7.0], [0.0, 0.0, 0.0, 2.0]]


@pytest.mark.parametrize("importance", [None, torch.linspace(0.5, 2.0, 64)])
def test_a_batch_in_chunks_keeps_what_the_whole_batch_keeps(importance):
    latents = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)).relu()
    whole = rule(3, 64).select(latents, importance)
    chunked = rule(3, 64)
    chunked.begin_batch(40)
    parts = concatenate([chunked.select(chunk, importance) for chunk in latents.split([16, 16, 8])])
    codes = chunked.finish_batch(parts, importance)
    assert codes.values.numel() == 120
    places = codes.rows * 64 + codes.indices
    expected = whole.rows * 64 + whole.indices
    assert torch.equal(places, expected)


def test_the_threshold_follows_the_smallest_kept_entry_and_decides_when_evaluated():
    trained = rule()
    trained.select(LATENTS)  # keeps down to 6: the first threshold
    assert trained.threshold.item() == pytest.approx(6.0)
    trained.select(LATENTS / 2)  # keeps down to 3; decay 1 / 11: 6 / 11 + 3 * 10 / 11
    assert trained.threshold.item() == pytest.approx(6 / 11 + 30 / 11)
    codes = trained.eval().select(LATENTS)
    assert codes.to_dense().tolist() == [[9.0, 0.0, 8.0, 7.0], [0.0, 6.0, 0.0, 0.0]]
    assert trained.batches.item() == 2


def test_fewer_positive_latents_than_the_budget():
    codes = rule(k=4).select(torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert codes.to_dense().tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0] * 4]
