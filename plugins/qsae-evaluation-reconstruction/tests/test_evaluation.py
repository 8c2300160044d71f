"""Two batches by hand, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from qsae_evaluation_reconstruction import ReconstructionEvaluationConfig
from qsae_evaluation_reconstruction.evaluation import ReconstructionEvaluation
from torch import Tensor

from qsae_core import CoderConfig
from qsae_core.component import ComponentConfig
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.metric import Metric, Observation
from qsae_core.errors import ConfigError
from qsae_core.evaluation.evaluate import evaluate
from qsae_core.evaluation.of_layers import WHOLE


class SumOfErrors(Metric):
    """Sum of all errors, under a name of one's choice."""

    def __init__(self, name: str = "sum_of_errors") -> None:
        super().__init__(ComponentConfig())
        self.name = name
        self.total: float | None = None

    def update(self, observation: Observation) -> None:
        error = (observation.target - observation.reconstruction).sum().item()
        self.total = error if self.total is None else self.total + error

    def merge(self, other: SumOfErrors) -> None:
        if other.total is not None:
            self.total = other.total + (self.total or 0.0)

    def compute(self) -> dict[str, float | None]:
        return {self.name: self.total}

    def reset(self) -> None:
        self.total = None


class AlwaysOne:
    """A coder whose reconstruction is 1 everywhere."""

    training, device = False, "cpu"
    config = CoderConfig(n_latents=1)

    def eval(self) -> None:
        pass

    def train(self, mode: bool) -> None:
        pass

    def atom_errors(self) -> None:
        return None

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense(torch.ones(len(x), 1))

    def decode(self, codes: SparseCodes) -> Tensor:
        return torch.ones(codes.batch_size, 2)

    def target(self, batch: Batch) -> Tensor:
        return batch.y

    def atom_norms(self) -> Tensor:
        return torch.ones(1)

    def code_levels(self, codes: SparseCodes) -> None:
        return None

    def by_layer(self) -> tuple[()]:
        return ()


def held_out(n_tokens: int, batch_size: int) -> Iterator[Batch]:
    x = torch.tensor([[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])[:n_tokens]
    for part in x.split(batch_size) if len(x) else ():
        yield Batch(part, part)


def run(*metrics: Metric, n_tokens: int = 3) -> dict[str, float | None]:
    data = SimpleNamespace(held_out=held_out, language_model=lambda: None)
    evaluations = {"it": ReconstructionEvaluation(ReconstructionEvaluationConfig())}
    coder = cast(Any, AlwaysOne())
    make_metrics = lambda: list(metrics)  # noqa: E731
    found = evaluate(coder, cast(Any, data), evaluations, make_metrics, n_tokens=n_tokens, batch_size=2)
    return found[WHOLE]["it"].entry()


def test_metrics_see_every_held_out_vector_once() -> None:
    """Targets sum to 27 in batches of 2 and 1 tokens, the reconstruction to 6."""
    assert run(SumOfErrors()) == {"n_tokens": 3.0, "sum_of_errors": 21.0}
    assert run(SumOfErrors(), n_tokens=1) == {"n_tokens": 1.0, "sum_of_errors": 3.0}


def test_no_held_out_vectors() -> None:
    assert run(SumOfErrors(), n_tokens=0) == {"n_tokens": 0.0, "sum_of_errors": None}


def test_values_of_one_name_are_refused() -> None:
    for metrics, name in (
        ([SumOfErrors("a"), SumOfErrors("a")], "a"),
        ([SumOfErrors("n_tokens")], "n_tokens"),
    ):
        entry = run(*metrics)
        assert entry["failed"]
        assert str(entry["unavailable"]).startswith(f"two metrics give a value named {name} ")


def test_no_metrics() -> None:
    with pytest.raises(ConfigError, match="the run has no metrics"):
        run()
