"""The evaluation on a source of our own with orthogonal features, and from the command line."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_ground_truth import GroundTruthConfig
from qsae_evaluation_ground_truth.evaluation import GroundTruth
from torch import Tensor

from qsae_cli.main import cli
from qsae_core.coder_options import CoderConfig
from qsae_core.coders.coder_set import CoderSet
from qsae_core.conformance.evaluation import ReferenceCoder
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import Batch, CoderShape, EvaluationContext, OneLayer, Result, SparseCodes
from qsae_core.evaluation.passes import observations, run_passes

A, N = 6, 200


class Orthogonal(ToyData):
    """Sums of at most two of six features e_i of length 1, with coefficients of 1 to 3."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__(CoderShape(A, A, layers, layers))
        draw = torch.Generator().manual_seed(0)
        active = torch.zeros(N, A).scatter_(1, torch.randint(0, A, (N, 2), generator=draw), 1.0)
        self.z = active * (1 + 2 * torch.rand(N, A, generator=draw))

    def dictionary(self) -> Tensor:
        return torch.eye(A) if self.layers_in == 1 else torch.stack([torch.eye(A), -torch.eye(A)], dim=1)

    def target_dictionary(self) -> Tensor:
        raise NotImplementedError

    def held_out_features(self, n_tokens: int) -> SparseCodes:
        return SparseCodes.from_dense(self.z[:n_tokens])

    def held_out_target_features(self, n_tokens: int) -> SparseCodes:
        raise NotImplementedError

    def held_out(self, n_tokens: int, batch_size: int) -> Any:
        for x in self.z[:n_tokens].split(batch_size):
            yield Batch(x, x)


def coder_of(rows: Tensor, k: int = 2) -> ReferenceCoder:
    """An SAE whose decoder rows are unit and whose encoder rows are these."""
    n, width = rows.shape
    config = CoderConfig(n_latents=n, normalize="none")
    coder = ReferenceCoder(config, CoderShape(width, width), plain_parts(k=k))
    unit = torch.nn.functional.normalize(rows, dim=1)
    coder.load_state_dict({**coder.state_dict(), "W_dec.weight": unit, "W_enc.weight": rows})
    return cast(ReferenceCoder, coder.eval())


def context_of(coder: Any, data: Any, batch_size: int = 32) -> EvaluationContext:
    return EvaluationContext(coder, data, list, N, batch_size, "cpu")


def found(coder: Any, data: Any = None, batch_size: int = 32, **options: Any) -> Result:
    context = context_of(coder, data or Orthogonal(), batch_size)
    evaluation = GroundTruth(GroundTruthConfig(**options))
    assert evaluation.unavailable(context) is None
    return run_passes(context, {"it": evaluation.start(context)})["it"].result()


def test_the_truth_itself_is_found_whole() -> None:
    """A permuted dictionary fires where the features do, with their coefficients."""
    result = found(coder_of(torch.eye(A)[[3, 1, 5, 0, 2, 4]]))
    ones = ("mcc", "mmcs", "uniqueness", "found_above_0.7", "shrinkage", "coefficient_ratio")
    ones = (*ones, "precision", "recall", "f1")
    assert {name: result.values[name] for name in ones} == {name: pytest.approx(1) for name in ones}
    l0 = float((Orthogonal().z > 0).sum()) / N
    assert (result.values["l0"], result.values["l0_true"]) == pytest.approx((l0, l0))
    assert result.per_latent["feature"].tolist() == [3, 1, 5, 0, 2, 4]
    assert [row[:3] for row in result.tables["features"].rows][:2] == [(0, 3, 1.0), (1, 1, 1.0)]
    # a latent that fires as often is right as often as the feature is active
    assert result.chance["f1"] == pytest.approx(result.values["l0"] / A)
    assert result.chance["mcc"] < 0.8


def test_half_the_latents_and_half_the_size() -> None:
    """Three features have latents, which fire at half their size."""
    result = found(coder_of(torch.eye(A)[:3] / 2))
    assert result.values["coefficient_ratio"] == pytest.approx(0.5)
    assert result.values["mcc"] == pytest.approx(1)
    assert result.values["mmcs"] == pytest.approx(0.5)  # of 1, 1, 1, 0, 0, 0
    assert result.values["found_above_0.9"] == 0.5
    assert result.values["recall"] == pytest.approx(1)
    assert result.values["shrinkage"] < 0.5
    assert result.tables["features"].rows[4][1:3] == (None, None)


