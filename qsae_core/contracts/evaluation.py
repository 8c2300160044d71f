"""Evaluation: one question that is asked of a trained coder."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass

from qsae_core.component import ComponentConfig
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.metric import Metric, Observation, observe


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation works with.

    Attributes:
        coder: in evaluation mode.
        data: gives held-out vectors, and tokens and the language model where there are any.
        metrics: fresh metrics of the run's configuration.
        n_tokens: how many held-out tokens to use.
        batch_size: rows per batch.
        device: where the coder lives.
        atom_errors: what metrics see as ``Observation.atom_errors``.
    """

    coder: SparseCoder
    data: DataSource
    metrics: list[Metric]
    n_tokens: int
    batch_size: int
    device: str
    atom_errors: AtomErrors | None = None

    def observations(self) -> Iterator[Observation]:
        """Held-out batches passed through the coder, without gradient, up to ``n_tokens`` tokens."""
        for batch in self.data.held_out(self.n_tokens, self.batch_size):
            yield observe(self.coder, batch.to(self.device), self.atom_errors)


class Evaluation(abc.ABC):
    """One evaluation of a trained coder. Built as ``Class(config)``; its name is its component's."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def run(self, context: EvaluationContext) -> dict[str, float | None]:
        """Name -> value; None where a value is not defined.

        Raises:
            QsaeError: if the data cannot support this evaluation (no language model, say).
        """

    def unavailable(self, context: EvaluationContext) -> str | None:
        """Why this evaluation cannot run on that data, in one sentence; None if it can."""
        return None
