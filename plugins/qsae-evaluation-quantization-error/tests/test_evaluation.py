"""The evaluation as core runs it: results on small coders, batches, what is refused, the command."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError
from qsae_evaluation_quantization_error import QuantizationErrorConfig, other_seed
from qsae_evaluation_quantization_error.evaluation import QuantizationError
from torch import Tensor

from qsae_cli.main import cli
from qsae_core import CoderConfig, load
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import Batch, CoderShape, Result, SparseCodes, TokenBatch
from qsae_core.errors import ConfigError
from qsae_core.evaluation.evaluate import Outcome, evaluate
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.evaluation.stored import load_result
from qsae_core.runs import load_other_float, stored_description

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

    layer, layer_names = "0", ("0",)

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


class Halves(Rows):
    """Rows that read with one matrix and write with another."""

    def __init__(self, W_enc: Tensor, W: Tensor) -> None:
        super().__init__(W)
        self.W_enc = W_enc

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense((x @ self.W_enc.T).relu())


def test_a_latent_whose_atom_is_zeros_is_lost() -> None:
    """It is encoded as before, and adds nothing: so does one to which an allocation of bits gave none."""
    W = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    off = torch.tensor([1.0, 1, 0, 1])[:, None]
    found = result(Halves(W, W * off), TWIN)
    firings = (X @ W.T > 0).sum(0)
    assert found.per_latent["r"][[0, 1, 3]].tolist() == pytest.approx([1, 1, 1])
    assert bool(found.per_latent["r"][2].isnan())
    assert found.per_latent["firings"].tolist() == firings.tolist()
    assert found.per_latent["firings_quantized"].tolist() == (firings * off[:, 0]).tolist()
    assert found.per_latent["top_overlap"].tolist() == [1, 1, 0, 1]
    assert (found.values["lost_share"], found.values["survived_share"]) == (0.25, 0.75)
    assert found.values["left_share"] == pytest.approx(float(firings[2] / firings.sum()))
    assert found.values["l0_gap"] == pytest.approx(-float(firings[2]) / 700)
    # the other way round nothing is there that could be lost
    assert result(TWIN, Halves(W, W * off)).values["judged_latents"] == 3


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


PERMUTED = [2, 0, 3, 1]
UNALIKE = Rows(torch.tensor([[-1.0, 2, 0], [0, -1, -3], [2, 0, -1], [-1, -1, 1]]))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The result with a float coder of another seed, which is not read from a file."""

    def found(coder: Rows, other: Rows, *args: Any, **options: Any) -> Result:
        monkeypatch.setattr(other_seed, "load_other_float", lambda *_: other)
        return result(coder, TWIN, *args, other_seed="other", **options)

    return found


def test_a_twin_with_other_numbers_is_found_again(beside: Callable[..., Result]) -> None:
    """As the coder of another seed, and as the coder, which by numbers has nothing to do with the twin."""
    permuted = Rows(TWIN.W[PERMUTED])
    found = beside(permuted, permuted)
    for name in ("matched", "other_seed"):
        for value in ("r_mean", "r_median", "r_union_mean", "jaccard", "cosine"):
            assert found.values[f"{name}_{value}"] == pytest.approx(1, abs=1e-12), (name, value)
        for value in ("survived_share", "top_overlap", "returned_share"):
            assert found.values[f"{name}_{value}"] == 1, (name, value)
        assert found.values[f"{name}_damaged_share"] == found.values[f"{name}_lost_share"] == 0
        assert [PERMUTED[int(j)] for j in found.per_latent[f"{name}_latent"]] == [0, 1, 2, 3]
    assert found.values["other_seed_l0_gap"] == found.values["other_seed_fvu_gap"] == 0
    assert cast(float, found.values["r_mean"]) < 0.5
    assert cast(float, found.values["jaccard"]) < 0.6
    assert found.values["same_latent_share"] == 0


