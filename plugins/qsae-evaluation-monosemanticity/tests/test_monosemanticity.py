"""The evaluation ``monosemanticity``: entropies by hand, then properties, then real coders."""

from __future__ import annotations

import itertools
import math
import pathlib
import shlex
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_monosemanticity import MonosemanticityConfig
from qsae_evaluation_monosemanticity.entropy import RandomPositions, c_log_c, corrected
from qsae_evaluation_monosemanticity.evaluation import Monosemanticity, TokensOfLatents
from qsae_evaluation_monosemanticity.pair_counts import PairCounts
from qsae_evaluation_monosemanticity.scores import text_of

from qsae_cli.main import cli
from qsae_core.conformance.evaluation import contexts
from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import EvaluationContext, Observation, Result, SparseCodes, TokenBatch
from qsae_core.errors import DataError
from qsae_core.evaluation.evaluate import evaluate
from qsae_core.evaluation.stored import load_result


def entropy(counts: list[int]) -> float:
    """In bits, with the correction; written out apart from the plugin."""
    n = sum(counts)
    plain = -sum(c / n * math.log2(c / n) for c in counts if c)
    return plain + (sum(c > 0 for c in counts) - 1) / (2 * n * math.log(2))


def started(n_latents: int, **options: int) -> TokensOfLatents:
    coder: Any = SimpleNamespace(n_latents=n_latents)
    data: Any = SimpleNamespace(language_model=lambda: ToyLanguageModel(4))
    context = EvaluationContext(coder, data, list, 100, 10, "cpu")
    return Monosemanticity(MonosemanticityConfig(**options)).start(context)


def seen(fires: torch.Tensor, ids: torch.Tensor) -> Observation:
    """Tokens of one context, behind a special token with number 0."""
    with_special = torch.cat([torch.zeros(1, dtype=torch.int64), ids])[None]
    counted = torch.ones_like(with_special, dtype=torch.bool)
    counted[0, 0] = False
    tokens = TokenBatch(with_special, counted, torch.ones_like(counted))
    x = torch.zeros(len(ids), 2)
    codes = SparseCodes.from_dense(fires.float())
    return Observation(x, x, codes, torch.ones(fires.shape[1]), ids, tokens=tokens)


def found(fires: torch.Tensor, ids: torch.Tensor, size: int = 10**6, **options: int) -> Result:
    accumulator = started(fires.shape[1], **options)
    for some, their in zip(fires.split(size), ids.split(size), strict=True):
        accumulator.update(seen(some, their))
    return accumulator.result()


def text(n: int = 4000, seed: int = 0) -> torch.Tensor:
    """Tokens 1 to 20 with shares like 1, 1/2, 1/3, ..."""
    shares = 1 / torch.arange(1, 21).double()
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(shares, n, True, generator=generator) + 1


def test_one_token_random_positions_and_too_few_firings() -> None:
    """60 firings on one token: 1. On 60 random positions, many times over: 0. 10 firings: no score."""
    ids = text()
    generator = torch.Generator().manual_seed(1)
    fires = torch.zeros(len(ids), 202, dtype=torch.bool)
    fires[(ids == 3).nonzero().flatten()[:60], 0] = True
    fires[:10, 1] = True
    for j in range(2, 202):
        fires[torch.randperm(len(ids), generator=generator)[:60], j] = True
    result = found(fires, ids)
    score = result.per_latent["monosemanticity"]
    assert float(score[0]) == pytest.approx(1, abs=1e-12)
    assert float(score[1]) != float(score[1])
    random = score[2:]
    assert abs(float(random.mean())) < 3 * float(random.std()) / math.sqrt(200)
    assert float(random.std()) < 0.1
    assert result.values["n_scored"] == 201
    assert result.chance["monosemanticity"] == 0


def test_entropies_by_hand() -> None:
    """Counts 3, 1 of n = 4: .75 log2(4/3) + .25 * 2 bits, and 1 / (8 ln 2) for the second token."""
    ids = torch.tensor([1, 1, 1, 2, 2, 2])
    fires = torch.tensor([[1], [1], [1], [1], [0], [0]])
    result = found(fires, ids, min_fired=4)
    expected = 0.75 * math.log2(4 / 3) + 0.5 + 1 / (8 * math.log(2))
    assert float(result.per_latent["entropy"][0]) == pytest.approx(expected, rel=1e-12)
    # 4 of the 6 positions: 15 ways, of which 3 have one token 1, 9 two of each, 3 three
    null = (3 * entropy([1, 3]) + 9 * entropy([2, 2]) + 3 * entropy([3, 1])) / 15
    assert float(result.per_latent["entropy_null"][0]) == pytest.approx(null, rel=1e-12)
    assert result.values["monosemanticity"] == pytest.approx(1 - expected / null, rel=1e-12)
    assert result.chance["entropy"] == pytest.approx(null, rel=1e-12)
    assert [float(result.per_latent[name][0]) for name in ("fired", "distinct_tokens", "top_token")] == [
        4.0,
        2.0,
        1.0,
    ]
    assert float(result.per_latent["top_token_share"][0]) == 0.75


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_random_positions_against_every_way_to_draw_them(n: int) -> None:
    ids = [1, 1, 1, 2, 2, 3, 4]
    every = [entropy([drawn.count(v) for v in range(1, 5)]) for drawn in itertools.combinations(ids, n)]
    null = RandomPositions(torch.bincount(torch.tensor(ids))).entropy(torch.tensor([n]))
    assert float(null) == pytest.approx(sum(every) / len(every), rel=1e-12)


