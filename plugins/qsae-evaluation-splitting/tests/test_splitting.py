"""The evaluation ``splitting``: families and duplicates by hand, then properties, then real coders."""

from __future__ import annotations

import itertools
import math
import pathlib
import shlex
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_splitting import SplittingConfig
from qsae_evaluation_splitting.evaluation import PairsPass, Splitting
from qsae_evaluation_splitting.families import children
from qsae_evaluation_splitting.pair_counts import PairCounts, Together
from torch import Tensor

from qsae_cli.main import cli
from qsae_core import CoderConfig
from qsae_core.conformance.evaluation import contexts
from qsae_core.contracts import Accumulator, EvaluationContext, Observation, Result, SparseCodes
from qsae_core.evaluation.evaluate import evaluate
from qsae_core.evaluation.stored import load_result
from qsae_core.measuring import pairs_of_tokens

N = 1000


class Nested(CoderConfig):
    """Two groups: the first latent, and the others."""

    def prefixes(self) -> tuple[int, ...]:
        return (1, self.n_latents)


def started(atoms: Tensor, nested: bool = False, **options: float) -> PairsPass:
    n = len(atoms)
    coder: Any = SimpleNamespace(
        n_latents=n,
        config=Nested(n_latents=n) if nested else CoderConfig(n_latents=n),
        atoms=lambda: atoms,
        by_layer=lambda: (),
    )
    context = EvaluationContext(coder, cast(Any, None), list, 10**6, 10, "cpu")
    return Splitting(SplittingConfig(**cast(Any, options))).start(context)


def seen(fires: Tensor) -> Observation:
    x = torch.zeros(len(fires), 2)
    return Observation(x, x, SparseCodes.from_dense(fires.float()), torch.ones(fires.shape[1]))


def found(
    fires: Tensor, atoms: Tensor | None = None, size: int = 10**6, nested: bool = False, **options: float
) -> Result:
    """What both passes find, in batches of ``size`` tokens."""
    atoms = torch.eye(fires.shape[1]) if atoms is None else atoms
    going: Accumulator | None = started(atoms, nested, **options)
    while going is not None:
        last = going
        for batch in fires.split(size):
            going.update(seen(batch))
        going = going.next_pass()
    return last.result()


def firing(*where: Sequence[int], n: int = N) -> Tensor:
    """Bool ``[n, latents]``: each fires on the given tokens."""
    fires = torch.zeros(n, len(where), dtype=torch.bool)
    for latent, tokens in enumerate(where):
        fires[list(tokens), latent] = True
    return fires


HALVES = firing(range(100), range(50), range(50, 100))
"""A parent, and two children that have a half of its firings each."""


def test_two_children_that_share_out_their_parent() -> None:
    for nested in (False, True):
        result = found(HALVES, nested=nested)
        columns = {name: column.tolist() for name, column in result.per_latent.items()}
        assert columns["coverage"][0] == 1
        assert columns["exclusivity"][0] == 1
        assert columns["children"][0] == 2
        assert columns["split"][0] == 1
        assert result.values["n_split"] == 1
        assert result.values["duplicate_pairs"] == 0
        # by chance any of two that fire on 5% each: 1 - .95^2; Jaccard index .0025 / (.1 - .0025)
        assert result.chance["coverage"] == pytest.approx(1 - 0.95**2, rel=1e-12)
        assert result.chance["exclusivity"] == pytest.approx(1 - 0.0025 / 0.0975, rel=1e-12)
        rows = list(result.tables["splits"].rows)
        assert rows == [(0, 100, 2, 1.0, 1.0, 1, 50, 1.0, 0.0), (0, 100, 2, 1.0, 1.0, 2, 50, 1.0, 0.0)]


def test_shares_of_parents() -> None:
    """Of three latents that fire often enough, one is split. The last group is not asked."""
    flat, nested = found(HALVES), found(HALVES, nested=True)
    assert flat.values["n_parents"] == 3
    assert flat.values["split_fraction"] == pytest.approx(1 / 3)
    assert flat.uncertainty["split_fraction"] == pytest.approx(math.sqrt(2 / 9 / 3))
    assert nested.values["split_fraction"] == 1
    assert nested.per_latent["children"].tolist()[0] == 2
    assert nested.per_latent["children"][1:].isnan().all()
    assert nested.tables["groups"].columns[0] == "group"
    assert list(nested.tables["groups"].rows) == [(1, 1, 1, 1, 1, 1.0)]
    assert "groups" not in flat.tables


