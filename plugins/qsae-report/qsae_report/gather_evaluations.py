"""Every stored evaluation below a folder, each on its own: a damaged one does not hide the others."""

from __future__ import annotations

import pathlib

from qsae_core.errors import QsaeError
from qsae_core.runs import load_result
from qsae_report.subject import Evaluation

RESULT = "result.json"
"""By which an evaluation's folder is known."""
OF_OTHERS = ("float_twin", "layers")
"""Folders beside those of evaluations, with evaluations of other coders in them."""


def read_evaluations(folder: pathlib.Path) -> dict[str, Evaluation]:
    """Name -> what is stored, for every evaluation in a folder, in the order of names; empty where there is
    none. A folder without ``result.json`` is damaged: an evaluation is written whole or not at all."""
    found = sorted(place for place in folder.glob("*") if place.is_dir() and not place.name.startswith("."))
    return {place.name: _read(place) for place in found if place.name not in OF_OTHERS}


def _read(place: pathlib.Path) -> Evaluation:
    try:
        result, about = load_result(place)
        _check(place.name, result.values)
        return Evaluation(place.name, result, about)
    except QsaeError as error:
        return Evaluation(place.name, None, damage=f"{error.where}: {error.what}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return Evaluation(place.name, None, damage=f"{place / RESULT}: {type(error).__name__}: {error}")


def _check(name: str, values: object) -> None:
    """Refuse values that are no numbers, which a file that was edited by hand may have."""
    if not isinstance(values, dict):
        raise TypeError("its values are no mapping")
    for key, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"the value {key!r} is {value!r}, and no number")
