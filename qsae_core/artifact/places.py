"""Where stored coders are: the folder that a path means, and the folders of several coders. Imports no torch.

A folder holds one coder (``coder.json``), or one for each of several layers (``coders.json``).
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

from qsae_core.artifact.description import DESCRIPTION, read_description
from qsae_core.errors import ArtifactError
from qsae_core.plugins.addresses import was_address
from qsae_core.results.files import COPY, read_json
from qsae_core.results.run import Run, slug

TENSORS = "coder.safetensors"
MASTERS = "masters.safetensors"
MEMBERS = "coders.json"
FORMAT, FORMAT_VERSION = "qsae-coders", 1
"""Of ``coders.json``."""

_FOLDERS = ("", "checkpoints/final/", "final/")
"""Where below a path ``artifact_folder`` and ``set_folder`` look."""
CODER_FILES = tuple(f"{folder}{name}" for folder in _FOLDERS for name in (DESCRIPTION, TENSORS, MEMBERS))
"""What is read of one coder below the path of a run or a stored coder."""
SET_FILES = (*CODER_FILES, *(f"{folder}*/{name}" for folder in _FOLDERS for name in (DESCRIPTION, TENSORS)))
"""What is read of several."""


def artifact_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder with ``coder.json`` that a user means by a run, a checkpoint or a file.

    Raises:
        ArtifactError: if there is none.
    """
    asked = "a run's folder, its checkpoints/final, or a folder that qsae wrote"
    if not os.path.exists(path):  # pathlib's raises where a name is too long
        if was_address(path):
            raise ArtifactError(
                "is an address, and a folder is asked for here",
                where=str(path),
                allowed=asked,
                next="fetch it into a folder first; qsae_core.load and qsae import take addresses, as text",
            )
        raise ArtifactError(
            "there is no such file or folder", where=str(path), allowed=asked, next="qsae runs"
        )
    if path.name == MASTERS:
        raise ArtifactError(
            "holds the float weights that were trained, not the packed coder that is served",
            where=str(path),
            allowed=f"{path.parent}, and dictionary(quantized=False) for float atoms",
            next=f"qsae evaluate {path.parent}",
        )
    candidates = [path.parent] if path.is_file() else [path / folder for folder in _FOLDERS]
    for candidate in candidates:
        if (candidate / DESCRIPTION).is_file():
            return candidate
    several = set_folder(path)
    if several is not None:
        found = [str(d.parent) for d in sorted(several.glob(f"*/{DESCRIPTION}"))]
        found = found or ["the folder of one layer below it"]  # of an address these were not fetched
        raise ArtifactError(
            "holds several coders, one for each layer, and one is asked for here",
            where=str(path),
            allowed=", ".join(found),
            next="give one of these; qsae_core.load_set reads all of them",
        )
    if (path / "config.json").is_file() and list(path.glob("checkpoints/step_*")):
        raise ArtifactError(
            "its training has not come to an end, so it holds no trained coder yet",
            where=str(path),
            allowed=asked,
            next=f"qsae train --resume {path}",
        )
    below = sorted(path.glob(f"*/*/checkpoints/final/{DESCRIPTION}"))  # NAME/LAYER/STEPS, and NAME was given
    runs = [str(description.parents[2]) for description in below]
    raise ArtifactError(
        f"holds no trained coder (no {DESCRIPTION})",
        where=str(path),
        allowed=asked,
        next=f"give {' or '.join(runs[:3])}" if runs else "qsae runs",
    )


def set_folder(path: pathlib.Path) -> pathlib.Path | None:
    """The folder with ``coders.json`` that a user means by a run, a checkpoint or a file; else None."""
    if not os.path.exists(path):  # pathlib's raises where a name is too long
        return None
    candidates = [path.parent] if path.is_file() else [path / folder for folder in _FOLDERS]
    return next((c for c in candidates if (c / MEMBERS).is_file()), None)