def test_copies_are_duplicates_and_no_split() -> None:
    """Three copies: each has two children with coverage 1 and exclusivity 0. Two: each has one child."""
    same = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    two = found(firing(range(100), range(100), range(500, 600)), same)
    assert two.values["n_split"] == 0
    assert two.values["n_families"] == 0
    assert two.values["duplicate_pairs"] == 1
    assert two.values["duplicate_fraction"] == pytest.approx(2 / 3)
    assert two.per_latent["duplicates"].tolist() == [1, 1, 0]
    assert list(two.tables["duplicates"].rows) == [(0, 1, 100, 100, 1.0, 1.0)]
    three = found(firing(range(100), range(100), range(100)), torch.ones(3, 2))
    assert three.per_latent["coverage"].tolist() == [1, 1, 1]
    assert three.per_latent["exclusivity"].tolist() == [0, 0, 0]
    assert three.values["n_split"] == 0
    assert three.values["duplicate_pairs"] == 3


@pytest.mark.parametrize(
    ("second", "atom", "pairs"),
    [
        (range(50, 150), [1.0, 0.0], 0),  # together on 50 of 150: 1/3
        (range(30, 130), [1.0, 0.0], 1),  # on 70 of 130: .54
        (range(30, 130), [9.0, 4.0], 1),  # cosine 9 / sqrt 97 = .914
        (range(30, 130), [9.0, 5.0], 0),  # 9 / sqrt 106 = .874
        (range(30, 130), [-1.0, 0.0], 0),
        (range(30, 130), [0.0, 0.0], 0),
    ],
)
def test_duplicates_fire_together_and_write_the_same(
    second: Sequence[int], atom: list[float], pairs: int
) -> None:
    result = found(firing(range(100), second), torch.tensor([[1.0, 0.0], atom]))
    assert result.values["duplicate_pairs"] == pairs


def test_who_is_a_child() -> None:
    """Within the parent on 41 of 50, on 40 of 50 (not above .8), and on 49 of 49 (too few)."""
    fires = firing(range(200), range(159, 209), range(160, 210), range(49))
    assert found(fires, nested=True).per_latent["children"][0] == 1
    assert found(fires, nested=True, min_fired=49).per_latent["children"][0] == 2
    assert found(fires, nested=True, child_share=0.79).per_latent["children"][0] == 2


def test_what_is_no_split() -> None:
    """Two halves that leave a quarter of the parent uncovered; and two that overlap on 50 of 100."""
    uncovered = found(firing(range(200), range(75), range(75, 150)), nested=True)
    assert uncovered.values["coverage"] == 0.75
    assert uncovered.values["exclusivity"] == 1
    assert uncovered.values["n_split"] == 0
    overlapping = found(firing(range(100), range(75), range(25, 100)), nested=True)
    assert overlapping.values["coverage"] == 1
    assert overlapping.values["exclusivity"] == 0.5
    assert overlapping.values["n_split"] == 0


def test_a_latent_that_almost_always_fires_is_no_parent() -> None:
    fires = firing(range(N), range(50), range(50, 100))
    assert found(fires, nested=True).values["n_parents"] == 0
    assert found(fires, nested=True).values["split_fraction"] is None
    assert found(fires, nested=True, max_density=1).per_latent["children"][0] == 2


def test_only_the_most_frequent_children_are_compared() -> None:
    """Of three children the two largest overlap on 60 of 110, and the smallest with none."""
    fires = firing(range(200), range(90), range(30, 110), range(140, 200))
    all_three, two = found(fires, nested=True), found(fires, nested=True, max_children=2)
    assert all_three.values["exclusivity"] == pytest.approx(1 - 60 / 110 / 3, rel=1e-12)
    assert two.values["exclusivity"] == pytest.approx(1 - 60 / 110, rel=1e-12)
    assert two.values["coverage"] == all_three.values["coverage"] == 0.85


