"""Which coders a path means, and what is stored of each."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from qsae_core import Run
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.runs import artifact_folder, load_result, member_folders, set_folder, stored_description

if TYPE_CHECKING:
    from qsae_core.contracts import Result

LAYERS = "layers"
"""Where, beside what was found of all of them, that of coders of single layers is."""


class Found(NamedTuple):
    """What is stored of one evaluation."""

    result: Result
    about: Mapping[str, Any]
    """Of the definition (``version``, ``options``), and what was measured on what."""
    millis: int
    """When it was stored, in milliseconds since 1970."""


@dataclass(frozen=True)
class Stored:
    """One coder with its evaluations.

    Attributes:
        artifact: folder with ``coder.json``.
        evaluations: folder with a folder an evaluation.
        run: that it is of; None where there is none.
        release: what SAEBench calls the SAE, first part.
        id: second part.
    """

    artifact: pathlib.Path
    evaluations: pathlib.Path
    run: Run | None
    release: str
    id: str

    @property
    def file_name(self) -> str:
        """As SAEBench makes it; the same for every evaluation, by which its plots join them."""
        return f"{self.release}_{self.id}_eval_results.json".replace("/", "_")

    def find(self, evaluation: str) -> Found | None:
        """What is stored of an evaluation; None where nothing is.

        Raises:
            ArtifactError: if it was damaged.
        """
        folder = self.evaluations / evaluation
        if not (folder / "result.json").is_file():
            return None
        millis = (folder / "result.json").stat().st_mtime_ns // 1_000_000
        return Found(*load_result(folder), millis)

    def need(self, evaluations: Sequence[str], others: Sequence[str] = ()) -> dict[str, Found]:
        """What is stored of each.

        Args:
            others: evaluations that are exported where they are there, for the error.

        Raises:
            ArtifactError: if one is missing, with all that are, and the command that makes them.
        """
        found = {name: self.find(name) for name in evaluations}
        missing = [name for name, entry in found.items() if entry is None]
        if missing:
            also = [name for name in others if self.find(name) is None]
            without = f", and none of {' and '.join(also)}, which is left out then" if also else ""
            raise ArtifactError(
                f"has no results of {', '.join(missing)}{without}",
                where=str(self.evaluations),
                allowed=f"results of {', '.join(evaluations)}",
                next=self.evaluate_command([*missing, *also]),
            )
        return {name: entry for name, entry in found.items() if entry is not None}

    def evaluate_command(self, evaluations: Sequence[str]) -> str:
        """What stores results where they were looked for."""
        asked = " ".join(f"--eval {name}" for name in evaluations)
        run = self.run  # which keeps what is found of its own coder, not of the float twin
        if (
            run
            and self.artifact.is_relative_to(run.final)
            and self.evaluations.is_relative_to(run.evaluations)
        ):
            return f"qsae evaluate {run.path} {asked}"
        return f"qsae evaluate {self.artifact} {asked} --out DIR, and --evaluations DIR"


def stored_coders(path: pathlib.Path, evaluations: pathlib.Path | None, release: str | None) -> list[Stored]:
    """The coder that a path means, or each of a run with one for each layer.

    Args:
        evaluations: where ``qsae evaluate --out`` kept them; None: in the coder's run.
        release: None: the run's name.

    Raises:
        ArtifactError: if there is no coder.
        ConfigError: if it is in no run, and ``evaluations`` or ``release`` is not given; if it is of several
            layers.
    """
    several = set_folder(path)
    if several is None:
        folder = artifact_folder(path)
        return [_stored(folder, evaluations, release)]
    return [
        _stored(folder, evaluations and evaluations / LAYERS / folder.name, release)
        for folder in member_folders(several).values()
    ]


def _stored(folder: pathlib.Path, evaluations: pathlib.Path | None, release: str | None) -> Stored:
    _check_layers(folder)
    of_set = set_folder(folder.parent) == folder.parent
    place = folder.parent if of_set else folder
    run, parts = _run_of(place), []
    if run is not None:
        name, *parts = run.path.resolve().parts[-3:]
        release = release or name
        own = place == run.final
        beside = run.evaluations if own else run.evaluations / place.name
        evaluations = evaluations or (beside / LAYERS / folder.name if of_set else beside)
        parts += [] if own else [place.name]
    if evaluations is None or release is None:
        raise ConfigError(
            "it is in no run, so where its evaluations are and what it is called have to be said",
            where=str(folder),
            allowed="a run's folder, or --evaluations DIR and --release NAME",
            next=f"qsae evaluate {folder} --out DIR",
        )
    parts += [folder.name] if of_set else []
    return Stored(folder, evaluations, run, release, "/".join(parts) or "coder")


def _check_layers(folder: pathlib.Path) -> None:
    shape = stored_description(folder)["shape"]
    if shape["layers_in"] > 1 or shape["layers_out"] > 1:
        raise ConfigError(
            f"it reads {shape['layers_in']} and writes {shape['layers_out']} layers at once, and SAEBench "
            "knows coders of one",
            where=str(folder),
            allowed="a coder of one layer, or a run with one for each (--per-layer)",
        )


def _run_of(place: pathlib.Path) -> Run | None:
    """The run in whose ``checkpoints`` a coder, or a set of them, is."""
    run = Run(place.parent.parent)
    return run if place.parent == run.checkpoints and run.config_file.is_file() else None
