"""What an evaluation measures: all of the data, or of a coder's training data what was held out."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from qsae_core.artifact.description import NO_DATA, TRAINED_ON, Origins
from qsae_core.config.run import RunConfig
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.held_out_part import HeldOutPart, Overlap
from qsae_core.contracts.provenance import LAYER, MODEL, SOURCE, TARGET
from qsae_core.errors import ArtifactError
from qsae_core.results.files import COPY

_WHOLE = "whole"
"""Key of an origin, true where nothing of that data was held out, as another library trains."""


class MeasuredPart(NamedTuple):
    """What is measured."""

    what: str
    """In words, for tables."""
    warning: str | None
    """What is wrong with that as a measurement of this coder, in a sentence."""
    size: int | None
    """Vectors in it; None where it is the held-out part of the training data, or its size is not known."""
    is_other: bool = False
    """Whether the coder was trained on data from such a source, and this is none of it."""

    def warned(self, sentence: str | None) -> MeasuredPart:
        """The same, with one more thing that is wrong, or none."""
        return self._replace(warning="; ".join(filter(None, [self.warning, sentence])) or None)

    def entry(self, n_documents: int | None = None) -> dict[str, Any]:
        """JSON values for the entry of a coder in ``metrics.json``.

        Args:
            n_documents: of how many documents anything was read; None: that is not known.
        """
        entry = {"what": self.what, "warning": self.warning}
        return entry if n_documents is None else {**entry, "documents": n_documents}


def source_record(
    data: DataSource, config: RunConfig, made_of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """``source`` of an artifact: which vectors it is for, and how its training data is known again.

    Args:
        made_of: ``source`` of the stored coder that this one was made of, whose vectors stay its own; None:
            it was trained here from the beginning.
    """
    origin = _origin(data.held_out_part(), config)
    record = {MODEL: data.model_name, LAYER: data.layer, **data.describe()}
    if made_of is None:
        return {**record, TRAINED_ON: [origin]}
    before = made_of.get(TRAINED_ON)
    found = _of_same_vectors(made_of, record)
    return found if before is None else {**found, TRAINED_ON: [*before, origin]}


def _of_same_vectors(made_of: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What ``made_of`` says of its vectors; of those that it does not name, also what the data says that a
    coder made of it is given now, if nothing of it is otherwise."""
    said = {key: value for key, value in made_of.items() if key not in (NO_DATA, TRAINED_ON)}
    is_whole = MODEL in said and LAYER in said
    places = (SOURCE, TARGET) if SOURCE in said else (LAYER,)  # a layer's name is not everywhere the same
    differs = any(record.get(key) != said[key] for key in (MODEL, *places) if key in said)
    return said if is_whole or differs else {**record, **said}


def whole_origin(data: DataSource, config: RunConfig) -> dict[str, Any]:
    """What ``origins`` has of a coder that was trained on all of the data, nothing of it held out."""
    return {**_origin(data.held_out_part(), config), _WHOLE: True}


def origins(description: Mapping[str, Any]) -> Origins | None:
    """What a coder was trained on, from its ``coder.json``; None where that was not recorded."""
    found: Origins | None = description["source"].get(TRAINED_ON)
    return found


def measured_part(
    data: DataSource,
    config: RunConfig,
    trained_on: Origins | None,
    folder: pathlib.Path,
    *,
    calibrated: bool = False,
) -> MeasuredPart:
    """What of the config's data a coder is measured on; ``data`` gives that from then on.

    All of it where the coder was trained on none of it; else what is held out.

    Args:
        trained_on: ``origins`` of the coder.
        folder: where the coder is, for messages.
        calibrated: whether this data's training stream goes into the coder now: then held-out vectors it is.

    Raises:
        ArtifactError: if what is recorded of the training data cannot be read.
    """
    found = _part(data, config, trained_on, folder, calibrated)
    return found.warned(data.warning())


def _part(
    data: DataSource, config: RunConfig, trained_on: Origins | None, folder: pathlib.Path, calibrated: bool
) -> MeasuredPart:
    part = data.held_out_part()
    if part is None:
        return MeasuredPart(f"what {data.model_name} holds out", None, None)
    if trained_on is None:
        warning = "what this coder was trained on is not recorded, so what is held out here is measured"
        return MeasuredPart(part.name(), warning, None)
    try:
        own = [origin for origin in trained_on if origin["use"] == _component(part, config)]
        overlaps = {_overlap(part, origin["part"], whole=origin.get(_WHOLE, False)) for origin in own}
    except (AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"what it says of the training data cannot be read ({type(error).__name__}: {error})",
            where=f"{folder}: coder.json: source.{TRAINED_ON}",
            allowed="the file as qsae wrote it",
            next=COPY,
        ) from error
    if Overlap.HELD_OUT in overlaps:
        warning = (
            f"this coder was trained on some of what is measured ({part.name()}): its training data is held "
            "out otherwise here than it was in training, if anything of it was"
        )
        return MeasuredPart(part.name(), warning, None)
    if Overlap.TRAINING in overlaps or calibrated:
        return MeasuredPart(part.name(), None, None)
    part.take_all()
    return MeasuredPart(part.name(), None, part.size(), is_other=bool(own) and not part.is_endless)


def _overlap(part: HeldOutPart, record: Mapping[str, Any] | None, *, whole: bool) -> Overlap:
    found = Overlap.TRAINING if record is None else part.overlap(record)
    return Overlap.HELD_OUT if whole and found is Overlap.TRAINING else found


def _origin(part: HeldOutPart | None, config: RunConfig) -> dict[str, Any]:
    return {"use": _component(part, config), "part": None if part is None else part.record()}


def _component(part: HeldOutPart | None, config: RunConfig) -> str:
    """Whose records tell this data from other data."""
    return config.data.use if part is None or part.component is None else part.component