def test_children_are_of_later_groups() -> None:
    some = torch.ones(3, dtype=torch.bool)
    pairs = torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([50, 50])
    together = Together(torch.tensor([100, 50, 50]), some, *pairs)
    for groups, kids in ((None, [1, 2]), (torch.tensor([0, 0, 1]), [2])):
        assert children(together, some, groups, SplittingConfig())[1].tolist() == kids


def test_what_one_part_has_given_up_the_whole_has() -> None:
    rows, latents = random_fires().nonzero(as_tuple=True)
    few, many = (PairCounts(40, max_pairs=150, max_updates=10**9) for _ in range(2))
    many.add(rows, latents)
    few.merge(many)
    assert few.found().sampled.tolist() == many.found().sampled.tolist()


def random_fires() -> Tensor:
    """400 tokens; eight parents, each with three children within it, and noise."""
    generator = torch.Generator().manual_seed(0)
    parents = torch.rand(400, 8, generator=generator) < 0.3
    which = torch.randint(3, (400, 8), generator=generator)
    kids = [parents & (which == i) & (torch.rand(400, 8, generator=generator) < 0.9) for i in range(3)]
    noise = torch.rand(400, 8, generator=generator) < 0.1
    return torch.cat([parents, *kids, parents ^ (noise & (which == 0))], dim=1)


ATOMS = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)).repeat(5, 1)
FEW = {"min_fired": 20.0, "coverage": 0.5, "rows_shown": 100.0}


def test_against_counting_one_by_one() -> None:
    """The definitions, pair by pair, over dense booleans."""
    fires, n = random_fires(), 40
    result = found(fires, ATOMS, **FEW)
    dense, fired = fires.double(), fires.sum(0)
    together = dense.T @ dense
    jaccard = together / (fired[:, None] + fired - together)
    cosine = torch.nn.functional.normalize(ATOMS, dim=1) @ torch.nn.functional.normalize(ATOMS, dim=1).T
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if jaccard[i, j] > 0.5]
    pairs = [(i, j) for i, j in pairs if cosine[i, j] > 0.9]
    assert result.values["duplicate_pairs"] == len(pairs) > 0
    n_split = 0
    for i in range(n):
        kids = [j for j in range(n) if j != i and fired[j] >= 20 and together[i, j] / fired[j] > 0.8]
        assert result.per_latent["children"][i] == len(kids)
        if len(kids) > 1:
            covered = float((fires[:, kids].any(1) & fires[:, i]).sum() / fired[i].double())
            overlap = [float(jaccard[j, k]) for j, k in itertools.combinations(kids, 2)]
            exclusive = 1 - sum(overlap) / len(overlap)
            assert float(result.per_latent["coverage"][i]) == pytest.approx(covered, rel=1e-12)
            assert float(result.per_latent["exclusivity"][i]) == pytest.approx(exclusive, rel=1e-12)
            n_split += covered > 0.5 and exclusive > 0.8
    assert result.values["n_split"] == n_split > 0


def plain(result: Result) -> list[float]:
    cells = [cell for table in result.tables.values() for row in table.rows for cell in row]
    flat = [*result.values.values(), *result.uncertainty.values(), *result.chance.values(), *cells]
    columns = torch.cat([column.double() for column in result.per_latent.values()]).tolist()
    return [math.nan if value is None else cast(float, value) for value in [*flat, *columns]]


