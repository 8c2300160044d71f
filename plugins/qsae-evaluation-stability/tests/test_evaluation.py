"""The evaluation on stored runs of three seeds, one of which is made of another's rows."""

from __future__ import annotations

import json
import pathlib
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_stability import StabilityConfig
from qsae_evaluation_stability.evaluation import Seeds, Stability

from qsae_cli.main import cli
from qsae_core.coder_options import CoderConfig
from qsae_core.coders.coder_set import CoderSet
from qsae_core.conformance.evaluation import ReferenceCoder
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import CoderShape, EvaluationContext, Result
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.evaluation.passes import observations

WIDTH, N = 12, 300


def coder_of(seed: int, n_latents: int = 24) -> ReferenceCoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        coder = ReferenceCoder(CoderConfig(n_latents=n_latents), CoderShape(WIDTH, WIDTH), plain_parts(k=3))
        coder.initialize(ToyData(CoderShape(WIDTH, WIDTH)).next_batch(256))
    return cast(ReferenceCoder, coder.eval())


def permuted(coder: ReferenceCoder, seed: int) -> tuple[ReferenceCoder, list[int]]:
    """The same coder with its latents in another order."""
    order = torch.randperm(coder.n_latents, generator=torch.Generator().manual_seed(seed))
    other, state = coder_of(9, coder.n_latents), coder.state_dict()
    for name in ("W_dec.weight", "W_enc.weight", "b_enc"):
        state[name] = state[name][order]
    other.load_state_dict(state)
    return cast(ReferenceCoder, other.eval()), order.tolist()


def seeds(coder: Any, *others: Any, **options: Any) -> Seeds:
    """As ``start`` makes them of stored runs."""
    names = [f"run {i}" for i in range(len(others))]
    return Seeds(StabilityConfig(others=names, **options), coder, others)


def found(started: Seeds, coder: Any, batch_size: int = 32) -> Result:
    data = ToyData(coder.shape)
    for seen in observations(EvaluationContext(coder, data, list, N, batch_size, "cpu")):
        started.update(seen)
    return started.result()


def test_permuted_copies_come_back_whole() -> None:
    """All three pairs are at 1, latent by latent, and so are their codes; random rows and shuffled partners
    are not."""
    one = coder_of(0)
    (two, order), (three, _) = permuted(one, 1), permuted(one, 2)
    result = found(seeds(one, two, three), one)
    assert result.values["pw_mcc"] == result.values["pw_mcc_abs"] == pytest.approx(1)
    assert result.values["pw_mcc_spread"] == pytest.approx(0, abs=1e-12)
    assert result.uncertainty["pw_mcc"] == pytest.approx(0, abs=1e-12)
    assert (result.values["returned_above_0.7"], result.values["returned_above_0.9"]) == (1, 1)
    assert result.values["code_correlation"] == pytest.approx(1, abs=1e-9)
    assert (result.values["n_runs"], result.values["n_tokens"]) == (3, N)
    assert [order[int(i)] for i in result.per_latent["match_1"]] == list(range(24))
    assert result.per_latent["cosine"].tolist() == pytest.approx([1.0] * 24)
    assert result.chance["pw_mcc"] < 0.8
    assert abs(result.chance["code_correlation"]) < 0.3
    assert [row[:2] for row in result.tables["pairs"].rows] == [
        ("this one", "run 0"),
        ("this one", "run 1"),
        ("run 0", "run 1"),
    ]


def test_half_the_latents_come_back() -> None:
    """The other run has half of this one's latents, and others that are turned away from all."""
    one = coder_of(0, 4)
    other, rows = coder_of(9, 4), torch.eye(WIDTH)
    with torch.no_grad():
        one.W_dec.weight.copy_(rows[:4])
        other.W_dec.weight.copy_(rows[[0, 1, 4, 5]])
    result = seeds(one, other, tokens=0).result()
    assert result.values["pw_mcc"] == pytest.approx(0.5)
    assert result.values["returned_above_0.7"] == 0.5
    assert result.per_latent["cosine_1"].tolist() == pytest.approx([1, 1, 0, 0])
    assert result.uncertainty["returned_above_0.7"] == pytest.approx((1 / 3) ** 0.5 / 2)  # of 1, 1, 0, 0
    assert (result.values["code_correlation"], result.values["pw_mcc_spread"]) == (None, None)


