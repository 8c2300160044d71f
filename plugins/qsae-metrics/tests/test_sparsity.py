"""The values of ``sparsity``, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from qsae_metrics import SparsityConfig
from qsae_metrics.sparsity import Sparsity
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.metric import Observation


def observation(codes: SparseCodes, norms: Tensor | None = None) -> Observation:
    x = torch.zeros(codes.batch_size, 2)
    return Observation(x, x, codes, torch.ones(codes.n_latents) if norms is None else norms)


def measure(*observations: Observation) -> dict[str, float | None]:
    metric = Sparsity(SparsityConfig())
    for each in observations:
        metric.update(each)
    return metric.compute()


def test_a_signed_code_counts_its_negative_entries() -> None:
    codes = SparseCodes.from_dense(torch.tensor([[2.0, -3.0, 0.0], [0.0, -1.0, 0.0]]))
    values = measure(observation(codes, torch.tensor([1.0, 10.0, 5.0])))
    # three entries in two tokens
    assert values["l0"] == 1.5
    # (2 * 1 + 3 * 10 + 1 * 10) / 2
    assert values["l1"] == 21
    # densities 1/2, 1, 0
    assert values["dead_fraction"] == pytest.approx(1 / 3)
    assert values["density_over_10pct"] == pytest.approx(2 / 3)


def test_padding_of_a_top_k_rule_is_not_active() -> None:
    codes = SparseCodes.from_top_k(torch.tensor([[0, 2], [1, 2]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]), 4)
    values = measure(observation(codes))
    assert values["l0"] == 1
    assert values["dead_fraction"] == pytest.approx(2 / 4)


def test_shares_over_a_threshold_are_strict() -> None:
    """200 tokens: latent 0 fires on 2 of them (1%), 1 on 3, 2 on 20 (10%), 3 on 21, 4 never."""
    dense = torch.zeros(200, 5)
    for latent, times in enumerate([2, 3, 20, 21, 0]):
        dense[:times, latent] = 1
    values = measure(observation(SparseCodes.from_dense(dense)))
    assert values["density_over_1pct"] == pytest.approx(3 / 5)
    assert values["density_over_10pct"] == pytest.approx(1 / 5)
    assert values["dead_fraction"] == pytest.approx(1 / 5)
    assert values["l0"] == pytest.approx(46 / 200)


def test_quantiles_of_the_density_leave_dead_latents_out() -> None:
    """Densities 0.01, 0.1, 1 and a dead latent: the median's log10 is -1, the quartiles lie halfway."""
    dense = torch.zeros(100, 4)
    for latent, times in enumerate([1, 10, 100]):
        dense[:times, latent] = 1
    values = measure(observation(SparseCodes.from_dense(dense)))
    assert values["log10_density_p50"] == pytest.approx(-1)
    assert values["log10_density_p25"] == pytest.approx(-1.5)
    assert values["log10_density_p75"] == pytest.approx(-0.5)


def test_batches_add_up() -> None:
    dense = torch.rand(31, 6, generator=torch.Generator().manual_seed(0)).sub(0.6).relu()
    whole = measure(observation(SparseCodes.from_dense(dense)))
    parts = measure(*(observation(SparseCodes.from_dense(part)) for part in dense.split([1, 20, 10])))
    assert parts == pytest.approx(whole, rel=1e-12)
    assert whole["l0"] == pytest.approx((dense != 0).sum(1).float().mean().item())
    assert whole["l1"] == pytest.approx(dense.double().sum(1).mean().item())


def test_nothing_seen_and_nothing_active() -> None:
    assert set(measure().values()) == {None}
    silent = measure(observation(SparseCodes.from_dense(torch.zeros(4, 3))))
    assert silent["l0"] == 0
    assert silent["dead_fraction"] == 1
    assert silent["log10_density_p50"] is None
    assert not any(math.isnan(v) for v in silent.values() if v is not None)


def test_another_dictionary_size_is_refused() -> None:
    with pytest.raises(ValueError, match="3 latents after codes of 2"):
        measure(*(observation(SparseCodes.from_dense(torch.ones(1, f))) for f in (2, 3)))
