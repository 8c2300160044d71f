"""Dictionary, rates and hierarchy, by hand and against bounds."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from qsae_data_synthetic import PRESETS, SyntheticConfig
from qsae_data_synthetic.hierarchy import plant
from qsae_data_synthetic.source import mean_squared_coherence
from qsae_data_synthetic.world import (
    draw_copula,
    draw_magnitudes,
    nearly_orthogonal,
    power_law,
    seeded_generator,
)


def config(**options: object) -> SyntheticConfig:
    """A world of independent features unless told otherwise."""
    return SyntheticConfig(**{"n_roots": 0, "magnitude_std": 0.0, "magnitude_std_spread": 0.0, **options})


def test_power_law() -> None:
    """rank^-1 is 1, 1/2, 1/3; the middle one lies (1/2 - 1/3) / (1 - 1/3) = 1/4 of the way up."""
    rates = power_law(config(n_features=3, p_max=0.4, p_min=0.1, zipf=1.0))
    assert rates.tolist() == pytest.approx([0.4, 0.1 + 0.3 / 4, 0.1])
    assert power_law(config(n_features=1, p_max=0.4)).tolist() == [0.4]


def test_siblings_share_what_their_parent_has() -> None:
    """Two children each. Root 0 (0.4) has room for 0.2 + 0.1, root 1 (0.3) not for 0.3 + 0.1."""
    trees = config(n_features=7, n_roots=2, branching=2, depth=1)
    wanted = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.3, 0.1, 0.05], dtype=torch.float64)
    planted = plant(trees, wanted, torch.ones(7, dtype=torch.float64))
    assert planted.parent.tolist() == [-1, -1, 0, 0, 1, 1, -1]
    assert planted.top.tolist() == [0, 1, 6]
    # children of root 0 fire with 0.2 / 0.4 and 0.1 / 0.4, given that it does; those of root 1 get 3/4 each
    assert planted.bounds.flatten().tolist() == pytest.approx([0.5, 0.75, 0.75, 1.0])
    assert planted.rate.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.225, 0.075, 0.05])


def test_firings_of_magnitude_zero_are_allowed_for() -> None:
    """A child whose magnitude is positive half of the time has to fire twice as often: 0.2 of 0.4."""
    trees = config(n_features=2, n_roots=1, branching=1, depth=1)
    wanted, positive = torch.tensor([[0.4, 0.1], [0.8, 0.5]], dtype=torch.float64)
    planted = plant(trees, wanted, positive)
    assert torch.special.ndtr(planted.threshold).tolist() == pytest.approx([0.5], rel=1e-5)
    assert planted.bounds.tolist() == [[0.5]]
    assert planted.rate.tolist() == pytest.approx([0.4, 0.1])


def test_a_rate_that_no_firing_can_reach() -> None:
    """The magnitude is positive with probability 0.3: the activation cannot be so more often."""
    planted = plant(config(n_features=1), torch.tensor([0.4]).double(), torch.tensor([0.3]).double())
    assert planted.rate.tolist() == pytest.approx([0.3])


def test_grandchildren() -> None:
    trees = config(n_features=15, n_roots=1, branching=2, depth=3, p_max=0.5, p_min=0.01)
    planted = plant(trees, power_law(trees), torch.ones(15, dtype=torch.float64))
    assert planted.parent.tolist() == [-1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert planted.first_child.tolist() == [1, 3, 5, 7, 9, 11, 13]


def test_the_benchmark_has_its_l0() -> None:
    """SynthSAEBench-16k reports an L0 of about 34, after 16384 rates that ask for 59."""
    benchmark = SyntheticConfig(preset="synthsaebench-16k")
    assert benchmark.in_trees == 128 * (1 + 4 + 16 + 64)
    magnitudes = draw_magnitudes(benchmark, seeded_generator(0))
    asked = power_law(benchmark)
    planted = plant(benchmark, asked, magnitudes.p_positive)
    assert float(asked.sum()) == pytest.approx(59.1, abs=0.1)
    assert float(planted.rate.sum()) == pytest.approx(35, abs=1)
    assert bool((planted.rate <= asked + 1e-12).all())


@pytest.mark.parametrize(("n_features", "width"), [(256, 64), (100, 64), (48, 32)])
def test_coherence_reaches_the_welch_bound(n_features: int, width: int) -> None:
    """The mean of (d_i . d_j)^2 cannot be below (F - D) / (D (F - 1)); random directions have 1 / D."""
    welch = (n_features - width) / (width * (n_features - 1))
    start = nearly_orthogonal(n_features, width, 0, seeded_generator(0))
    end = nearly_orthogonal(n_features, width, 40, seeded_generator(0))
    assert mean_squared_coherence(start) == pytest.approx(1 / width, rel=0.1)
    assert mean_squared_coherence(end) == pytest.approx(welch, rel=1e-3)
    assert mean_squared_coherence(end) >= welch * (1 - 1e-6)
    assert torch.allclose(end.norm(dim=1), torch.ones(n_features))


def test_tiny_takes_enough_steps() -> None:
    options = PRESETS["tiny"]
    n_features, width, steps = options["n_features"], options["d_model"], options["orthogonalize_steps"]
    rows = nearly_orthogonal(n_features, width, steps, seeded_generator(1))
    welch = (n_features - width) / (width * (n_features - 1))
    assert mean_squared_coherence(rows) == pytest.approx(welch, rel=1e-3)


def test_fewer_features_than_dimensions_become_orthogonal() -> None:
    rows = nearly_orthogonal(20, 32, 40, seeded_generator(0))
    assert torch.allclose(rows @ rows.T, torch.eye(20), atol=1e-4)


def test_descent_lowers_the_sum_at_every_step() -> None:
    sums = [mean_squared_coherence(nearly_orthogonal(60, 40, n, seeded_generator(0))) for n in range(8)]
    assert sums == sorted(sums, reverse=True)


def test_loadings_on_a_path_are_orthogonal() -> None:
    """Root 1, its children's Gaussian, and that of child 4's children (4 = second child of root 1 of 2)."""
    trees = config(n_features=14, n_roots=2, branching=2, depth=2, rank=5, shared_variance=0.36)
    copula = draw_copula(trees, 2, seeded_generator(0))
    assert copula.child_loading.shape == (2 + 4, 5)
    path = torch.stack([copula.top_loading[1], copula.child_loading[1], copula.child_loading[5]])
    assert torch.allclose(path @ path.T, 0.36 * torch.eye(3), atol=1e-6)
    assert copula.top_own == pytest.approx(0.8)
    assert copula.child_own.tolist() == pytest.approx([0.8] * 6)


def test_a_path_longer_than_the_rank_goes_on_alone() -> None:
    trees = config(n_features=15, n_roots=1, branching=2, depth=3, rank=2)
    copula = draw_copula(trees, 1, seeded_generator(0))
    assert bool((copula.child_loading[1:] == 0).all())
    assert copula.child_own.tolist() == pytest.approx([0.75**0.5] + [1.0] * 6)


def test_presets_fill_in_what_is_not_given() -> None:
    benchmark = SyntheticConfig(preset="synthsaebench-16k", d_model=256)
    assert (benchmark.d_model, benchmark.n_features, benchmark.rank) == (256, 16384, 25)
    assert SyntheticConfig().model_dump() == {
        **PRESETS["tiny"],
        "preset": "tiny",
        "layers": 1,
        "d_target": None,
        "target_share": 1.0,
        "target_threshold": 0.0,
        "world_seed": 0,
    }
    # what a run records is enough to repeat it
    assert SyntheticConfig(**benchmark.model_dump()) == benchmark


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "Input should be 'tiny' or 'synthsaebench-16k'"),
        ({"p_min": 0.5}, "p_min 0.5 is above p_max 0.2"),
        ({"n_roots": 100}, "100 trees of 7 features each do not fit into 256 features"),
        ({"features": 5}, "Extra inputs are not permitted"),
        ({"target_share": 0.5}, "d_target is not given"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SyntheticConfig(**options)
