"""What is drawn, against what was asked for."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from qsae_data_synthetic import SyntheticConfig
from qsae_data_synthetic.source import BLOCK, SyntheticSource
from torch import Tensor

from qsae_core.errors import ConfigError
from qsae_core.kernels import decode

TOKENS = 40_000


def make(seed: int = 0, **options: object) -> SyntheticSource:
    return SyntheticSource(SyntheticConfig(**options), seed=seed)


def held_out_x(source: SyntheticSource, n_tokens: int, batch_size: int = 1000) -> Tensor:
    return torch.cat([batch.x for batch in source.held_out(n_tokens, batch_size)])


def activations(source: SyntheticSource, n_tokens: int = TOKENS) -> Tensor:
    return source.held_out_features(n_tokens).to_dense()


def deviations(source: SyntheticSource) -> Tensor:
    """How far each feature's firing is from its rate, in standard deviations of a binomial count."""
    rate = source.firing_rates()
    fired = source.held_out_features(TOKENS).fired() / TOKENS
    return (fired - rate) / (rate * (1 - rate) / TOKENS).sqrt()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shared_variance": 0.0},
        {"shared_variance": 0.8, "rank": 4},
        {"n_roots": 0},
        {"magnitude_first": 0.5, "magnitude_last": 0.5, "magnitude_std_spread": 0.0},
    ],
)
def test_features_fire_at_their_rates(options: dict[str, object]) -> None:
    """Whatever correlates them, whatever hierarchy they are in, and with magnitudes that are often 0."""
    deviation = deviations(make(**options))
    assert float(deviation.abs().max()) < 5
    assert float(deviation.square().mean()) == pytest.approx(1, abs=0.4)


def test_rates_follow_the_power_law_where_a_parent_allows_it() -> None:
    rates = make(n_roots=0).firing_rates()
    assert rates[0] == pytest.approx(0.2)
    assert rates[-1] == pytest.approx(0.005)
    # rank 4 of 256 at the exponent 1/2: 1/2 lies (1/2 - 1/16) / (1 - 1/16) of the way from 0.005 to 0.2
    assert float(rates[3]) == pytest.approx(0.005 + 0.195 * (1 / 2 - 1 / 16) / (1 - 1 / 16))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_hierarchy_holds_on_every_token(depth: int) -> None:
    source = make(depth=depth, magnitude_first=0.5, magnitude_last=0.5, p_max=0.6, p_min=0.05)
    active, parents = activations(source) > 0, source.parents()
    children = (parents >= 0).nonzero()[:, 0]
    assert len(children) == 8 * (2 ** (depth + 1) - 2)
    assert int(active[:, children].sum()) > 1000
    assert bool((active[:, children] <= active[:, parents[children]]).all())
    for parent in parents[children].unique():
        assert int(active[:, parents == parent].sum(1).max()) <= 1


def test_magnitudes() -> None:
    """sigma = 1 and mu = 1: ReLU leaves a Gaussian cut at 0, of mean mu + sigma phi(1) / Phi(1)."""
    source = make(
        n_features=4, n_roots=0, p_max=0.5, p_min=0.5, magnitude_first=1.0, magnitude_last=1.0,
        magnitude_std=1.0, magnitude_std_spread=0.0,
    )  # fmt: skip
    values = source.held_out_features(TOKENS).values
    density, mass = math.exp(-0.5) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert float(values.min()) > 0
    assert float(values.mean()) == pytest.approx(1 + density / mass, abs=0.01)


def test_magnitudes_fall_from_the_first_feature_to_the_last() -> None:
    source = make(n_features=3, n_roots=0, p_max=0.5, p_min=0.4, magnitude_std=0.0, magnitude_std_spread=0.0)
    dense = activations(source, 1000)
    assert [dense[:, i].max().item() for i in range(3)] == [5.0, 4.5, 4.0]


def test_tokens_are_features_times_dictionary_plus_bias() -> None:
    source = make(noise_std=0.0, bias_norm=2.0)
    rest = held_out_x(source, 3000) - decode(source.held_out_features(3000), source.dictionary())
    assert torch.allclose(rest, rest[:1].expand_as(rest), atol=1e-4)
    assert float(rest[0].norm()) == pytest.approx(2, rel=1e-4)


