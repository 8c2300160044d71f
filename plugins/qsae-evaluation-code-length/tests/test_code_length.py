"""Code lengths by hand, against the metric ``rate``, and in parts."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from qsae_evaluation_code_length import CodeLengthConfig
from qsae_evaluation_code_length.evaluation import CodeLength, Counted
from qsae_evaluation_code_length.lengths import standard_error
from qsae_metrics import RateConfig
from qsae_metrics.rate import Rate
from torch import Tensor

from qsae_core.contracts import Observation, Result, SparseCodes


def observation(dense: Tensor, levels: bool = False, first: int | None = None) -> Observation:
    """Codes of ``[B, F]`` values; with ``levels``, the values are levels."""
    codes = SparseCodes.from_dense(dense.float())
    x = torch.zeros(codes.batch_size, 2)
    stored = codes.values.abs().to(torch.uint8) if levels else None
    return Observation(x, x, codes, torch.ones(codes.n_latents), levels=stored, first=first)


def counted(*observations: Observation, dictionary: Tensor | None = None, **options: Any) -> Counted:
    accumulator = Counted(CodeLengthConfig(**{"block": 1, "groups": 2} | options), dictionary)
    for each in observations:
        accumulator.update(each)
    return accumulator


def alternating(*pairs: tuple[list[int], list[int]]) -> Tensor:
    """Tokens in the order fitted, scored, fitted, scored, ..."""
    return torch.tensor([row for pair in pairs for row in pair])


def same(a: Result, b: Result) -> None:
    for kind in ("values", "baseline", "uncertainty"):
        found, wanted = getattr(a, kind), getattr(b, kind)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            near = value if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)
            assert found[name] == near, f"{kind} of {name}"
    for name, column in a.per_latent.items():
        torch.testing.assert_close(column, b.per_latent[name], rtol=1e-12, atol=1e-12, equal_nan=True)
    for name, table in a.tables.items():
        assert [row[0] for row in table.rows] == [row[0] for row in b.tables[name].rows]


def test_a_latent_that_is_active_half_the_time_costs_one_bit() -> None:
    """Active on 4 of 8 fitted tokens: p = (4 + 1/2) / (8 + 1) = 1/2; the other one on none: p = 1/18."""
    fitted = [[1, 0], [0, 0]] * 4
    scored = [[1, 0], [1, 0], [1, 0], *[[0, 0]] * 5]
    found = counted(observation(alternating(*zip(fitted, scored, strict=True)))).result()
    silent = -math.log2(17 / 18)
    assert found.per_latent["bits_support"].tolist() == pytest.approx([1, silent])
    # 3 active entries in 8 scored tokens, and nothing quantizes them: 32 bits each
    assert found.per_latent["bits_values"].tolist() == [12, 0]
    assert found.per_latent["density"].tolist() == [3 / 8, 0]
    assert found.per_latent["bits_per_firing"][0] == pytest.approx(13 * 8 / 3)
    assert found.per_latent["bits_per_firing"][1].isnan()
    assert found.values["bits_per_token"] == pytest.approx(13 + silent)
    assert found.values["half_share"] == 1 / 2
    # the uniform code: p = (4 + 1/2) / (8 * 2 + 1) for both; 3 of 16 are on
    p = 4.5 / 17
    assert found.baseline["bits_support"] == pytest.approx(-(3 * math.log2(p) + 13 * math.log2(1 - p)) / 8)
    assert found.baseline["bits_values"] == 12


def random_levels(n_tokens: int = 500, n_latents: int = 12) -> Tensor:
    """Latents that fire more and less often, with levels from 1 to 9, some of them of negative values."""
    generator = torch.Generator().manual_seed(3)
    p = torch.linspace(0, 0.6, n_latents)
    fires = torch.rand(n_tokens, n_latents, generator=generator) < p
    levels = torch.randint(1, 10, fires.shape, generator=generator)
    signs = torch.randint(0, 2, fires.shape, generator=generator) * 2 - 1
    return fires * levels * signs


@pytest.mark.parametrize("levels", [False, True])
def test_sums_over_latents_are_the_totals_of_rate(levels: bool) -> None:
    dense = random_levels()
    metric = Rate(RateConfig(block=16))
    metric.update(observation(dense, levels))
    total = metric.compute()
    found = counted(observation(dense, levels), block=16, groups=5).result()
    for name in ("bits_support", "bits_values", "bits_per_token"):
        assert found.values[name] == pytest.approx(total[name], rel=1e-12)
    columns = {"bits_support": "bits_support", "bits_values": "bits_values", "bits": "bits_per_token"}
    for column, name in columns.items():
        assert float(found.per_latent[column].sum()) == pytest.approx(total[name], rel=1e-12)


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_does_not_matter(levels: bool, size: int) -> None:
    dense = random_levels(300)
    whole = counted(observation(dense, levels), block=16, groups=3).result()
    parts = counted(*(observation(part, levels) for part in dense.split(size)), block=16, groups=3)
    same(parts.result(), whole)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_parts_merge_into_the_whole(order: tuple[int, int]) -> None:
    """The second part alone has high levels, so the counts of the first have to make room for them."""
    dense = torch.cat([random_levels(100), random_levels(100) * 20])
    whole = counted(observation(dense, True), block=8).result()
    halves = [
        counted(observation(part, True, first), block=8)
        for part, first in ((dense[:77], 0), (dense[77:], 77))
    ]
    one, other = (halves[i] for i in order)
    one.merge(other)
    one.merge(counted(block=8))
    same(one.result(), whole)
    nothing = counted(block=8)
    nothing.merge(one)
    same(nothing.result(), whole)


def test_levels_that_tell_nothing_cost_what_the_uniform_code_does() -> None:
    """Eight levels, each as often as the others: 3 bits a value; and no latent fires more than another."""
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(1, 9, (40_000, 2), generator=generator)
    found = counted(observation(levels, True)).result()
    assert found.baseline["bits_values"] == 2 * 3
    assert found.values["bits_values"] == pytest.approx(6, abs=0.01)
    assert found.per_latent["bits_values"].tolist() == pytest.approx([3, 3], abs=0.01)


def test_a_code_that_knows_its_latents_is_shorter_than_the_uniform_one() -> None:
    found = counted(observation(random_levels(20_000)), block=16).result()
    p = torch.linspace(0, 0.6, 12)[1:].double()
    entropy = -float((p * p.log2() + (1 - p) * (1 - p).log2()).sum())
    assert found.values["bits_support"] == pytest.approx(entropy, rel=0.02)
    mean = float(torch.linspace(0, 0.6, 12).mean())
    uniform = -12 * (mean * math.log2(mean) + (1 - mean) * math.log2(1 - mean))
    assert found.baseline["bits_support"] == pytest.approx(uniform, rel=0.02)
    assert uniform > 1.1 * entropy


def test_dictionary_bits_stand_beside_and_may_be_spread() -> None:
    """Two rows of 100 and 60 bits; 8 + 8 tokens are measured."""
    seen = observation(alternating(*[([1, 0], [1, 0])] * 8))
    rows = torch.tensor([100.0, 60.0], dtype=torch.float64)
    apart = counted(seen, dictionary=rows).result().values
    assert apart["bits_dictionary"] == 160
    assert apart["bits_per_token_amortized"] == pytest.approx(apart["bits_per_token"] + 10)
    assert apart["bits_total"] == apart["bits_per_token"]
    amortized = Counted(CodeLengthConfig(block=1, dictionary="amortized", amortize_over=32), rows)
    amortized.update(seen)
    values = amortized.result().values
    assert values["bits_total"] == pytest.approx(apart["bits_per_token"] + 5)
    assert values["bits_per_token"] == apart["bits_per_token"]
    unknown = counted(seen).result()
    assert unknown.values["bits_dictionary"] is None
    assert unknown.values["bits_per_token_amortized"] is None
    assert "bits_dictionary" not in unknown.per_latent


def test_the_costliest_come_first() -> None:
    found = counted(observation(random_levels(), True), block=16, rows=3).result()
    table, bits = found.tables["costliest"], found.per_latent["bits"]
    assert table.columns[:2] == ("latent", "bits")
    assert [row[0] for row in table.rows] == bits.topk(3).indices.tolist()
    assert table.rows[1][-1] == pytest.approx(float(bits.topk(2).values.sum() / bits.sum()))
    assert len(counted(observation(random_levels()), rows=99).result().tables["costliest"].rows) == 12


def test_the_standard_error_by_hand() -> None:
    """Groups of 2 and 6 tokens with means 3 and 1: m = 12 / 8; deviations (2/8) 1.5 and (6/8) (-1/2)."""
    error = standard_error(torch.tensor([6.0, 6.0]), torch.tensor([2, 6]))
    assert error == pytest.approx(math.sqrt(2 * (0.375**2 + 0.375**2)))
    assert standard_error(torch.tensor([6.0, 0.0]), torch.tensor([2, 0])) is None


def test_the_standard_error_is_about_how_much_streams_differ() -> None:
    """64 streams of 32 blocks of 8 tokens from one distribution."""
    generator = torch.Generator().manual_seed(5)
    p = torch.linspace(0.05, 0.5, 6)
    found = [
        counted(observation(torch.rand(512, 6, generator=generator) < p), block=8, groups=16).result()
        for _ in range(64)
    ]
    means = torch.tensor([each.values["bits_per_token"] for each in found])
    errors = torch.tensor([each.uncertainty["bits_per_token"] for each in found])
    assert 0.6 < float(errors.mean() / means.std()) < 1.5


def test_a_stream_of_one_block_has_no_length() -> None:
    found = counted(observation(torch.ones(8, 2)), block=8).result()
    assert {v for n, v in found.values.items() if n not in ("n_fitted", "n_scored")} == {None}
    assert (found.values["n_fitted"], found.values["n_scored"]) == (8, 0)
    assert counted().result().values["bits_per_token"] is None


def test_it_says_why_it_is_not_available() -> None:
    evaluation = CodeLength(CodeLengthConfig(block=64))
    context = cast(Any, SimpleNamespace(n_tokens=64))
    assert "64 tokens are no more than the one block" in str(evaluation.unavailable(context))
    assert evaluation.unavailable(cast(Any, SimpleNamespace(n_tokens=65))) is None


def test_a_stream_is_of_one_kind() -> None:
    with pytest.raises(ValueError, match="3 latents after codes of 2"):
        counted(observation(torch.ones(2, 2)), observation(torch.ones(2, 3)))
    with pytest.raises(ValueError, match="in some batches and not in others"):
        counted(observation(torch.ones(2, 2)), observation(torch.ones(2, 2), True))