def member_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Layer -> the folder of its coder, in the order of layers.

    Raises:
        ArtifactError: if ``coders.json`` is damaged or of a later format, or a coder is missing or another
            one.
    """
    record, where = read_json(folder / MEMBERS), str(folder / MEMBERS)
    try:
        fits = (record["format"], record["format_version"]) == (FORMAT, FORMAT_VERSION)
        entries = [(e["layer"], folder / slug(e["layer"]), e["sha256"]) for e in record["coders"]]
        names = [place.name for _, place, _ in entries]
        fits = fits and bool(entries) and names == [e["folder"] for e in record["coders"]]
        fits = fits and len(set(names)) == len(names)
    except (KeyError, TypeError):
        fits = False
    if not fits:
        raise ArtifactError(
            "does not describe several coders of this qsae",
            where=where,
            allowed=f"{MEMBERS} of format version {FORMAT_VERSION}, as qsae wrote it",
            next=COPY,
        )
    for layer, place, recorded in entries:
        if not (place / DESCRIPTION).is_file() or checksum(place) != recorded:
            raise ArtifactError(
                f"the coder of layer {layer} is missing or another one", where=str(place), next=COPY
            )
    return {layer: place for layer, place, _ in entries}


def stored_description(folder: pathlib.Path) -> dict[str, Any]:
    """``coder.json`` of a coder; of several that of the first, since what was configured is the same for all.

    Raises:
        ArtifactError: as ``read_description`` and ``member_folders``.
    """
    return read_description(first_folder(folder))


def first_folder(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a coder itself; of several that of the first one."""
    several = (folder / MEMBERS).is_file()
    return next(iter(member_folders(folder).values())) if several else folder


def stored_folder(path: pathlib.Path) -> pathlib.Path:
    """``set_folder``, or where there is one coder ``artifact_folder``.

    Raises:
        ArtifactError: if there is none.
    """
    return set_folder(path) or artifact_folder(path)


def is_stored(folder: pathlib.Path) -> bool:
    """Whether a coder, or one for each of several layers, is in a folder itself."""
    return any((folder / name).is_file() for name in (DESCRIPTION, MEMBERS))


def stands_alone(folder: pathlib.Path) -> bool:
    """Whether a coder, or one for each of several layers, is in a folder itself, and that is in no run
    (``RUN/checkpoints/final``), as ``qsae import`` writes it."""
    return is_stored(folder) and not Run(folder.resolve().parent.parent).config_file.is_file()


def find_alone(out: pathlib.Path) -> list[pathlib.Path]:
    """Coders that stand alone below a results folder, no deeper than runs are, in the order of paths."""
    found = {
        file.parent
        for depth in range(1, 4)
        for name in (DESCRIPTION, MEMBERS)
        for file in out.glob("*/" * depth + name)
    }
    alone = (folder for folder in found if stands_alone(folder) and not found & set(folder.parents))
    return sorted(alone)


def bytes_of(folder: pathlib.Path) -> int:
    """Of the files of a stored coder, or of one for each of several layers."""
    several = (folder / MEMBERS).is_file()
    folders = member_folders(folder).values() if several else [folder]
    files = [folder / MEMBERS] * several + [f / name for f in folders for name in (DESCRIPTION, TENSORS)]
    return sum(file.stat().st_size for file in files)


def identity(folder: pathlib.Path) -> str:
    """By which a stored coder, or one for each of several layers, is known again: of all their tensors.

    Raises:
        ArtifactError: if one of them is damaged.
    """
    places = member_folders(folder).values() if (folder / MEMBERS).is_file() else [folder]
    digests = [_stored_digest(place / TENSORS) for place in places]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _stored_digest(path: pathlib.Path) -> str:
    """The checksum in the header of a file of tensors, which are not read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError(f"a header of {length} bytes")
            return str(json.loads(file.read(length))["__metadata__"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"has no checksum that can be read ({type(error).__name__}: {error})", where=str(path), next=COPY
        ) from error


def checksum(place: pathlib.Path) -> str:
    """Of a coder's description, as ``coders.json`` holds it."""
    return hashlib.sha256((place / DESCRIPTION).read_bytes()).hexdigest()
