"""Every stored evaluation below a folder, each on its own: a damaged one does not hide the others."""

from __future__ import annotations

import contextlib
import pathlib
import re
from typing import TYPE_CHECKING

from qsae_core.errors import QsaeError
from qsae_core.runs import load_result, slug
from qsae_report.subject import Evaluation

if TYPE_CHECKING:
    from qsae_core.contracts import Result

RESULT = "result.json"
"""By which an evaluation's folder is known."""
BASELINES = "baselines"
DAMAGES = (QsaeError, KeyError, TypeError, AttributeError, ValueError)
"""What reading a damaged result raises."""
STEP = re.compile(r"step_(\d+)")
"""Folder of what was found behind a step of training."""
OF_OTHERS = re.compile(rf"float_twin|layers|{BASELINES}|step_\d+")
"""Folders beside those of evaluations, with evaluations in them of other coders, and of this one while it was
trained."""


def read_evaluations(folder: pathlib.Path) -> dict[str, Evaluation]:
    """Name -> what is stored, for every evaluation in a folder, in the order of names; empty where there is
    none. A folder without ``result.json`` is damaged: an evaluation is written whole or not at all."""
    found = sorted(place for place in folder.glob("*") if place.is_dir() and not place.name.startswith("."))
    return {place.name: _read(place) for place in found if not OF_OTHERS.fullmatch(place.name)}


def read_on_the_way(folder: pathlib.Path, layer: str | None) -> dict[str, dict[int, Evaluation]]:
    """Name -> step -> what was found while a coder was trained, in the order of names and of steps.

    Args:
        folder: of a run's evaluations.
        layer: whose, where the run has a coder for each of several.
    """
    found: dict[str, dict[int, Evaluation]] = {}
    for place in sorted(folder.glob("step_*")):
        step = STEP.fullmatch(place.name)
        if step is None:
            continue
        below = place if layer is None else place / "layers" / slug(layer)
        for name, stored in read_evaluations(below).items():
            found.setdefault(name, {})[int(step[1])] = stored
    return {name: dict(sorted(by_step.items())) for name, by_step in sorted(found.items())}


def _read(place: pathlib.Path) -> Evaluation:
    try:
        result, about = load_result(place)
        _check(place.name, result.values)
        return Evaluation(place.name, result, about, baselines=_baselines(place))
    except QsaeError as error:
        return Evaluation(place.name, None, damage=f"{error.where}: {error.what}")
    except DAMAGES as error:
        return Evaluation(place.name, None, damage=f"{place / RESULT}: {type(error).__name__}: {error}")


def _baselines(place: pathlib.Path) -> dict[str, Result]:
    """Name of a baseline -> the same evaluation of it, where it was measured beside the coder; a damaged one
    is left out."""
    found = {}
    for folder in sorted(place.parent.glob(f"{BASELINES}/*/{place.name}")):
        with contextlib.suppress(*DAMAGES):
            result, _ = load_result(folder)
            _check(folder.parent.name, result.values)
            found[folder.parent.name] = result
    return found


def _check(name: str, values: object) -> None:
    """Refuse values that are no numbers, which a file that was edited by hand may have."""
    if not isinstance(values, dict):
        raise TypeError("its values are no mapping")
    for key, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"the value {key!r} is {value!r}, and no number")
