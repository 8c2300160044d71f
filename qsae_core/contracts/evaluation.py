"""Evaluation: one question that is asked of a trained coder. Shapes: B tokens, F latents.

Core passes over the held-out data once for all evaluations of a call: the language model is read once, the
coder encodes and decodes once, and every evaluation's accumulator sees the same observations. So an
evaluation says what it wants to know of a batch and what follows from all of them, and never loops over data
itself. What it finds is a ``Result`` of scalars, columns with a value per latent, and tables; core stores and
shows these without knowing the evaluation.
"""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.metric import Metric, Observation

Observed = Literal["tokens", "twin"]
"""What an evaluation may need of an observation besides codes and reconstruction, which are always there:
``tokens``, the contexts behind the vectors; ``twin``, the codes of the full-precision twin."""
Cell = str | int | float | None
Value = float | None
Running = TypeVar("Running", bound="Accumulator")


@dataclass(frozen=True)
class Table:
    """Rows under named columns, such as a row for each latent that was looked at.

    Attributes:
        columns: names, each once.
        rows: one cell a column; None where a value is not defined.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        values: name -> number; None where it is not defined.
        chance: name of a value -> what that value is by chance (random codes, shuffled labels).
        baseline: name of a value -> what a simpler thing reaches (the raw vectors, the float twin).
        uncertainty: name of a value -> its standard error.
        per_latent: name -> ``[F]``, a number for each latent; NaN where it is not defined.
        tables: name -> table.
        files: name of a file -> what writes it at the path that it is given: for what is neither a column nor
            a table.
        reason: why values are missing although it ran, in a sentence that is shown; all else is kept.
        failed: whether that is a failure (a service that did not answer): ``qsae evaluate`` then keeps and
            shows everything, and ends with an error.
        how: in a few words, what a reader has to know of how it was measured: ``judged by rule``.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    chance: Mapping[str, Value] = field(default_factory=dict)
    baseline: Mapping[str, Value] = field(default_factory=dict)
    uncertainty: Mapping[str, Value] = field(default_factory=dict)
    per_latent: Mapping[str, Tensor] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    files: Mapping[str, Callable[[pathlib.Path], None]] = field(default_factory=dict)
    reason: str | None = None
    failed: bool = False
    how: str | None = None


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation works with.

    Attributes:
        coder: in evaluation mode.
        data: where held-out vectors come from; its language model, where there is one.
        make_metrics: fresh metrics of the run's configuration.
        n_tokens: how many held-out tokens are asked for.
        batch_size: vectors that go through a coder at once.
        device: where the coder lives.
        atom_errors: what metrics see as ``Observation.atom_errors``.
        twin: the coder's full-precision twin, where there is one and an evaluation observes it, or may.
    """

    coder: SparseCoder
    data: DataSource
    make_metrics: Callable[[], list[Metric]]
    n_tokens: int
    batch_size: int
    device: str
    atom_errors: AtomErrors | None = None
    twin: SparseCoder | None = None


class Accumulator(abc.ABC):
    """What an evaluation knows after some of the observations.

    Two accumulators of different parts of the data merge into what one of both parts would be; so results
    depend neither on the batch size nor on how the data is shared among processes.
    """

    n_tokens: int | None = None
    """How many tokens it wants to see; None: all. Of contexts it sees the fewest that hold so many."""

    @abc.abstractmethod
    def update(self, observation: Observation) -> None:
        """Take one batch into account."""

    @abc.abstractmethod
    def merge(self: Running, other: Running) -> None:
        """Take into account what another one of the same evaluation has seen, which is not used again."""

    @abc.abstractmethod
    def result(self) -> Result:
        """What follows from everything that was seen."""

    def next_pass(self) -> Accumulator | None:
        """After the last observation: what goes over the same data once more, where the first pass finds what
        the second one needs (a mean, a choice of latents); its ``result`` then counts. None: nothing does.

        The observations may be the very ones of this pass, so nothing may be written into them.
        """
        return None

    @property
    def may_go_on(self) -> bool:
        """Whether ``next_pass`` may give something: what it was shown is kept for that, if it is not much."""
        return type(self).next_pass is not Accumulator.next_pass


class Evaluation(abc.ABC):
    """One evaluation of a trained coder. Built as ``Class(config)``; its name is its component's."""

    version: ClassVar[int] = 1
    """Of the definition: raised whenever the same data may give other numbers; stored with each result."""
    observes: ClassVar[frozenset[Observed]] = frozenset()
    """What it needs besides codes and reconstruction; where there is none, it does not run."""
    may_observe: ClassVar[frozenset[Observed]] = frozenset()
    """What it also looks at where that is there: it then finds more, and runs without it too."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def start(self, context: EvaluationContext) -> Accumulator:
        """An accumulator that has seen nothing.

        Raises:
            QsaeError: if the options make no sense for this coder.
        """

    def unavailable(self, context: EvaluationContext) -> str | None:
        """Why this evaluation cannot run on that data, in one sentence; None if it can. What ``observes``
        asks for is looked at before."""
        return None
