"""What the rows of a comparison are called: short, and no two alike."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qsae_compare.measured import Measured
from qsae_core.runs import CODER_SLOTS, coder_label, quantizers_of

MOST_OPTIONS, LONGEST = 2, 48
"""Options, and their characters, that a label has at most."""
TWIN = "float twin"


def labels(groups: Sequence[Sequence[Measured]], by_seed: bool) -> list[str]:
    """A label for each group of coders that differ in their seed alone.

    The run's name without its seed, or the coder's. Rows of one name also say in which options they differ;
    where that is long, float twins say of which run they are, and other rows have a part of their path.

    Args:
        by_seed: every group is one coder, and says its seed.
    """
    first = [members[0] for members in groups]
    names = [_name(m) for m in first]
    found: dict[int, str] = {}
    for name in sorted(set(names), key=TWIN.__eq__):  # twins last: they take the labels of their runs
        at = [i for i, other in enumerate(names) if other == name]
        runs = {m.run: label for i, label in found.items() for m in groups[i]}
        alike = [first[i] for i in at]
        seeds = [f"seed={m.seed}" if by_seed else "" for m in alike]
        found |= zip(at, _told_apart(name, alike, seeds, runs), strict=True)
    return [found[i] for i in range(len(groups))]


def _told_apart(
    name: str, alike: Sequence[Measured], seeds: Sequence[str], runs: Mapping[pathlib.Path | None, str]
) -> list[str]:
    """Labels of coders of one name.

    Args:
        seeds: what each says of its seed; empty for nothing.
        runs: folder of a run -> the label of its coder.
    """
    listed = _options(alike)
    options = [", ".join(own) for own in listed]
    short = max(map(len, listed)) <= MOST_OPTIONS and max(map(len, options)) <= LONGEST
    if short and _distinct(options, seeds):
        return [_bracketed(name, *more) for more in zip(options, seeds, strict=True)]
    places = _places(alike, seeds)
    if name != TWIN:
        return [_bracketed(name, *more) for more in zip(places, seeds, strict=True)]
    of = [runs[m.run] for m in alike if m.run in runs]
    if len(of) == len(alike) == len(set(of)):
        return [f"{TWIN} of {run}" for run in of]
    return [_bracketed(f"{TWIN} of {place}", seed) for place, seed in zip(places, seeds, strict=True)]


def _name(m: Measured) -> str:
    if m.is_twin:
        return f"{TWIN}, layer {m.of_layer}" if m.of_layer else TWIN
    if m.run is None:
        return m.folder.name
    given = m.config["run"].get("name")
    if given:
        return str(given).removesuffix(f"-seed{m.seed}")
    return coder_label(m.coder, quantizers_of(m.config))


def _options(alike: Sequence[Measured]) -> list[list[str]]:
    """For each coder its options that are another one's otherwise."""
    flat = [dict(_flatten(m.essence)) for m in alike]
    return [
        [f"{_short(k)}={own[k]}" for k in own if any(other.get(k) != own[k] for other in flat)]
        for own in flat
    ]


def _places(alike: Sequence[Measured], seeds: Sequence[str]) -> list[str]:
    """Paths below the folder that holds all, without seeds, no deeper than it takes to tell them apart."""
    paths = [(m.run or m.folder).resolve() for m in alike]
    below = [path.relative_to(os.path.commonpath(paths)) for path in paths]
    parts = [[p.removesuffix(f"-seed{m.seed}") for p in b.parts] for b, m in zip(below, alike, strict=True)]
    for depth in range(1, max(map(len, parts)) + 1):
        texts = ["/".join(own[:depth]) or "." for own in parts]
        if _distinct(texts, seeds):
            return texts
    return [str(path) for path in below]


def _distinct(texts: Sequence[str], seeds: Sequence[str]) -> bool:
    return len(set(zip(texts, seeds, strict=True))) == len(texts)


def _bracketed(name: str, *more: str) -> str:
    given = [text for text in more if text]
    return f"{name} ({', '.join(given)})" if given else name


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list) else value


def _short(key: str) -> str:
    """``sae.n_latents`` -> ``n_latents``; a part's name keeps its slot: ``quantizer``."""
    slot, _, option = key.rpartition(".")
    return slot if option == "use" else option if slot in (*CODER_SLOTS, "train") else key