def test_random_positions_of_a_longer_text() -> None:
    """500 of 4000 positions, with integers: x of a token's c in C(c, x) C(4000 - c, 500 - x) ways."""
    unigram = torch.bincount(text(4000))
    ways, total, distinct = math.comb(4000, 500), 0.0, 0.0
    for c in [c for c in unigram.tolist() if c]:
        for x in range(1, min(c, 500) + 1):
            chance = float(Fraction(math.comb(c, x) * math.comb(4000 - c, 500 - x), ways))
            total += chance * x * math.log2(x)
            distinct += chance
    expected = math.log2(500) - total / 500 + (distinct - 1) / (2 * 500 * math.log(2))
    null = RandomPositions(unigram).entropy(torch.tensor([500]))
    assert float(null) == pytest.approx(expected, rel=1e-9)


def test_a_latent_that_always_fires_is_at_chance() -> None:
    """1 - H / log2 V would give it .22 here: 20 tokens that are not equally frequent."""
    ids = text()
    score = found(torch.ones(len(ids), 1), ids).values["monosemanticity"]
    assert score == pytest.approx(0, abs=1e-9)


def test_the_correction_takes_away_most_of_the_bias() -> None:
    """Entropy of 100 draws from 20 equally frequent tokens, log2 20 bits: what is missing shrinks by 10."""
    generator = torch.Generator().manual_seed(3)
    draws = [torch.bincount(torch.randint(20, (100,), generator=generator)) for _ in range(500)]
    plain, better = [], []
    for counts in draws:
        n, k = counts.sum().double(), (counts > 0).sum()
        better.append(float(corrected(n, c_log_c(counts).sum(), k)))
        plain.append(float(corrected(n, c_log_c(counts).sum(), torch.tensor(1))))
    missing = [math.log2(20) - sum(column) / len(column) for column in (plain, better)]
    assert missing[0] > 0.1
    assert abs(missing[1]) < missing[0] / 10


def test_text_of_a_single_token_has_no_score() -> None:
    result = found(torch.ones(60, 1), torch.full((60,), 5))
    assert result.values["monosemanticity"] is None
    assert result.values["n_scored"] == 0
    unigram, every = torch.tensor([0, 777]), torch.arange(2, 778)
    assert RandomPositions(unigram).entropy(every).tolist() == [0.0] * len(every)


def test_what_one_part_has_given_up_the_whole_has() -> None:
    few, many = PairCounts(4, 2), PairCounts(4, 2)
    many.add(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.tensor([1, 2] * 4))
    many.pairs()
    few.merge(many)
    assert few.counted_F.tolist() == many.counted_F.tolist()
    assert int(few.counted_F.sum()) == 1


def test_nothing_seen() -> None:
    values = started(3).result().values
    assert values == {
        "monosemanticity": None,
        "monosemanticity_weighted": None,
        "entropy": None,
        "n_scored": 0,
        "counted_fraction": 1,
        "n_tokens": 0,
    }


def test_the_table_of_tokens() -> None:
    """Latent 1 fires on token 2 thrice and on 1 once, latent 0 on all six; special tokens are not there."""
    ids = torch.tensor([1, 1, 1, 2, 2, 2])
    fires = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 1], [1, 1], [1, 1]])
    result = found(fires, ids, min_fired=4, latents_shown=1)
    table = result.tables["top_tokens"]
    assert table.columns == (
        "latent", "monosemanticity", "fired", "rank", "token", "text", "count", "share", "lift"
    )  # fmt: skip
    rows = [list(row) for row in table.rows]
    assert [row[0] for row in rows] == [1, 1]
    assert [row[2:] for row in rows] == [
        [4, 1, 2, "'w2'", 3, 0.75, 1.5],
        [4, 2, 1, "'w1'", 1, 0.25, 0.5],
    ]


