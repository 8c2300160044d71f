"""The files of a run or a stored coder that go to a repository, and where they lie there.

A coder is always at ``checkpoints/final`` of its folder there, as in a run's: so an address of it looks the
same whatever was pushed, and folders of several coders do not get into one another's way.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsae_core import Run
from qsae_core.errors import ArtifactError
from qsae_core.runs import MASTERS, MEMBERS, artifact_folder, member_folders, read_json, set_folder
from qsae_hub.fetching import DESCRIPTION, TENSORS
from qsae_hub.names import matches
from qsae_hub.remote import FINAL

TWIN = "checkpoints/float_twin"
RESULTS = "results"
"""Where runs are, unless told otherwise."""
OWN = ("config.json", "metrics.json", *(f"{FINAL}/{n}" for n in (MEMBERS, DESCRIPTION, TENSORS)))
CODER = (*OWN, f"{FINAL}/*/{DESCRIPTION}", f"{FINAL}/*/{TENSORS}")
"""What is always pushed and pulled: the packed coder, or one for each layer, its record, its numbers."""
PARTS = {
    "evaluations": ("evaluations/**",),
    "metrics": ("metrics/**",),
    "float-twin": (f"{TWIN}/**",),
    "masters": (f"{FINAL}/{MASTERS}", f"{FINAL}/*/{MASTERS}"),
    "checkpoints": ("checkpoints/step_*/**",),
}
"""What is pushed and pulled where it is asked for: name -> its files below a run's folder."""
OF_RUN = ("process",)
"""Keys of ``config.json`` that name the machine, and stay here."""


@dataclass(frozen=True)
class Local:
    """What there is to push."""

    stored: pathlib.Path
    """The folder with the coder, or with one for each layer."""
    files: dict[str, pathlib.Path | bytes]
    """Path below the coder's folder in the repository -> the file, or its bytes."""
    left_out: dict[str, int]
    """Part that was not asked for -> its bytes."""
    record: dict[str, Any] | None
    """``config.json``, of a run."""
    metrics: dict[str, Any] | None
    descriptions: dict[str, dict[str, Any]]
    """Layer -> ``coder.json``; a single coder's under the empty name."""


def collect(path: pathlib.Path, parts: Sequence[str]) -> Local:
    """The files of a finished run, or of a stored coder alone.

    Args:
        parts: what is asked for of ``PARTS``.

    Raises:
        ArtifactError: if there is no sound coder, its run has not ended, or it lacks a part.
    """
    stored = set_folder(path) or artifact_folder(path)
    members = member_folders(stored) if (stored / MEMBERS).is_file() else {"": stored}
    run = Run(path) if stored == Run(path).final and Run(path).config_file.is_file() else None
    if run is None:
        found = {f"{FINAL}/{file.relative_to(stored).as_posix()}": file for file in _files(stored)}
    else:
        _check_finished(run)
        found = {file.relative_to(path).as_posix(): file for file in _files(path)}
    by_part = {part: {n: f for n, f in found.items() if matches(n, PARTS[part])} for part in PARTS}
    files = _chosen(found, by_part, parts, path)
    record = None if run is None else run.record()
    if record is not None:
        kept = {key: value for key, value in record.items() if key not in OF_RUN}
        files["config.json"] = (json.dumps(kept, indent=2) + "\n").encode()
    sizes = {part: sum(map(size_of, own.values())) for part, own in by_part.items()}
    return Local(
        stored,
        dict(sorted(files.items())),
        {part: size for part, size in sizes.items() if size and part not in parts},
        record,
        None if run is None else read_json(run.metrics_file),
        {name: read_json(place / DESCRIPTION) for name, place in members.items()},
    )


def _chosen(
    found: Mapping[str, pathlib.Path],
    by_part: Mapping[str, Mapping[str, pathlib.Path]],
    parts: Sequence[str],
    path: pathlib.Path,
) -> dict[str, pathlib.Path | bytes]:
    """The coder's files, and those of the parts that are asked for."""
    files: dict[str, pathlib.Path | bytes] = {n: f for n, f in found.items() if matches(n, CODER)}
    for part in parts:
        if not by_part[part]:
            having = ", ".join(part for part, own in by_part.items() if own) or "none"
            raise ArtifactError(f"has no {part}", where=str(path), allowed=having)
        files |= by_part[part]
    return files


def check_loads(local: Local) -> None:
    """Load the coder once, so that nothing is pushed that nobody could load.

    Raises:
        QsaeError: as ``qsae_core.load``.
    """
    import qsae_core

    (qsae_core.load_set if (local.stored / MEMBERS).is_file() else qsae_core.load)(local.stored)


def size_of(content: pathlib.Path | bytes) -> int:
    """In bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _check_finished(run: Run) -> None:
    if not run.finished or not run.metrics_file.exists():
        raise ArtifactError(
            f"its run has not come to an end (status: {run.record().get('status')})",
            where=str(run.path),
            allowed="a finished run, or the folder of a stored coder alone",
            next=run.resume_command,
        )


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """All that is complete: what is being written has a name that begins with a dot."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts):
            yield file
