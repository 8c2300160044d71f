"""The evaluation ``sparsity``: small codes by hand, then properties, then real coders."""

from __future__ import annotations

import json
import math
import pathlib
import shlex
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_sparsity import SparsityEvaluationConfig
from qsae_evaluation_sparsity.evaluation import Counted, SparsityEvaluation

from qsae_cli.main import cli
from qsae_core import CoderConfig
from qsae_core.conformance.evaluation import contexts
from qsae_core.contracts import EvaluationContext, Observation, Origin, Result, SparseCodes
from qsae_core.evaluation.evaluate import evaluate
from qsae_core.evaluation.stored import load_result


class Nested(CoderConfig):
    """Two groups: the first latent, and the others."""

    def prefixes(self) -> tuple[int, ...]:
        return (1, self.n_latents)


def context(n_latents: int, config: CoderConfig | None = None) -> EvaluationContext:
    coder = SimpleNamespace(
        n_latents=n_latents,
        config=config or CoderConfig(n_latents=n_latents),
        shape=SimpleNamespace(layers_out=1),
        by_layer=lambda: (),
    )
    data: Any = SimpleNamespace(layer_names=("0",))
    return EvaluationContext(cast(Any, coder), data, list, 100, 10, "cpu")


def seen(latents: torch.Tensor, norms: torch.Tensor | None = None, first_context: int = 0) -> Observation:
    """One context for each token."""
    n = len(latents)
    zeros = torch.zeros(n, dtype=torch.int64)
    origin = Origin(zeros, torch.arange(n) + first_context, zeros)
    x = torch.zeros(n, 2)
    norms = torch.ones(latents.shape[1]) if norms is None else norms
    return Observation(x, x, SparseCodes.from_dense(latents), norms, origin=origin)


def counted(n_latents: int, config: CoderConfig | None = None, **options: float) -> Counted:
    return SparsityEvaluation(SparsityEvaluationConfig(**options)).start(context(n_latents, config))


def found(batches: Sequence[torch.Tensor], config: CoderConfig | None = None, **options: float) -> Result:
    accumulator, n = counted(batches[0].shape[1], config, **options), 0
    for batch in batches:
        accumulator.update(seen(batch, first_context=n))
        n += len(batch)
    return accumulator.result()


def test_a_signed_code() -> None:
    """[-1, 0, 2]: two latents fire, the first on every token, and L1 is 1 + 2 for atoms of unit norm."""
    result = found([torch.tensor([[-1.0, 0.0, 2.0]])])
    assert result.values["l0"] == 2
    assert result.values["l1"] == 3
    assert result.per_latent["density"].tolist() == [1, 0, 1]
    assert result.per_latent["mean_active"][0] == 1
    assert result.values["dead_fraction"] == pytest.approx(1 / 3)