def test_scales_of_latents_say_nothing_of_a_match(beside: Callable[..., Result]) -> None:
    """f' = 2 f of latent 0, and 3 f, 5 f, f / 2 of others: r and support stay, and norms are not compared."""
    scaled = Rows(TWIN.W[PERMUTED] * torch.tensor([[3.0], [2.0], [5.0], [0.5]]))
    found = beside(CODER, scaled)
    for value in ("r_mean", "jaccard", "cosine", "survived_share", "top_overlap"):
        assert found.values[f"other_seed_{value}"] == pytest.approx(1, abs=1e-7), value
    assert found.values["other_seed_l0_gap"] == 0
    errors = [float((X - (X @ c.W.T).relu() @ c.W).square().sum()) for c in (TWIN, scaled)]
    gap = (errors[1] - errors[0]) / float((X - X.mean(0)).square().sum())
    assert found.values["other_seed_fvu_gap"] == pytest.approx(gap, rel=1e-6)


def test_another_dictionary_is_matched_as_well_as_it_can_be(beside: Callable[..., Result]) -> None:
    """Every pairing of four latents is tried; that with the largest sum of cosines gives the numbers."""
    found = beside(CODER, UNALIKE)
    unit = [torch.nn.functional.normalize(c.W.double(), dim=1) for c in (TWIN, UNALIKE)]
    cosines = unit[0] @ unit[1].T
    best = max(itertools.permutations(range(4)), key=lambda p: sum(float(cosines[j, p[j]]) for j in range(4)))
    assert found.per_latent["other_seed_latent"].tolist() == list(best)
    of_best = cosines[torch.arange(4), torch.tensor(best)]
    assert found.values["other_seed_cosine"] == pytest.approx(float(of_best.mean()), rel=1e-6)
    assert found.values["other_seed_returned_share"] == float((of_best > 0.7).double().mean())
    a, b = ((X @ c.W.T).relu().double() for c in (TWIN, UNALIKE))
    b = b[:, best]
    r = [float(torch.corrcoef(torch.stack([a[:, j], b[:, j]]))[0, 1]) for j in range(4)]
    assert found.per_latent["other_seed_r"].tolist() == pytest.approx(r, rel=1e-9)
    both, either = ((a > 0) & (b > 0)).sum(), ((a > 0) | (b > 0)).sum()
    assert found.values["other_seed_jaccard"] == pytest.approx(float(both / either), rel=1e-6)
    assert found.values["other_seed_l0_gap"] == pytest.approx(float(((b > 0).sum() - (a > 0).sum()) / 700))


