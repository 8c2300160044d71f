"""The gap on features whose hierarchy is written here. Shapes: N tokens, F latents, G true features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qsae_evaluation_absorption import AbsorptionGapConfig
from qsae_evaluation_absorption.gap import AbsorptionGap, best_latents, counted, gaps
from scipy.sparse import csr_array
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import (
    Batch,
    CoderShape,
    DataSource,
    EvaluationContext,
    Observation,
    Result,
    SourceView,
    SparseCodes,
)

PARENTS = torch.tensor([-1, 0, 0, -1])
"""Feature 0 has the children 1 and 2; 3 is alone."""


def test_counts_by_hand():
    """Tokens: parent alone, where it fires; parent alone, where it does not; with child 1, fires; with child
    2, does not; feature 3; parent and both children, does not."""
    true = csr_array(
        np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 0]])
    )
    fired = csr_array(np.array([[1.0], [0], [2.0], [0], [5.0], [0]]))
    found = counted(true, fired, np.array([0]), PARENTS.numpy())
    assert [part.tolist() for part in found] == [[2], [1], [3], [1]]
    assert gaps(found).tolist() == [pytest.approx(1 / 2 - 1 / 3)]


def test_children_of_children_are_no_children():
    """0 <- 1 <- 2: where 2 is, 1 is as well."""
    true = csr_array(np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]]))
    fired = csr_array(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    found = counted(true, fired, np.array([0, 1]), np.array([-1, 0, 1]))
    assert [part.tolist() for part in found] == [[1, 1], [1, 1], [2, 1], [0, 0]]
    assert gaps(found).tolist() == [1, 1]


def test_a_parents_latent_is_the_one_that_points_its_way():
    atoms = np.array([[0.0, -3.0], [0.1, 0.0], [2.0, 2.0], [0.0, 0.0]])
    latents, cosines = best_latents(atoms, np.array([[5.0, 0.0], [0.0, 1.0]]))
    assert latents.tolist() == [1, 2]
    assert cosines.tolist() == pytest.approx([1, 0.5**0.5])


class World(DataSource):
    """400 tokens of features 0 to 3 in the first four dimensions; the parent is in half, a child in half of
    these."""

    d_in = d_out = 36

    def __init__(self, parents: Tensor = PARENTS) -> None:
        super().__init__(ComponentConfig())
        self._parents = parents
        place = torch.arange(400)
        active = torch.stack([place % 2 == 0, place % 8 == 0, place % 8 == 2, place % 3 == 0], 1)
        self.features = SparseCodes.from_dense(active.float())

    def dictionary(self) -> Tensor:
        return torch.eye(36)[:4]

    def parents(self) -> Tensor:
        return self._parents

    def held_out_features(self, n_tokens: int) -> SparseCodes:
        return self.features.first(n_tokens)

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError

    def next_batch(self, size: int) -> Batch:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


class Named(SourceView):
    """What core shows where another source does the work."""


def seen(world: World, start: int, end: int, absorbed: bool) -> Observation:
    """Latents 0 to 3 are the features; the parent's is silent beside child 1, if that one absorbs it."""
    f = torch.cat([world.features.to_dense(), torch.zeros(400, 58)], 1)[start:end]
    if absorbed:
        f[f[:, 1] > 0, 0] = 0
    x = f[:, :36]
    return Observation(x, x, SparseCodes.from_dense(f), torch.ones(62), first=start)


def context_of(data: DataSource, layers: int = 1) -> EvaluationContext:
    """A dictionary of a latent for each dimension, and a second one for the first 26."""
    data.model_name, data.layer = "world", "0"
    atoms = torch.cat([torch.eye(36), torch.eye(36)[:26]])
    shape = CoderShape(36, 36, layers, layers)
    coder: Any = SimpleNamespace(
        shape=shape, n_latents=62, atoms=lambda: atoms, by_layer=lambda: (), is_autoencoder=True
    )
    return EvaluationContext(coder, Named(data), list, 400, 64, "cpu")


