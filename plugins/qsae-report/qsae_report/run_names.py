"""What runs are called in one chart: short, and no two alike. Imports no torch."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qsae_core import Run
from qsae_core.errors import ConfigError
from qsae_core.runs import CODER_SLOTS, PART_SLOTS, coder_label, quantizers_of

COMPARED = (*CODER_SLOTS, *PART_SLOTS, "data", "train")
"""Parts of a record in which runs may differ, beside the seed."""
MOST_OPTIONS, LONGEST = 2, 48
"""Options, and their characters, that a name has at most."""


def run_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """A name for each run: the one it was given, or its coder's.

    Where several have the same, it says in which options they differ; where that is long, in which part of
    their paths.

    Raises:
        ConfigError: for what is no run's folder, and for a run that is there twice.
    """
    records = [_record(path) for path in paths]
    places = [path.resolve() for path in paths]
    for place, path in zip(places, paths, strict=True):
        if places.count(place) > 1:
            raise ConfigError("the run is named twice", where=str(path))
    names = [_name(record) for record in records]
    found = list(names)
    for name in set(names):
        alike = [i for i, other in enumerate(names) if other == name]
        if len(alike) > 1:
            said = _options([records[i] for i in alike]) or _parts([places[i] for i in alike])
            for i, text in zip(alike, said, strict=True):
                found[i] = f"{name} ({text})"
    return found if len(set(found)) == len(found) else [str(path) for path in paths]


def _record(path: pathlib.Path) -> Mapping[str, Any]:
    run = Run(path)
    record = run.record() if run.config_file.exists() else None
    if not isinstance(record, dict) or not any(slot in record for slot in CODER_SLOTS):
        raise ConfigError(
            "is no run's folder",
            where=str(path),
            allowed="a folder with the config.json of a run",
            next="qsae runs",
        )
    return record


def _name(record: Mapping[str, Any]) -> str:
    given = record.get("run", {}).get("name")
    if given:
        return str(given)
    coder = next(record[slot]["use"] for slot in CODER_SLOTS if slot in record)
    return coder_label(coder, quantizers_of(record))


def _options(records: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """For each run its options that are another one's otherwise; None where that is long or too little."""
    flat = [dict(_flat(record)) for record in records]
    keys = [key for key in dict.fromkeys(key for own in flat for key in own) if len(_values(flat, key)) > 1]
    texts = [", ".join(f"{_short(key)}={own.get(key, '-')}" for key in keys) for own in flat]
    fits = len(keys) <= MOST_OPTIONS and max(map(len, texts)) <= LONGEST
    return texts if fits and len(set(texts)) == len(texts) else None


def _values(flat: Sequence[Mapping[str, str]], key: str) -> set[str | None]:
    return {own.get(key) for own in flat}


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for slot in COMPARED:
        options = record.get(slot)
        for key, value in options.items() if isinstance(options, dict) else ():
            yield f"{slot}.{key}", value if isinstance(value, str) else json.dumps(value)
    yield "seed", json.dumps(record.get("run", {}).get("seed"))


def _short(key: str) -> str:
    """``sae.n_latents`` -> ``n_latents``; what a slot is filled with keeps the slot's name: ``quantizer``."""
    slot, _, option = key.rpartition(".")
    return slot if option == "use" else option


def _parts(places: Sequence[pathlib.Path]) -> list[str]:
    """Paths below the folder that holds all, no deeper than it takes to tell them apart."""
    below = [place.relative_to(os.path.commonpath(places)).parts for place in places]
    for depth in range(1, max(map(len, below)) + 1):
        texts = ["/".join(parts[:depth]) or "." for parts in below]
        if len(set(texts)) == len(texts):
            break
    return texts