BOUNDS = [{}, {"max_pairs": 150.0}, {"max_updates": 3000.0}]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_the_batch_size_does_not_matter(bounds: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where only some latents are looked at, and pairs are counted at other moments."""
    fires, options = random_fires()[:80], {**FEW, "min_fired": 5.0, **bounds}
    result = found(fires, ATOMS, **options)
    assert cast(float, result.values["n_families"]) > 0
    for at_once, size in ((1 << 20, 1), (1 << 20, 7), (1 << 20, 64), (200, 64), (200, 80)):
        monkeypatch.setattr("qsae_core.measuring.token_pairs.AT_ONCE", at_once)
        monkeypatch.setattr("qsae_core.measuring.key_counts.PENDING", at_once)
        parts = plain(found(fires, ATOMS, size, **options))
        assert parts == pytest.approx(plain(result), rel=1e-12, abs=0, nan_ok=True)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_two_parts_merge_into_the_whole(bounds: dict[str, float]) -> None:
    fires = random_fires()
    first, second = (started(ATOMS, **FEW, **bounds) for _ in range(2))
    first.update(seen(fires[:150]))
    second.update(seen(fires[150:]))
    first.merge(second)
    halves = [first.next_pass() for _ in range(2)]
    assert halves[0] is not None
    assert halves[1] is not None
    halves[0].update(seen(fires[:150]))
    halves[1].update(seen(fires[150:]))
    halves[0].merge(halves[1])
    whole = plain(found(fires, ATOMS, **FEW, **bounds))
    assert plain(halves[0].result()) == pytest.approx(whole, rel=1e-12, abs=0, nan_ok=True)


def test_beyond_the_bounds_some_latents_are_looked_at_and_their_numbers_are_exact() -> None:
    fires = random_fires()
    whole = found(fires, ATOMS, **FEW)
    for bounds in BOUNDS[1:]:
        some = found(fires, ATOMS, **FEW, **bounds)
        sampled = ~some.per_latent["duplicates"].isnan()
        assert 0 < int(sampled.sum()) < 40
        assert some.values["sampled_fraction"] == float(sampled.double().mean())
        for name, column in some.per_latent.items():
            assert torch.equal(column[sampled].nan_to_num(-1), whole.per_latent[name][sampled].nan_to_num(-1))


def test_the_bounds_hold() -> None:
    fires = random_fires()
    rows, latents = fires.nonzero(as_tuple=True)
    counts = PairCounts(40, max_pairs=150, max_updates=10**9)
    counts.add(rows, latents)
    together = counts.found()
    assert 0 < len(together.counts) <= 150
    assert (together.sampled[together.i] | together.sampled[together.j]).all()
    slow = PairCounts(40, max_pairs=10**9, max_updates=5000)
    slow.add(rows, latents)
    others = fires.sum(1) - 1
    updates = (fires * others[:, None]).sum(0)
    assert 0 < int(updates[slow.found().sampled].sum()) <= 5000


def test_pairs_of_tokens() -> None:
    """Token 0 has latents 2, 5, 7, token 2 has 1 and 7; of latent 7 alone: (2, 7), (5, 7), (1, 7)."""
    rows, latents = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([2, 5, 7, 1, 7])

    def pairs(wanted: Tensor | None) -> list[tuple[int, int]]:
        some = [(i.tolist(), j.tolist()) for i, j in pairs_of_tokens(rows, latents, wanted)]
        return sorted(pair for i, j in some for pair in zip(i, j, strict=True))

    assert pairs(None) == [(1, 7), (2, 5), (2, 7), (5, 7)]
    assert pairs(latents == 7) == [(1, 7), (2, 7), (5, 7)]


def test_nothing_seen_and_nothing_firing() -> None:
    for result in (started(torch.eye(3)).result(), found(torch.zeros(5, 3))):
        assert result.values["split_fraction"] is None
        assert result.values["duplicate_fraction"] is None
        assert result.values["coverage"] is None
        assert result.values["duplicate_pairs"] == 0


def test_coders_of_several_layers_are_evaluated_one_by_one() -> None:
    _, whole = list(contexts())[2]
    evaluations = {"it": Splitting(SplittingConfig())}
    outcomes = evaluate(whole.coder, whole.data, evaluations, list, n_tokens=96, batch_size=32)
    assert "is evaluated alone" in str(outcomes[""]["it"].unavailable)
    assert outcomes["0"]["it"].result is not None
    assert outcomes["1"]["it"].result is not None


TRAIN = shlex.split(
    "train --data synthetic --preset tiny --steps 20 --batch-size 128 --eval-tokens 2048 --eval-every 0 "
    "--statistics-tokens 512 --threads 1 --eval splitting --name it --sae matryoshka --n-latents 64 --k 4"
)


def test_a_run_of_a_nested_coder(tmp_path: pathlib.Path) -> None:
    result = CliRunner().invoke(cli, [*TRAIN, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (place,) = tmp_path.glob("it/*/*/evaluations/splitting")
    stored, about = load_result(place)
    assert (about["version"], about["options"]["jaccard"]) == (1, 0.5)
    assert cast(float, stored.values["n_parents"]) > 0
    groups = stored.tables["groups"]
    parents = groups.columns.index("parents")
    assert sum(cast(int, row[parents]) for row in groups.rows) == stored.values["n_parents"]