FOUR = torch.tensor([[1.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
"""Latent 0 fires 3 times of 4, latent 1 once, latent 2 never. L0: 1, 2, 0, 1."""


def test_four_tokens_by_hand() -> None:
    result = found([FOUR])
    assert result.values["n_tokens"] == 4
    assert result.values["l0"] == 1
    assert result.values["l0_std"] == pytest.approx(math.sqrt((0 + 1 + 1 + 0) / 4))
    assert result.values["l1"] == (1 + 7 + 0 + 2) / 4
    assert result.values["density_over_1pct"] == pytest.approx(2 / 3)
    assert result.values["normalized_density_over_10pct"] == 1
    assert result.values["max_activation"] == 4
    # p = 1/3: sqrt(3 * 1/3 * 2/3), and (2/3)^4
    assert result.chance["l0_std"] == pytest.approx(math.sqrt(2 / 3))
    assert result.chance["dead_fraction"] == pytest.approx(16 / 81)
    # each token a context: sqrt(C / (C - 1)) * std / sqrt(C) = std / sqrt(3)
    assert result.uncertainty["l0"] == pytest.approx(math.sqrt(0.5 / 3))
    columns = result.per_latent
    assert columns["fired"].tolist() == [3, 1, 0]
    assert columns["density"].tolist() == [0.75, 0.25, 0]
    assert columns["mean_active"].tolist()[:2] == [2, 4]
    assert columns["max_activation"].tolist()[:2] == [3, 4]
    assert columns["mean_active"][2].isnan()
    assert columns["max_activation"][2].isnan()


def test_dense_and_rare_latents() -> None:
    """Over 200 tokens: densities .5, .1 (not above 10%), .005; of the sum .605 the first has .5."""
    latents = torch.zeros(200, 3)
    latents[:100, 0] = latents[:20, 1] = latents[:1, 2] = 1.0
    values = found([latents]).values
    assert values["density_over_1pct"] == pytest.approx(2 / 3)
    assert values["density_over_10pct"] == pytest.approx(1 / 3)
    assert values["normalized_density_over_1pct"] == pytest.approx(0.6 / 0.605)
    assert values["normalized_density_over_10pct"] == pytest.approx(0.5 / 0.605)


def test_histogram_of_log10_density() -> None:
    """Densities 1, .1, .05, 0 in bins of a half: 0 and -1 begin a bin, -1.3 is in [-1.5, -1)."""
    latents = torch.zeros(20, 4)
    latents[:, 0] = latents[:2, 1] = latents[:1, 2] = 1.0
    table = found([latents], bin_width=0.5).tables["density"]
    assert table.columns == ("log10_density_from", "log10_density_to", "latents", "share")
    assert list(table.rows) == [
        (None, None, 1, 0.25),
        (-1.5, -1.0, 1, 0.25),
        (-1.0, -0.5, 1, 0.25),
        (-0.5, 0.0, 1, 0.25),
    ]


def test_deciles() -> None:
    """Ten tokens with L0 0..9: a tenth of them has 0, half at most 4. Eleven latents: densities evenly."""
    latents = torch.zeros(10, 9)
    for token in range(10):
        latents[token, :token] = 1.0
    table = found([latents]).tables["deciles"]
    assert table.columns == ("share_below", "l0", "density", "mean_active", "max_activation")
    assert [row[1] for row in table.rows] == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    # latent j fires on 9 - j tokens: .1 to .9, so the median is .5 and the first decile .1 + .8 / 10
    assert [table.rows[i][2] for i in (0, 1, 5, 10)] == pytest.approx([0.1, 0.18, 0.5, 0.9])


def test_groups_of_a_nested_coder() -> None:
    table = found([FOUR], Nested(n_latents=3)).tables["groups"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(r["group"], r["first_latent"], r["latents"]) for r in rows] == [(1, 0, 1), (2, 1, 2)]
    assert [r["l0"] for r in rows] == [0.75, 0.25]
    assert [r["l0_std"] for r in rows] == pytest.approx([math.sqrt(3 / 16)] * 2)
    assert [r["l1"] for r in rows] == [6 / 4, 4 / 4]
    assert [r["dead_fraction"] for r in rows] == [0, 0.5]


def test_norms_of_atoms_of_several_layers_are_joint() -> None:
    accumulator = counted(2)
    accumulator.update(seen(torch.tensor([[2.0, 0.0]]), norms=torch.tensor([[3.0, 4.0], [1.0, 1.0]])))
    assert accumulator.result().values["l1"] == 10


def test_tokens_of_a_context_hang_together() -> None:
    """L0 of 1, 1 | 3, 3: m = 2, sums 2 and 6 about 4: error^2 = 2/1 * (4 + 4) / 16 = 1; as if independent
    it would be 4/3 * 4 / 16 = 1/3."""
    codes = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]])
    unknown, place = torch.full((4,), -1), torch.tensor([0, 1, 0, 1])
    origin = Origin(unknown, torch.tensor([5, 5, 8, 8]), place)
    clustered, independent = counted(3), counted(3)
    clustered.update(seen(codes)._replace(origin=origin))
    independent.update(seen(codes)._replace(origin=None))
    assert clustered.result().uncertainty["l0"] == pytest.approx(1)
    assert independent.result().uncertainty["l0"] == pytest.approx(math.sqrt(1 / 3))
    few = counted(3)
    few.update(seen(codes)._replace(origin=Origin(unknown, torch.full((4,), 5), place)))
    assert few.result().uncertainty["l0"] is None


def test_nothing_seen_and_nothing_firing() -> None:
    values = counted(3).result().values
    assert values.pop("n_tokens") == 0
    assert set(values.values()) == {None}
    silent = found([torch.zeros(4, 3)])
    assert silent.values["l0"] == 0
    assert silent.values["dead_fraction"] == 1
    assert silent.values["normalized_density_over_1pct"] is None
    assert list(silent.tables["density"].rows) == [(None, None, 3, 1.0)]


def test_what_is_not_finite_is_not_defined() -> None:
    values = found([torch.tensor([[math.nan, 1.0], [0.0, 1.0]])]).values
    assert values["l0"] == 1.5
    assert values["l1"] is None
    assert values["max_activation"] is None


def numbers(result: Result) -> list[float]:
    cells = [cell for table in result.tables.values() for row in table.rows for cell in row]
    flat = [*result.values.values(), *result.uncertainty.values(), *result.chance.values(), *cells]
    columns = torch.cat([column.double() for column in result.per_latent.values()]).tolist()
    return [math.nan if value is None else cast(float, value) for value in [*flat, *columns]]