def gap(batch_size: int, absorbed: bool = True, **options: float) -> Result:
    world = World()
    running = AbsorptionGap(AbsorptionGapConfig(**options)).start(context_of(world))
    for start in range(0, 400, batch_size):
        running.update(seen(world, start, min(400, start + batch_size), absorbed))
    return running.result()


def test_a_child_that_takes_its_parents_place():
    """Alone the parent's latent always fires; with a child in every second token: 1 - 1 / 2."""
    result = gap(64)
    assert result.values == {
        "absorption_gap": 0.5,
        "fires_without_child": 1,
        "fires_with_child": 0.5,
        "parents_found": 1,
        "parents_measured": 1,
    }
    assert result.chance["absorption_gap"] is not None
    assert result.uncertainty == {"absorption_gap": None}  # of a single parent
    assert result.tables["parents"].rows == [[0, 0, 1.0, 100, 1.0, 100, 0.5, 0.5]]
    assert result.per_latent["absorption_gap"][0] == 0.5
    assert int(result.per_latent["absorption_gap"].isnan().sum()) == 61


def test_without_absorption_there_is_no_gap():
    assert gap(64, absorbed=False).values["absorption_gap"] == 0


def test_results_do_not_depend_on_the_batch_size():
    assert gap(1).values == gap(7).values == gap(64).values


def test_parts_merge_into_the_whole_in_any_order():
    world = World()
    first, second = (AbsorptionGap(AbsorptionGapConfig()).start(context_of(world)) for _ in range(2))
    first.update(seen(world, 123, 400, True))
    second.update(seen(world, 0, 123, True))
    first.merge(second)
    assert first.result().values == gap(400).values


def test_a_parent_that_is_too_rare_is_not_measured():
    result = gap(64, min_tokens=101)
    assert result.values["parents_measured"] == 0
    assert result.values["absorption_gap"] is None
    assert result.tables["parents"].rows[0][-1] is None


def test_more_tokens_than_it_asks_for_are_not_counted():
    """A batch of whole contexts may hold more."""
    assert gap(400, tokens=40, min_tokens=5).tables["parents"].rows[0][3:7:2] == [10, 10]


@pytest.mark.parametrize(
    ("world", "coder", "says"),
    [
        (World(torch.full((4,), -1)), {}, "no feature of the data implies another"),
        (World(), {"layers": 2}, "one layer's vectors"),
    ],
)
def test_it_says_why_it_cannot_measure(world, coder, says):
    assert says in str(AbsorptionGap(AbsorptionGapConfig()).unavailable(context_of(world, **coder)))


def test_a_source_without_features_has_no_hierarchy():
    context = context_of(World())
    context = EvaluationContext(**{**vars(context), "data": SimpleNamespace()})
    assert "does not know" in str(AbsorptionGap(AbsorptionGapConfig()).unavailable(context))


def test_the_command_line_measures_it(tmp_path):
    """A coder of 20 steps, on vectors whose hierarchy is known."""
    import json

    from click.testing import CliRunner

    from qsae_cli.main import cli

    run, kept = str(tmp_path / "run"), tmp_path / "kept"
    arguments = ["--steps", "20", "--batch-size", "256", "--eval-tokens", "2048", "--n-latents", "128"]
    trained = CliRunner().invoke(
        cli,
        [
            "train",
            "--sae",
            "topk",
            "--data",
            "synthetic",
            *arguments,
            "--eval",
            "absorption-gap",
            "--out",
            run,
        ],
    )
    assert trained.exit_code == 0, trained.output
    (place,) = (path.parent for path in (tmp_path / "run").rglob("metrics.json"))
    found = CliRunner().invoke(
        cli, ["evaluate", str(place), "--eval", "absorption-gap", "--eval", "absorption", "--out", str(kept)]
    )
    assert found.exit_code == 0, found.output
    assert "absorption: not evaluated, the data source has no language model" in found.output
    result = json.loads((kept / "absorption-gap" / "result.json").read_text(encoding="utf-8"))
    assert 0 <= result["values"]["parents_found"] <= 1