def test_noise_has_its_variance() -> None:
    source = make(noise_std=0.3, bias_norm=0.0)
    noise = held_out_x(source, TOKENS) - decode(source.held_out_features(TOKENS), source.dictionary())
    # the standard error of a variance from n values is sqrt(2 / n)
    assert float(noise.var()) == pytest.approx(0.09, rel=5 * math.sqrt(2 / noise.numel()))
    assert float((noise.T @ noise / TOKENS - 0.09 * torch.eye(64)).abs().max()) < 0.09 * 6 / math.sqrt(TOKENS)


def test_the_copula_correlates_firings() -> None:
    """One factor h, loadings +-sqrt(1/2): given h, a feature fires with Phi((t -+ h sqrt(1/2)) / sqrt(1/2)).

    Two of one sign fire together with the integral over h of the square of that, two of opposite signs of
    the product.
    """
    source = make(n_features=8, n_roots=0, rank=1, shared_variance=0.5, p_max=0.2, p_min=0.2)
    active = (activations(source) > 0).double()
    together = active.T @ active / TOKENS
    h = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weight = torch.exp(-h.square() / 2) / math.sqrt(2 * math.pi) * (h[1] - h[0])
    threshold = torch.special.ndtri(torch.tensor(0.2, dtype=torch.float64))
    rises, falls = (torch.special.ndtr(threshold * math.sqrt(2) + sign * h) for sign in (1, -1))
    same, opposite = float((weight * rises * rises).sum()), float((weight * rises * falls).sum())
    assert float((weight * rises).sum()) == pytest.approx(0.2, abs=1e-6)
    assert same > 0.04 > opposite
    off_diagonal = together[~torch.eye(8, dtype=torch.bool)]
    nearest = torch.minimum((off_diagonal - same).abs(), (off_diagonal - opposite).abs())
    assert float(nearest.max()) < 5 * math.sqrt(0.1 / TOKENS)
    assert bool((off_diagonal > 0.06).any())
    assert bool((off_diagonal < 0.03).any())


def test_without_shared_variance_firings_are_independent() -> None:
    source = make(n_features=8, n_roots=0, shared_variance=0.0, p_max=0.2, p_min=0.2)
    active = (activations(source) > 0).double()
    together = (active.T @ active / TOKENS)[~torch.eye(8, dtype=torch.bool)]
    assert float((together - 0.04).abs().max()) < 5 * math.sqrt(0.04 / TOKENS)


def test_streams() -> None:
    """The run's seed moves the training stream alone; the world's seed moves everything."""
    one, other, elsewhere = make(), make(seed=1), make(world_seed=1)
    assert torch.equal(one.dictionary(), other.dictionary())
    assert torch.equal(held_out_x(one, 50), held_out_x(other, 50))
    assert not torch.equal(one.next_batch(50).x, other.next_batch(50).x)
    assert not torch.equal(make().next_batch(50).x, held_out_x(one, 50))
    assert not torch.equal(one.dictionary(), elsewhere.dictionary())
    assert torch.equal(make().next_batch(50).x, make().next_batch(50).x)


