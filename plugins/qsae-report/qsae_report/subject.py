"""What a report is of: a coder, what is stored about it, and what it is compared with. Imports no torch."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsae_samples import Samples

    from qsae_core import Run
    from qsae_core.contracts import Result


@dataclass(frozen=True)
class Evaluation:
    """What is stored of one evaluation of one coder.

    Attributes:
        name: its folder's.
        result: None where it cannot be read.
        about: its version, options, plugin, and what was measured on what.
        damage: why it cannot be read.
        baselines: name of a coder that has learned less -> what was found of it.
    """

    name: str
    result: Result | None
    about: Mapping[str, Any] = field(default_factory=dict)
    damage: str | None = None
    baselines: Mapping[str, Result] = field(default_factory=dict)


@dataclass(frozen=True)
class Coder:
    """A stored coder with all that was found out about it.

    Attributes:
        name: how the page calls it: what it is; ``float twin`` or ``before quantizing``.
        folder: where its ``coder.json`` is.
        artifact: JSON values: ``bytes``, ``float_bytes``, ``times_smaller``, ``bits_per_weight``.
        evaluations: name -> what is stored.
        samples: where its latents fire; None where that was not collected.
        trained: JSON values: ``steps``, ``tokens`` and ``training_seconds`` of its run, where they are known.
        held_out: JSON values by which the data that was held out of its training is known; None where they
            are not recorded.
        on_the_way: name of an evaluation -> step -> what it found while the coder was trained.
    """

    name: str
    folder: pathlib.Path
    artifact: Mapping[str, Any]
    evaluations: Mapping[str, Evaluation]
    samples: Samples | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)
    held_out: Any = None
    on_the_way: Mapping[str, Mapping[int, Evaluation]] = field(default_factory=dict)

    def value(self, name: str, *evaluations: str) -> float | None:
        """A value of the first of these evaluations that has it; None where none does."""
        stored = self.holding(name, *evaluations)
        return None if stored is None or stored.result is None else stored.result.values[name]

    def holding(self, name: str, *evaluations: str) -> Evaluation | None:
        """The first of these evaluations that has a value."""
        for evaluation in evaluations:
            stored = self.evaluations.get(evaluation)
            if (
                stored is not None
                and stored.result is not None
                and stored.result.values.get(name) is not None
            ):
                return stored
        return None


@dataclass(frozen=True)
class Subject:
    """What a report is of.

    Attributes:
        path: as the user gave it.
        coder: what is shown.
        twin: its full-precision twin.
        compared: what ``--compare`` named.
        description: ``coder.json``.
        record: the run's ``config.json``; empty without a run.
        layer: of several coders, the layer whose coder it is.
        other_layers: those that have a coder of their own.
        run, compared_run: where there are runs.
        notes: sentences about what is left out, and why.
    """

    path: pathlib.Path
    coder: Coder
    twin: Coder | None
    compared: Coder | None
    description: Mapping[str, Any]
    record: Mapping[str, Any]
    layer: str | None = None
    other_layers: Sequence[str] = ()
    run: Run | None = None
    compared_run: Run | None = None
    notes: Sequence[str] = ()

    @property
    def beside(self) -> list[Coder]:
        """The coders whose numbers stand beside the coder's."""
        return [coder for coder in (self.twin, self.compared) if coder is not None]