def random_codes(n: int = 130, n_latents: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(n, n_latents, generator=generator)
    return values * (torch.rand(n, n_latents, generator=generator) < torch.linspace(0, 0.9, n_latents))


def test_the_batch_size_does_not_matter() -> None:
    latents = random_codes()
    whole = numbers(found([latents], Nested(n_latents=12)))
    for size in (1, 7, 64):
        parts = numbers(found(latents.split(size), Nested(n_latents=12)))
        assert parts == pytest.approx(whole, rel=1e-12, abs=1e-12, nan_ok=True)


def test_two_parts_merge_into_the_whole() -> None:
    latents = random_codes()
    first, second = counted(12), counted(12)
    first.update(seen(latents[:50]))
    second.update(seen(latents[50:], first_context=50))
    first.merge(second)
    assert numbers(first.result()) == pytest.approx(numbers(found([latents])), rel=1e-12, nan_ok=True)
    empty = counted(12)
    empty.merge(first)
    assert numbers(empty.result()) == pytest.approx(numbers(first.result()), rel=0, abs=0, nan_ok=True)


def test_layers_of_a_set_of_coders() -> None:
    """Two TopK coders of 32 latents, 4 of which fire: together, and each alone, over the same tokens."""
    what, whole = list(contexts())[2]
    assert what == "a coder for each of two layers"
    evaluations = {"sparsity": SparsityEvaluation(SparsityEvaluationConfig())}
    outcomes = evaluate(whole.coder, whole.data, evaluations, list, n_tokens=96, batch_size=32)
    results = {layer: cast(Result, of_layer["sparsity"].result) for layer, of_layer in outcomes.items()}
    table = results[""].tables["layers"]
    assert table.columns[:3] == ("layer", "first_latent", "latents")
    assert [tuple(row[:3]) for row in table.rows] == [(0, 0, 32), (1, 32, 32)]
    for row in table.rows:
        alone = results[str(row[0])].values
        in_the_set = dict(zip(table.columns[3:], row[3:], strict=True))
        assert in_the_set == pytest.approx({name: alone[name] for name in in_the_set}, rel=1e-12)
        assert "layers" not in results[str(row[0])].tables


def test_special_tokens_enter_no_sum_and_are_counted() -> None:
    """Contexts of 9 that begin with a special token: 96 tokens and 12 special ones; the sums are those of the
    codes of the 96 alone."""
    what, context = next(contexts())
    assert what == "data with a language model"
    evaluations = {"sparsity": SparsityEvaluation(SparsityEvaluationConfig())}
    outcomes = evaluate(context.coder, context.data, evaluations, list, n_tokens=96, batch_size=32)
    result = cast(Result, outcomes[""]["sparsity"].result)
    assert (result.values["n_tokens"], result.values["n_left_out"]) == (96, 12)
    pieces = list(context.data.held_out_contexts(96, 32))
    assert sum(tokens.ids.numel() for tokens, _ in pieces) == 108
    codes = context.coder.encode(torch.cat([tokens_and_batch[1].x for tokens_and_batch in pieces]))
    assert result.per_latent["fired"].tolist() == codes.fired().tolist()
    l1 = (codes.detach().to_dense().abs() * context.coder.atom_norms().detach()).sum(1).mean()
    assert result.values["l1"] == pytest.approx(float(l1), rel=1e-5)


TRAIN = shlex.split(
    "train --data synthetic --preset tiny --steps 20 --batch-size 128 --eval-tokens 512 --eval-every 0 "
    "--statistics-tokens 512 --threads 1 --eval sparsity --name it"
)


def trained(folder: pathlib.Path, *arguments: str) -> tuple[pathlib.Path, Result]:
    result = CliRunner().invoke(cli, [*TRAIN, *arguments, "--out", str(folder)])
    assert result.exit_code == 0, result.output
    (place,) = folder.glob("it/*/*/evaluations/sparsity")
    return place.parent, load_result(place)[0]


def test_a_run(tmp_path: pathlib.Path) -> None:
    """A TopK SAE: exactly k latents fire, but where fewer are positive."""
    place, result = trained(tmp_path, "--sae", "topk", "--n-latents", "64", "--k", "4")
    assert 3 < cast(float, result.values["l0"]) <= 4
    assert float(result.per_latent["density"].sum()) == pytest.approx(cast(float, result.values["l0"]))
    record = json.loads((place / "sparsity" / "result.json").read_text())
    assert (record["version"], record["options"]) == (1, {"bin_width": 0.25})


def test_a_run_of_a_nested_coder(tmp_path: pathlib.Path) -> None:
    _, result = trained(tmp_path, "--sae", "matryoshka", "--n-latents", "64", "--k", "4")
    table = result.tables["groups"]
    l0, latents = (table.columns.index(name) for name in ("l0", "latents"))
    assert sum(cast(int, row[latents]) for row in table.rows) == 64
    total = sum(cast(float, row[l0]) for row in table.rows)
    assert total == pytest.approx(cast(float, result.values["l0"]))