def test_the_stream_does_not_depend_on_batch_sizes() -> None:
    whole = make().next_batch(3 * BLOCK).x
    source = make()
    parts = [source.next_batch(size).x for size in (1, BLOCK - 1, BLOCK + 5, 7, BLOCK - 12)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(held_out_x(source, 2500, 64), held_out_x(source, 2500, 2500))
    assert torch.equal(held_out_x(source, 2500)[:900], held_out_x(source, 900))


@pytest.mark.parametrize("taken", [0, 1, BLOCK, 2 * BLOCK + 17])
def test_resuming(taken: int) -> None:
    source = make(seed=3)
    if taken:
        source.next_batch(taken)
    resumed = make(seed=3)
    resumed.next_batch(5)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert torch.equal(resumed.next_batch(1500).x, source.next_batch(1500).x)


def test_batches_of_an_autoencoder() -> None:
    source = make()
    batch = source.next_batch(10)
    assert batch.y is batch.x
    assert batch.x.shape == (10, source.d_in) == (10, 64)
    assert [len(batch) for batch in source.held_out(100, 30)] == [30, 30, 30, 10]
    assert (source.model_name, source.layer, source.language_model()) == ("synthetic-tiny", "synthetic", None)


def test_tiny_is_there_at_once() -> None:
    start = time.process_time()
    make().next_batch(4096)
    assert time.process_time() - start < 1


def test_layers_are_the_same_token_turned() -> None:
    """Norms and inner products agree; the dictionary's atoms of a layer decode that layer."""
    one, three = make(noise_std=0.0, bias_norm=0.0), make(noise_std=0.0, bias_norm=0.0, layers=3)
    x, plain = three.next_batch(300).x, one.next_batch(300).x
    assert x.shape == (300, 3, 64)
    assert torch.equal(x[:, 0], plain)
    for layer in (1, 2):
        torch.testing.assert_close(x[:, layer] @ x[:, layer].T, plain @ plain.T, atol=1e-3, rtol=1e-4)
        assert not torch.allclose(x[:, layer], plain)
    held_out = next(iter(three.held_out(100, 100))).x
    decoded = torch.einsum("bf,fld->bld", three.held_out_features(100).to_dense(), three.dictionary())
    torch.testing.assert_close(held_out, decoded, atol=1e-4, rtol=1e-4)


PAIRED = {"d_target": 48, "target_share": 0.25, "target_threshold": 4.0}


def test_targets_are_features_above_the_threshold_in_another_dictionary() -> None:
    """64 of 256 features count, each with what its activation, about 4 to 5, has above 4."""
    source = make(**PAIRED, noise_std=0.0, bias_norm=2.0)
    y = torch.cat([batch.y for batch in source.held_out(3000, 700)])
    assert (source.d_in, source.d_out, y.shape) == (64, 48, (3000, 48))
    features, truth = source.target_dictionary(), activations(source, 3000)
    counts = features.norm(dim=1) > 0
    assert int(counts.sum()) == source.describe()["target_features"] == 64
    expected = (truth * counts - 4).clamp_min(0)
    assert torch.equal(source.held_out_target_features(3000).to_dense(), expected)
    assert 0 < float((expected > 0).float().mean()) < 0.25 * float((truth > 0).float().mean())
    rest = y - expected @ features
    torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-4, rtol=0)
    assert float(rest[0].norm()) == pytest.approx(2, rel=1e-4)


def test_targets_leave_the_vectors_as_they_are() -> None:
    plain, paired = make(), make(**PAIRED)
    assert torch.equal(plain.next_batch(2000).x, paired.next_batch(2000).x)
    assert torch.equal(held_out_x(plain, 2000), held_out_x(paired, 2000))
    whole = make(**PAIRED).next_batch(2 * BLOCK).y
    source = make(**PAIRED)
    assert torch.equal(torch.cat([source.next_batch(n).y for n in (1, BLOCK, BLOCK - 1)]), whole)
    other = make(**PAIRED, seed=1)
    assert torch.equal(other.target_dictionary(), source.target_dictionary())
    assert not torch.equal(other.next_batch(50).y, make(**PAIRED).next_batch(50).y)


@pytest.mark.parametrize("d_target", [12, 48])
def test_a_target_does_not_hang_on_how_many_are_asked_for(d_target: int) -> None:
    few, more = (
        torch.cat([batch.y for batch in make(**PAIRED | {"d_target": d_target}).held_out(n, 64)])
        for n in (99, 1000)
    )
    assert torch.equal(few, more[:99])


def test_targets_have_noise_of_their_own() -> None:
    source = make(d_target=64, noise_std=0.3, bias_norm=0.0)
    codes, batch = source.held_out_features(TOKENS), next(source.held_out(TOKENS, TOKENS))
    noise_x = batch.x - decode(codes, source.dictionary())
    noise_y = batch.y - decode(codes, source.target_dictionary())
    assert float(noise_y.var()) == pytest.approx(0.09, rel=5 * math.sqrt(2 / noise_y.numel()))
    assert float((noise_x * noise_y).mean().abs()) < 5 * 0.09 / math.sqrt(noise_y.numel())


def test_targets_of_several_layers_are_turned_in_each() -> None:
    one, three = make(**PAIRED, noise_std=0.0), make(**PAIRED, noise_std=0.0, layers=3)
    y, plain = three.next_batch(300).y, one.next_batch(300).y
    assert (y.shape, three.target_dictionary().shape) == ((300, 3, 48), (256, 3, 48))
    assert torch.equal(y[:, 0], plain)
    torch.testing.assert_close(y[:, 2] @ y[:, 2].T, plain @ plain.T, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(y[:, 2], plain)


def test_without_targets_there_is_no_truth_of_them() -> None:
    with pytest.raises(ConfigError, match="vectors are their own targets") as caught:
        make().target_dictionary()
    assert "--d-target 48" in str(caught.value)