def noisy() -> ReferenceCoder:
    return coder_of(torch.eye(A) + 0.4 * torch.randn(A, A, generator=torch.Generator().manual_seed(1)))


def test_batch_sizes_do_not_matter() -> None:
    results = [found(noisy(), batch_size=size) for size in (1, 7, 64)]
    for result in results[1:]:
        assert result.values == pytest.approx(results[0].values, rel=1e-12, abs=1e-12)
        assert result.chance == pytest.approx(results[0].chance, rel=1e-12, abs=1e-12)
    assert 0.5 < results[0].values["f1"] < 0.99


def test_parts_merge_into_the_whole() -> None:
    context = context_of(noisy(), Orthogonal())
    evaluation = GroundTruth(GroundTruthConfig())
    whole, *parts = (evaluation.start(context) for _ in range(3))
    for number, seen in enumerate(observations(context)):
        whole.update(seen)
        parts[number % 2].update(seen)
    parts[0].merge(parts[1])
    assert parts[0].result().values == pytest.approx(whole.result().values, rel=1e-12)


def test_fewer_tokens() -> None:
    result = found(coder_of(torch.eye(A)), tokens=50)
    assert result.values["n_tokens"] == 50
    assert result.values["l0_true"] == pytest.approx(float((Orthogonal().z[:50] > 0).sum()) / 50)


def test_a_layer_of_several_has_its_own_directions() -> None:
    """The second layer's features are turned round: its cosines are -1."""
    result = found(coder_of(torch.eye(A)), TurnedLayer(Orthogonal(layers=2), 1))
    assert result.per_latent["feature_cosine"].tolist() == [-1.0] * A


class TurnedLayer(OneLayer):
    """A layer whose vectors are those of one layer."""

    def held_out(self, n_tokens: int, batch_size: int) -> Any:
        return self.source.held_out(n_tokens, batch_size)


def test_a_source_that_knows_directions_alone() -> None:
    """Firing is then not defined; the dictionary still is."""

    class Directions(ToyData):
        def dictionary(self) -> Tensor:
            return torch.eye(A)

        def target_dictionary(self) -> Tensor:
            return torch.eye(A)

    result = found(coder_of(torch.eye(A)), Directions(CoderShape(A, A)))
    assert result.values["mcc"] == pytest.approx(1)
    names = ("precision", "recall", "f1", "l0", "l0_true", "coefficient_ratio")
    assert [result.values[name] for name in names] == [None] * 6
    assert result.tables["features"].columns == ("feature", "latent", "cosine")


def test_where_it_is_not_available() -> None:
    evaluation, one = GroundTruth(GroundTruthConfig()), coder_of(torch.eye(A))
    unknown = context_of(one, ToyData(CoderShape(A, A)))
    assert "does not know its true features" in str(evaluation.unavailable(unknown))
    both = context_of(CoderSet({"0": one, "1": one}), Orthogonal(layers=2))
    assert "each layer's coder" in str(evaluation.unavailable(both))


def trained(folder: pathlib.Path, *words: str) -> dict[str, Any]:
    line = ["train", "--data", "synthetic", "--n-latents", "64", "--steps", "20", "--batch-size", "64"]
    line += ["--out", str(folder), "--set", "train.eval_tokens=2048", "--eval", "ground-truth", *words]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0, done.output
    (file,) = folder.glob("*/*/*/evaluations/ground-truth/result.json")
    return cast(dict[str, Any], json.loads(file.read_text()))


def test_from_the_command_line(tmp_path: pathlib.Path) -> None:
    """64 latents of 256 features that are active 4.2 at a time, after a few steps."""
    stored = trained(tmp_path, "--sae", "topk", "--k", "4")
    values, chance = stored["values"], stored["chance"]
    assert values["l0_true"] == pytest.approx(4.2, abs=0.1)
    assert values["l0"] == pytest.approx(4, abs=0.1)
    assert values["n_features"] == 256
    assert chance["mcc"] < values["mcc"] < 1
    assert chance["f1"] < values["f1"] < 1


def test_a_transcoder_is_compared_with_what_features_write(tmp_path: pathlib.Path) -> None:
    """Targets have width 48, and are made of half of the features."""
    line = ["--transcoder", "transcoder", "--k", "4", "--d-target", "48", "--target-share", "0.5"]
    values = trained(tmp_path, *line)["values"]
    assert values["n_features"] == 128
    assert values["l0_true"] < 3
    assert not math.isnan(values["mcc"])
