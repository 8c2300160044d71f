"""The evaluation as core runs it: results on small coders, batches, what is refused, the command."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.evaluation import QuantizationError
from torch import Tensor

from qsae_cli.main import cli
from qsae_core import CoderConfig
from qsae_core.contracts import Batch, CoderShape, Result, SparseCodes, TokenBatch
from qsae_core.evaluation.evaluate import Outcome, evaluate
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.evaluation.stored import load_result

SHAPE = CoderShape(3, 3)


class Rows:
    """``f = max(W x, 0)``, ``x_hat = f W``; numbers are small integers, so that batches round alike."""

    training, device, chooses_layer = False, "cpu", False

    def __init__(self, W: Tensor) -> None:
        self.W, self.n_latents, self.shape = W, len(W), SHAPE
        self.config = CoderConfig(n_latents=len(W))

    def eval(self) -> None: ...
    def train(self, mode: bool) -> None: ...
    def atom_errors(self) -> None: ...
    def code_levels(self, codes: SparseCodes) -> None: ...

    def by_layer(self) -> tuple[Rows, ...]:
        return ()

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense((x @ self.W.T).relu())

    def decode(self, codes: SparseCodes) -> Tensor:
        return codes.to_dense() @ self.W

    def target(self, batch: Batch) -> Tensor:
        return batch.y

    def atoms(self) -> Tensor:
        return self.W

    def atom_norms(self) -> Tensor:
        return self.W.norm(dim=1)


X = torch.randint(-3, 4, (700, 3), generator=torch.Generator().manual_seed(0)).float()
TWIN = Rows(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]))
CODER = Rows(torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]))
CONFIG = QuantizationErrorConfig()


class Vectors:
    """Vectors with or without contexts behind them, of 7 positions, the first of which is special."""

    layer_names = ("0",)

    def __init__(self, contexts: bool = False, specials: float = 0.0) -> None:
        self.contexts, self.specials = contexts, specials

    def language_model(self) -> object | None:
        return SimpleNamespace() if self.contexts else None

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for part in X[:n_tokens].split(batch_size):
            yield Batch(part, part)

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        ids = torch.ones(100, 7, dtype=torch.int64)
        counted = torch.ones_like(ids, dtype=torch.bool)
        counted[:, 0] = False
        x = X.clone().view(100, 7, 3)
        x[:, 0] = self.specials
        for start in range(0, 100, max(1, batch_size // 7)):
            rows = slice(start, start + max(1, batch_size // 7))
            vectors = x[rows][counted[rows]]
            yield (
                TokenBatch(ids[rows], counted[rows], torch.ones_like(counted[rows])),
                Batch(vectors, vectors),
            )


def outcome(coder: Any, twin: Any, data: Any = None, batch_size: int = 64, **options: Any) -> Outcome:
    evaluations = {"it": QuantizationError(QuantizationErrorConfig(**options))}
    found = evaluate(
        coder, cast(Any, data or Vectors()), evaluations, list, n_tokens=700, batch_size=batch_size, twin=twin
    )
    return found[WHOLE]["it"]


def result(*args: Any, **options: Any) -> Result:
    found = outcome(*args, **options)
    assert found.result is not None, found.unavailable
    return found.result


def test_a_coder_beside_itself() -> None:
    found = result(TWIN, TWIN)
    for name in ("r_mean", "r_median", "r_weighted", "r_union_mean", "scale_mean", "jaccard", "jaccard_mean"):
        assert found.values[name] == pytest.approx(1, abs=1e-12), name
    for name in ("survived_share", "survived_weighted", "top_overlap", "atom_cosine", "same_latent_share"):
        assert found.values[name] == 1, name
    for name in (
        "damaged_share",
        "lost_share",
        "left_share",
        "entered_share",
        "l0_gap",
        "fvu_gap",
        "output_mse",
    ):
        assert found.values[name] == 0, name
    for name in ("survived_share", "jaccard"):
        assert found.uncertainty[name] == pytest.approx(0, abs=1e-12), name
        assert cast(float, found.chance[name]) < 0.7, name


def test_what_became_of_four_latents() -> None:
    """The first is twice as large in activation and norm, the second is the same, the third is lost, the
    fourth reads another axis."""
    found = result(CODER, TWIN)
    r, scale = found.per_latent["r"], found.per_latent["scale"]
    assert r[:2].tolist() == pytest.approx([1, 1])
    assert scale[:3].tolist() == pytest.approx([2, 1, 0])
    assert found.per_latent["output_scale"][:3].tolist() == pytest.approx([4, 1, 0])
    assert bool(r[2].isnan())
    a, b = ((X @ coder.W[3]).relu() for coder in (TWIN, CODER))
    assert float(r[3]) == pytest.approx(float(torch.corrcoef(torch.stack([a, b]))[0, 1]), rel=1e-5)
    fired = torch.stack([a > 0, b > 0])
    assert float(found.per_latent["jaccard"][3]) == pytest.approx(
        float(fired.all(0).sum() / fired.any(0).sum())
    )
    assert (found.values["identity_jaccard"], found.values["identity_r_mean"]) == (1, 1)
    assert (found.values["lost_share"], found.values["survived_share"]) == (0.25, 0.5)
    worst = found.tables["most_damaged"].rows
    assert [row[:2] for row in worst[:2]] == [[2, "lost"], [3, "damaged"]]
    assert {row[0]: row[2] for row in worst if row[0] < 2} == {0: 0, 1: 1}
    # differences of atoms: (1, 0, 0), 0, (0, 0, -1), (0, -1, 1) at the twin's codes
    f = (X @ TWIN.W.T).relu()
    moved = f @ (CODER.W - TWIN.W)
    assert found.values["output_mse"] == pytest.approx(float(moved.square().sum(1).mean()), rel=1e-6)
    alone = f.square() @ torch.tensor([1.0, 0, 1, 2])
    assert found.baseline["output_mse"] == pytest.approx(float(alone.mean()), rel=1e-6)
    errors = [float((X - (X @ c.W.T).relu() @ c.W).square().sum()) for c in (TWIN, CODER)]
    variance = float((X - X.mean(0)).square().sum())
    assert found.values["fvu_gap"] == pytest.approx((errors[1] - errors[0]) / variance, rel=1e-5)
    assert (found.values["zero_atoms"], found.baseline["zero_atoms"]) == (1, 0)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_change_nothing(batch_size: int) -> None:
    for data in (Vectors(), Vectors(contexts=True)):
        one, other = (result(CODER, TWIN, data, size, control_tokens=300) for size in (64, batch_size))
        for key in ("values", "chance", "baseline", "uncertainty"):
            numbers, wanted = (
                {n: v for n, v in getattr(r, key).items() if v is not None} for r in (other, one)
            )
            assert numbers == pytest.approx(wanted, rel=1e-12, abs=1e-12), key
            assert getattr(other, key).keys() == getattr(one, key).keys()
        for name, column in one.per_latent.items():
            assert torch.allclose(other.per_latent[name], column, 1e-12, 1e-12, equal_nan=True), name
        assert [list(row) for row in other.tables["margins"].rows] == [
            list(r) for r in one.tables["margins"].rows
        ]


def test_special_tokens_enter_no_sum_and_are_counted() -> None:
    """One of each of 100 contexts, whatever its vector is."""
    small, large = (result(CODER, TWIN, Vectors(True, value)) for value in (0.0, 1000.0))
    assert small.values == large.values
    assert (small.values["special_tokens"], small.values["n_tokens"]) == (100, 600)


def test_controls_see_the_first_tokens_alone() -> None:
    tokens = {row[0]: row[1] for row in result(CODER, TWIN, control_tokens=300).tables["controls"].rows}
    assert tokens["the coder, all tokens"] == 700
    assert tokens["the twin again"] == tokens["as it is"] == 300
    without = result(CODER, TWIN, control_tokens=0)
    assert [row[0] for row in without.tables["controls"].rows] == [
        "the coder, all tokens",
        "by chance, all tokens",
    ]
    assert "identity_r_mean" not in without.values


def test_where_it_cannot_run() -> None:
    assert "no full-precision twin" in str(outcome(CODER, None).unavailable)
    assert "4 latents and its twin 2" in str(outcome(CODER, Rows(TWIN.W[:2])).unavailable)
    choosing = Rows(CODER.W)
    choosing.chooses_layer = True  # type: ignore[misc]
    assert "different layers for a token" in str(outcome(choosing, TWIN).unavailable)


def test_cut_offs_are_in_order() -> None:
    with pytest.raises(ValidationError, match=r"damaged below r = 0\.95 and has survived from 0\.9 on"):
        QuantizationErrorConfig(damaged=0.95)


TINY = ["--data", "synthetic", "--preset", "tiny", "--n-latents", "64", "--steps", "20", "--compare-float"]
TINY += ["--eval-tokens", "2048"]


def trained(folder: pathlib.Path, *options: str) -> tuple[Result, str]:
    """The stored result, and what the command printed."""
    more = ["--eval", "reconstruction", "--out", str(folder), "--name", "tiny"]
    printed = CliRunner().invoke(cli, ["train", *options, *TINY, *more])
    assert printed.exit_code == 0, printed.output
    run = folder / "tiny" / "synthetic" / "20"
    again = CliRunner().invoke(cli, ["evaluate", str(run), "--eval", "quantization-error"])
    assert again.exit_code == 0, again.output
    return load_result(run / "evaluations" / "quantization-error")[0], again.output


def test_a_ternary_coder_by_the_command(tmp_path: pathlib.Path) -> None:
    found, printed = trained(tmp_path, "--sae", "ternary", "--k", "8")
    for said in (
        "survived_share",
        "by chance",
        "quantization-error: most_damaged",
        "the rule keeps the 8 largest",
    ):
        assert said in printed
    values = found.values
    assert (values["identity_r_mean"], values["identity_jaccard"]) == (1, 1)
    assert 0.3 < cast(float, values["jaccard"]) < 1
    assert cast(float, values["r_mean"]) > cast(float, found.chance["r_mean"]) + 0.3
    assert values["levels_used_W_dec"] == 3
    assert (
        0 < cast(float, values["level_entropy_W_dec"]) <= cast(float, found.baseline["level_entropy_W_dec"])
    )
    assert {row[6] for row in found.tables["largest_errors"].rows} <= {"0b00", "0b01", "0b10"}
    shares = [cast(float, values[f"{name}_share"]) for name in ("survived", "blurred", "damaged", "lost")]
    assert sum(shares) == pytest.approx(1)
    assert cast(float, values["atom_cosine"]) > 0.5
    assert values["rounding_cosine"] is None  # the masters were not kept


def test_thresholds_are_fitted_to_the_twins_l0(tmp_path: pathlib.Path) -> None:
    options = ("--sae", "jumprelu", "--quantizer", "ste", "--quantizer.n-bits", "2")
    found, _ = trained(tmp_path, *options)
    rows = {row[0]: row for row in found.tables["controls"].rows}
    of_twin = float(str(rows["the twin again"][2]))
    unchanged, fitted = (
        abs(float(str(rows[name][2])) - of_twin) for name in ("the coder, all tokens", "at equal L0")
    )
    assert unchanged > 0.3
    assert fitted < 0.01 * of_twin
    assert found.values["equal_l0_jaccard"] == pytest.approx(rows["at equal L0"][3])
