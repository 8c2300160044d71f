"""``state.json`` of a resume state: the step, the data's position, and a checksum of everything."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from qsae_core.errors import ArtifactError, TrainingError
from qsae_core.results.files import COPY, read_json, write_json

STATE = "state.json"


class Position(BaseModel):
    """Where a run's data stands."""

    model_config = ConfigDict(strict=True, frozen=True)

    data: dict[str, Any]
    """The state of the source of the first process."""
    data_of_each: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    """Of every part of a batch, where each is read by itself; None where all stand at the same place."""


class StateDescription(Position):
    """``state.json``, without the checksum of itself."""

    step: NonNegativeInt
    coders: list[str]
    files: dict[str, str]
    """File of tensors -> sha256 of its bytes."""

    def write(self, folder: pathlib.Path) -> None:
        """Into a folder that is there."""
        entries = self.model_dump()
        write_json(folder / STATE, {**entries, "sha256": _digest(entries)})


def read_state_description(folder: pathlib.Path) -> StateDescription:
    """``state.json``, after its checksum.

    Raises:
        ArtifactError: if it is truncated or altered.
        TrainingError: if it lacks an entry, or one is of another type.
    """
    entries = read_json(folder / STATE)
    if isinstance(entries, dict) and "files" not in entries:
        raise of_other_versions(folder, "it names no files")
    digest = entries.pop("sha256", None) if isinstance(entries, dict) else None
    if digest is None or digest != _digest(entries):
        raise ArtifactError(
            "was altered: its contents do not match the checksum in it" if digest else "holds no checksum",
            where=str(folder / STATE),
            allowed="the file as this version of qsae wrote it",
            next=COPY,
        )
    try:
        return StateDescription.model_validate(entries)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise of_other_versions(folder, f"{STATE}, {place}: {fault['msg']}") from None


def of_other_versions(folder: pathlib.Path, what: str) -> TrainingError:
    """The error for a state that is as it was written, and that this code cannot go on from."""
    return TrainingError(
        f"the state does not fit: {what}",
        where=str(folder),
        allowed="a state that the installed versions of qsae and its plugins wrote",
        next="resume with those that wrote it (config.json: versions), or begin anew with --overwrite",
    )


def _digest(entries: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