def test_a_latent_without_a_partner_has_not_come_back() -> None:
    """The other run has three latents, this one four."""
    one, other, rows = coder_of(0, 4), coder_of(9, 3), torch.eye(WIDTH)
    with torch.no_grad():
        one.W_dec.weight.copy_(rows[:4])
        other.W_dec.weight.copy_(rows[:3])
    result = seeds(one, other, tokens=0).result()
    assert (result.values["pw_mcc"], result.values["returned_above_0.9"]) == (pytest.approx(1), 0.75)
    assert result.per_latent["cosine_1"].isnan().tolist() == [False, False, False, True]


def test_unrelated_runs_are_at_chance() -> None:
    """As they are initialised; 24 rows of 12 are at .47 by chance."""
    one = coder_of(0)
    result = found(seeds(one, coder_of(1), coder_of(2)), one)
    assert result.values["pw_mcc"] == pytest.approx(result.chance["pw_mcc"], abs=0.1)
    assert result.chance["pw_mcc"] > 0.3


def test_batch_sizes_do_not_matter() -> None:
    one = coder_of(0)
    others = coder_of(1), coder_of(2)
    results = [found(seeds(one, *others, min_firings=5), one, size).values for size in (1, 7, 64)]
    for values in results[1:]:  # but for what float32 products of other shapes round otherwise
        assert values == pytest.approx(results[0], rel=1e-6)
    assert results[0]["code_correlation"] is not None


def test_parts_merge_into_the_whole() -> None:
    one, *others = (coder_of(seed) for seed in range(3))
    whole, *parts = (seeds(one, *others, min_firings=5) for _ in range(3))
    context = EvaluationContext(one, ToyData(one.shape), list, N, 32, "cpu")
    for number, seen in enumerate(observations(context)):
        whole.update(seen)
        parts[number % 2].update(seen)
    parts[0].merge(parts[1])
    assert parts[0].result().values == pytest.approx(whole.result().values, rel=1e-12)


def test_where_it_is_not_available() -> None:
    one = coder_of(0)
    alone = EvaluationContext(one, ToyData(one.shape), list, N, 32, "cpu")
    assert "option `others`" in str(Stability(StabilityConfig()).unavailable(alone))
    both = CoderSet({"0": one, "1": one})
    context = EvaluationContext(both, ToyData(both.shape), list, N, 32, "cpu")
    given = Stability(StabilityConfig(others=["there"]))
    assert "each layer's coder" in str(given.unavailable(context))
    assert given.unavailable(alone) is None


def test_others_that_cannot_be_compared(tmp_path: pathlib.Path) -> None:
    one = coder_of(0)
    context = EvaluationContext(one, ToyData(one.shape), list, N, 32, "cpu")
    with pytest.raises(ConfigError, match="here is given twice"):
        Stability(StabilityConfig(others=["here", "here"])).start(context)
    with pytest.raises(ArtifactError, match="no such file or folder"):
        Stability(StabilityConfig(others=[str(tmp_path / "nothing")])).start(context)


def trained(folder: pathlib.Path, seed: int) -> pathlib.Path:
    line = ["train", "--sae", "topk", "--data", "synthetic", "--data.layers", "2", "--per-layer"]
    line += ["--n-latents", "32", "--k", "4", "--steps", "20", "--batch-size", "64", "--seed", str(seed)]
    line += ["--out", str(folder / str(seed)), "--set", "train.eval_tokens=512", "--eval", "reconstruction"]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0, done.output
    (file,) = (folder / str(seed)).glob("*/*/*/config.json")
    return file.parent


def test_from_the_command_line(tmp_path: pathlib.Path) -> None:
    """Two seeds of a coder for each of two layers: each layer's is compared with the same layer's."""
    one, two = (trained(tmp_path, seed) for seed in (0, 1))
    given = f"evaluate=[{{use: stability, others: [{two}], min_firings: 5}}]"
    done = CliRunner().invoke(cli, ["evaluate", str(one), "--set", given])
    assert done.exit_code == 0, done.output
    files = sorted(one.glob("evaluations/layers/*/stability/result.json"))
    assert len(files) == 2
    for file in files:
        stored = json.loads(file.read_text())
        values, chance = stored["values"], stored["chance"]
        assert chance["pw_mcc"] < values["pw_mcc"] < 1
        assert -1 <= values["code_correlation"] <= 1
        assert values["n_tokens"] == 512
    assert "each layer's coder is compared alone" in done.output
