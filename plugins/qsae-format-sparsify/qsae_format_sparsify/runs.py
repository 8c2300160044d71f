"""What stands around a coder: its folder's name, the hookpoint, and the run's ``config.json``."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from qsae_core.contracts import Checkpoint, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, json_settings
from qsae_format_sparsify.hookpoints import HOOKPOINT, hookpoint_of, layer_of, places

CFG, RUN, WEIGHTS = "cfg.json", "config.json", "sae.safetensors"
SEED = re.compile(r"seed\d+")
"""Name of the folders below a hookpoint's where training had several seeds."""


class Surroundings(NamedTuple):
    """Of one coder."""

    hookpoint: str | None
    run: dict[str, Any]
    """The run's configuration; empty where there is none."""
    files: tuple[pathlib.Path, ...]
    """The file that it is from."""


def is_coder(path: pathlib.Path) -> bool:
    """Whether both files of a coder are there."""
    return is_file_in(path, CFG) and is_file_in(path, WEIGHTS)


def surroundings(path: pathlib.Path) -> Surroundings:
    """Of the coder in a folder: the run is described there, or in the folder around it."""
    path = path.absolute()
    place = path.parent if SEED.fullmatch(path.name) else path
    run: dict[str, Any] = {}
    files: tuple[pathlib.Path, ...] = ()
    for folder in (path, place.parent):
        if not run and is_file_in(folder, RUN):
            run = _described(folder)
            files = (folder / RUN,) if run else ()
    named = run.get("hookpoints")
    named = [name for name in named if _is_name(name)] if isinstance(named, list) else []
    if HOOKPOINT.fullmatch(place.name) or place.name in named:
        return Surroundings(place.name, run, files)
    return Surroundings(named[0] if len(named) == 1 else None, run, files)


def provenance_of(around: Surroundings, *, transcodes: bool) -> Provenance:
    """What is known of the vectors."""
    run = around.run
    model, dataset, length = (run.get(name) for name in ("model", "dataset", "ctx_len"))
    model = model if isinstance(model, str) and model else None
    at = places(around.hookpoint, model, transcodes=transcodes)
    is_length = isinstance(length, int) and not isinstance(length, bool) and length > 0
    return replace(
        at,
        model=model,
        dataset=dataset if isinstance(dataset, str) and dataset else None,
        context=length if is_length else None,
    )


def own_hookpoint(checkpoint: Checkpoint) -> str | None:
    """Of a checkpoint that is to be written: the one that it was read from, or the module of its sites."""
    known = checkpoint.settings.get("hookpoint")
    if isinstance(known, str):
        return known
    return hookpoint_of(checkpoint.provenance, transcodes=checkpoint.kind == "transcoder")


def run_of(checkpoint: Checkpoint, cfg: Mapping[str, Any], hookpoints: Iterable[str]) -> dict[str, Any]:
    """The run's ``config.json``: the one that was read, or what is known; empty where nothing is.

    Args:
        hookpoints: those that it has to name, because folders do not.
    """
    named = {"hookpoints": names} if (names := list(hookpoints)) else {}
    before = checkpoint.settings.get(RUN)
    if isinstance(before, Mapping) and before:
        return {**before, **named}
    at = checkpoint.provenance
    known = {"model": at.model, "dataset": at.dataset, "ctx_len": at.context}
    found = named | {name: value for name, value in known.items() if value is not None}
    return {"sae": dict(cfg), **found} if found else {}


def members(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name -> folder of each coder below a run's folder, numbers in their names in order. Names are those of
    layers, where each has another; else of the sites that are encoded, where these are known, or of folders.

    Raises:
        ArtifactError: if several are of one hookpoint.
    """
    folders = coders_below(path)
    around = [surroundings(folder) for folder in folders]
    hookpoints = [place.hookpoint for place in around if place.hookpoint is not None]
    names = [folder.relative_to(path).as_posix() for folder in folders]
    if len(set(hookpoints)) < len(hookpoints):
        raise ArtifactError(
            f"it holds several coders of one hookpoint: {', '.join(names[:20])}",
            where=str(path),
            allowed="one coder, or one for each of several hookpoints",
            next=f"import one of them: {folders[0]}",
        )
    layers = [layer_of(hookpoint) for hookpoint in hookpoints]
    if len(set(layers)) == len(folders) and None not in layers:
        return {str(layer): folder for layer, folder in zip(layers, folders, strict=True)}
    sites = [_source(folder, place) for folder, place in zip(folders, around, strict=True)]
    return dict(zip(sites if len(set(sites) - {""}) == len(folders) else names, folders, strict=True))


def coders_below(path: pathlib.Path) -> list[pathlib.Path]:
    """Folders of coders in a run's folder; where there are none, those within its folders (of seeds)."""
    inner = _folders(path)
    found = [folder for folder in inner if is_coder(folder)]
    return found or [folder for outer in inner for folder in _folders(outer) if is_coder(folder)]


def is_transcoder(cfg: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Until 12 February 2025 the run's configuration said it."""
    return True in (cfg.get("transcode"), cfg.get("skip_connection"), run.get("transcode"))


def _source(folder: pathlib.Path, around: Surroundings) -> str:
    """The site that a coder reads; empty where it is not known."""
    transcodes = is_transcoder(json_settings(file_in(folder, CFG)), around.run)
    return ",".join(provenance_of(around, transcodes=transcodes).sources)


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    try:
        found = [place for place in path.iterdir() if place.is_dir()]
    except OSError:  # a file, nothing, or a folder that may not be read
        return []
    return sorted(found, key=_natural)


def _natural(path: pathlib.Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() and len(part) < 20 else (-1, part) for part in parts]


def _is_name(hookpoint: Any) -> bool:
    """Of a module, and so of a folder here."""
    return isinstance(hookpoint, str) and re.fullmatch(r"\w+(\.\w+)*", hookpoint) is not None


def _described(folder: pathlib.Path) -> dict[str, Any]:
    """A run's configuration, which has a section ``sae``; the file of that name may be a model's."""
    try:
        found = json_settings(file_in(folder, RUN))
    except ArtifactError:
        if is_coder(folder):
            raise
        return {}  # something else of that name, around a coder
    return found if isinstance(found.get("sae"), Mapping) else {}