def test_of_two_that_know_nothing_of_each_other_only_chance_is_left(
    beside: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random dictionary of 64 latents of width 32 in place of the other training: matched cosines are what
    random rows have, and r is near what any two latents have."""
    generator = torch.Generator().manual_seed(5)
    twin, other = (Rows(torch.randn(64, 32, generator=generator)) for _ in range(2))
    x = torch.randn(2000, 32, generator=generator)
    monkeypatch.setattr(f"{__name__}.X", x)
    monkeypatch.setattr(f"{__name__}.TWIN", twin)
    found = beside(twin, other)
    for value, tolerance in (("cosine", 0.02), ("returned_share", 0.01)):
        pair = (found.values[f"other_seed_{value}"], found.chance[f"other_seed_{value}"])
        assert pair[0] == pytest.approx(pair[1], abs=tolerance), value
    assert found.values["matched_r_mean"] == pytest.approx(1)
    # of Gaussian x, r of two rectified projections with cosine c is below c; matched ones have c near .4
    assert abs(cast(float, found.chance["other_seed_r_mean"])) < 0.05
    assert cast(float, found.values["other_seed_r_mean"]) < cast(float, found.values["other_seed_cosine"])
    assert found.values["other_seed_survived_share"] == 0


@pytest.mark.parametrize("batch_size", [1, 7, 256, 3000])
def test_batches_change_nothing_of_matched_latents(beside: Callable[..., Result], batch_size: int) -> None:
    for data in (Vectors(), Vectors(contexts=True)):
        one, other = (beside(CODER, UNALIKE, data, size, control_tokens=300) for size in (64, batch_size))
        for key in ("values", "chance", "uncertainty"):
            numbers, wanted = (
                {
                    n: v
                    for n, v in getattr(r, key).items()
                    if v is not None and n.startswith(("other", "match"))
                }
                for r in (other, one)
            )
            assert len(wanted) > 20 or key == "uncertainty"  # blocks of 64 tokens fill less than ten groups
            assert numbers == pytest.approx(wanted, rel=1e-12, abs=1e-12), key
        for name in ("other_seed_r", "matched_r", "other_seed_cosine"):
            assert torch.allclose(other.per_latent[name], one.per_latent[name], 1e-12, 1e-12, equal_nan=True)
        assert [list(row) for row in other.tables["controls"].rows] == [
            list(row) for row in one.tables["controls"].rows
        ]


def test_matched_latents_are_a_row_of_the_controls(beside: Callable[..., Result]) -> None:
    rows = {row[0]: row for row in beside(CODER, UNALIKE, control_tokens=300).tables["controls"].rows}
    for name in ("the coder, matched", "another seed, matched"):
        assert rows[name][1] == 300
        assert rows[name][-1] == "latents matched one to one by cosine (exact)"
    without = {row[0]: row for row in result(CODER, TWIN).tables["controls"].rows}
    assert without["another seed, matched"][1:3] == [None, None]
    assert "--baseline other-seed trains one" in str(without["another seed, matched"][-1])
    assert "the coder, matched" not in without


def test_latents_without_a_direction_have_no_cosine(beside: Callable[..., Result]) -> None:
    """The coder's third atom is zero, so that it is beside the twin's one that is left, without a cosine; the
    numbers of pairs take it in (it never fires, and is lost)."""
    found = beside(CODER, UNALIKE)
    assert found.per_latent["matched_cosine"].isnan().sum() == 1
    (left,) = found.per_latent["matched_cosine"].isnan().nonzero()[:, 0].tolist()
    assert found.per_latent["matched_latent"][left] == 2
    assert found.values["matched_lost_share"] == 0.25


def test_what_is_no_coder_of_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    for other, fault in ((TWIN, "is the twin itself"), (Rows(TWIN.W[:2]), "has 2 latents, the twin 4")):
        monkeypatch.setattr(other_seed, "load_other_float", lambda *_, found=other: found)
        with pytest.raises(ConfigError, match=f"the coder at elsewhere {fault}"):
            outcome(CODER, TWIN, other_seed="elsewhere")
    with pytest.raises(ValidationError, match="leaves all of them out"):
        QuantizationErrorConfig(other_seed="elsewhere", control_tokens=0)


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
        "most_damaged, 3 of",
    ):
        assert said in printed
    run = next(tmp_path.glob("tiny/*/*"))
    place, coder = str(run / "checkpoints" / "final"), load(run)
    data = ToyData(coder.shape)
    data.layer = stored_description(run / "checkpoints" / "final")["source"]["layer"]
    assert load_other_float(place, coder, data, "here").n_latents == 64
    data.layer = "7"
    with pytest.raises(ConfigError, match="is of layer synthetic, and this one of layer 7"):
        load_other_float(place, coder, data, "here")
    cells = [cell for row in found.tables["controls"].rows for cell in row]
    assert any("the rule keeps the 8 largest" in str(cell) for cell in cells)
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


def test_another_training_by_the_command(tmp_path: pathlib.Path) -> None:
    """Of a run with a coder for each layer: each is beside the same layer's of another seed."""
    folder = tmp_path / "tiny" / "synthetic" / "20"
    layers = ["--sae", "ternary", "--k", "8", "--data.layers", "2", "--per-layer"]
    more = ["--eval", "reconstruction", "--out", str(tmp_path), "--name", "tiny"]
    for line in (
        ["train", *layers, *TINY, *more],
        ["evaluate", str(folder), "--eval", "reconstruction", "--baseline", "other-seed"],
        [
            *("evaluate", str(folder), "--eval", "quantization-error"),
            "--eval.quantization-error.other-seed",
            str(folder / "baselines" / "other-seed" / "synthetic" / "20"),
        ],
    ):
        printed = CliRunner().invoke(cli, line)
        assert printed.exit_code == 0, printed.output
    for layer in ("0", "1"):
        values = load_result(folder / "evaluations" / "layers" / layer / "quantization-error")[0].values
        matched, other = (cast(float, values[f"{name}_r_mean"]) for name in ("matched", "other_seed"))
        assert 0.1 < other < matched
        assert matched == pytest.approx(values["r_mean"], abs=0.05)