def test_text_without_a_tokenizer() -> None:
    class Unreadable(ToyLanguageModel):
        def decode(self, ids: Any) -> str:
            raise DataError("the tokenizer is not known")

    assert text_of(Unreadable(4), 3) is None
    assert text_of(ToyLanguageModel(4), 3) == "'w3'"


def test_a_part_of_a_character_is_a_literal_of_bytes() -> None:
    class Bytes(ToyLanguageModel):
        def partial_bytes(self, token: int) -> bytes | None:
            return b"\xe2\x82" if token == 3 else None

    assert text_of(Bytes(4), 3) == r"b'\xe2\x82'"
    assert text_of(Bytes(4), 2) == "'w2'"


def random_fires(n: int = 400, n_latents: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    ids = text(n, seed=5)
    leaning = torch.rand(21, n_latents, generator=generator)[ids]
    return torch.rand(n, n_latents, generator=generator) < leaning * torch.linspace(0, 0.9, n_latents), ids


def columns(result: Result) -> list[float]:
    return torch.cat([column.double() for column in result.per_latent.values()]).tolist()


@pytest.mark.parametrize("max_pairs", [10**6, 100])
def test_the_batch_size_does_not_matter(max_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where pairs are more than are kept, and are counted at other moments."""
    fires, ids = random_fires()
    whole = found(fires, ids, max_pairs=max_pairs)
    for pending in (1, 300, 1 << 20):
        monkeypatch.setattr("qsae_core.measuring.key_counts.PENDING", pending)
        for size in (1, 7, 64):
            parts = found(fires, ids, size, max_pairs=max_pairs)
            assert parts.values == whole.values
            assert columns(parts) == pytest.approx(columns(whole), rel=0, abs=0, nan_ok=True)
            assert parts.tables == whole.tables


def test_pairs_beyond_what_is_kept_cost_latents_and_no_counts() -> None:
    fires, ids = random_fires()
    whole, some = found(fires, ids), found(fires, ids, max_pairs=100)
    counted = ~some.per_latent["fired"].isnan()
    assert 0 < int(counted.sum()) < 24
    assert some.values["counted_fraction"] == float(counted.double().mean())
    for name, column in some.per_latent.items():
        assert torch.equal(column[counted].nan_to_num(), whole.per_latent[name][counted].nan_to_num())
    assert int(some.per_latent["distinct_tokens"].nansum()) <= 100
    # twice as many latents would not have fitted
    assert int(whole.per_latent["distinct_tokens"].sum()) > 100
    one = PairCounts(4, 1)
    one.add(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.tensor([1, 2] * 4))
    assert one.pairs().tokens.tolist() == [1, 2]
    assert int(one.counted_F.sum()) == 1


def test_two_parts_merge_into_the_whole() -> None:
    fires, ids = random_fires()
    for max_pairs in (10**6, 100):
        first, second = (started(24, max_pairs=max_pairs) for _ in range(2))
        first.update(seen(fires[:50], ids[:50]))
        second.update(seen(fires[50:], ids[50:]))
        first.merge(second)
        whole = found(fires, ids, max_pairs=max_pairs)
        assert first.result().values == whole.values
        assert first.result().tables == whole.tables


def test_without_a_language_model_it_says_so() -> None:
    evaluations = {"it": Monosemanticity(MonosemanticityConfig())}
    reasons = {}
    for what, context in contexts():
        outcomes = evaluate(context.coder, context.data, evaluations, list, n_tokens=96, batch_size=32)
        reasons[what] = outcomes[""]["it"].unavailable
    assert reasons["data with a language model"] is None
    assert "no language model" in str(reasons["data without one"])


TRAIN = shlex.split(
    "train --steps 20 --batch-size 256 --eval-tokens 4096 --eval-every 0 --sae topk --n-latents 256 --k 8 "
    "--buffer-tokens 4096 --threads 1 --eval monosemanticity --name it"
)


def test_a_run_on_the_built_in_language_model(tmp_path: pathlib.Path) -> None:
    """Latents of an early layer go by tokens: far above chance, and below 1."""
    result = CliRunner().invoke(cli, [*TRAIN, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (place,) = tmp_path.glob("it/*/*/evaluations/monosemanticity")
    stored, about = load_result(place)
    assert about["version"] == 1
    values = {name: cast(float, value) for name, value in stored.values.items()}
    assert values["n_scored"] > 20
    assert 0.1 < values["monosemanticity"] < 1
    assert values["entropy"] < cast(float, stored.chance["entropy"])
    text_column = stored.tables["top_tokens"].columns.index("text")
    assert all(str(row[text_column])[0] in "'\"" for row in stored.tables["top_tokens"].rows)
