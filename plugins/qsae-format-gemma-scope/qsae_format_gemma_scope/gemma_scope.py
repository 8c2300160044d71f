"""The format ``gemma-scope``: five arrays, and folders that say what they are.

Shapes: D width of the input, E of the output, F latents.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy
import torch
from torch import Tensor

from qsae_core.contracts import Checkpoint, CheckpointFormat, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, npz_tensors
from qsae_format_gemma_scope.below import by_layer, files_below
from qsae_format_gemma_scope.folders import NO_SITE, Folders
from qsae_format_gemma_scope.jumprelu import NEGATIVE, UNKNOWN, as_jumprelu, at_least_0, turned, width_name

FILE = "params.npz"
ARRAYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
SCALE = "scaling_factor"
FIELDS = {name.lower(): name for name in ARRAYS} | {name: name for name in (*ARRAYS, SCALE)}
"""Name of an array, of newer and of older files -> what it is."""
ALLOWED = f"the arrays {', '.join(ARRAYS)} of numpy.savez"


class GemmaScopeFormat(CheckpointFormat):
    """``params.npz`` with ``W_enc [D, F]``, ``W_dec [F, E]``; nothing is subtracted from x."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether it is such a file, or the first ``params.npz`` in the folder or below is one."""
        try:
            file = next(iter(_files(path)), None)
            return file is not None and {FIELDS.get(name) for name in npz_tensors(file)} >= set(ARRAYS)
        except (ArtifactError, OSError):
            return False

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Of a folder with several ``params.npz`` below it: layer -> its own folder."""
        files = list(_files(path))
        if len(files) < 2:
            return {}
        return by_layer({file.parent: Folders.around(file).layer for file in files}, path)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The one ``params.npz``; model, layer and site are what the folders around it say."""
        file = _the_file(path)
        arrays = npz_tensors(file)
        found = _named(arrays, str(file))
        folders = Folders.around(file)
        dense = DenseForm(
            W_enc=turned(found["W_enc"]),
            b_enc=found["b_enc"],
            W_dec=found["W_dec"],
            b_dec=found["b_dec"],
            activation="jumprelu",
            threshold=at_least_0(found["threshold"]),
        )
        dense.validate(str(file))
        _check_scale(found.get(SCALE), dense, str(file))
        transcodes = folders.kind == "transcoders" or dense.W_enc.shape[1] != dense.W_dec.shape[1]
        kind = folders.kind
        notes = [NO_SITE[kind]] if kind in NO_SITE else [] if kind or transcodes else [UNKNOWN]
        notes += [NEGATIVE] if dense.threshold is not found["threshold"] else []
        return Checkpoint(
            dense,
            "transcoder" if transcodes else "sae",
            folders.provenance(),
            {"folder": str(folders), "arrays": list(arrays)},
            (file,),
            notes=tuple(notes),
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """``params.npz`` in a folder, below folders that say what it is for, as far as they can."""
        _write(checkpoint, path, _folders(checkpoint, str(path)))

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """Each of them in its own folders."""
        places = {name: _folders(checkpoint, str(path)) for name, checkpoint in checkpoints.items()}
        for name, place in places.items():
            if place.layer is None and name.isdecimal():
                places[name] = Folders.named(f"layer_{name}")
        by_layer({path / name: place.layer for name, place in places.items()}, path)
        for name, checkpoint in checkpoints.items():
            _write(checkpoint, path, places[name])


def _files(path: pathlib.Path) -> Iterable[pathlib.Path]:
    if path.is_dir():
        return (file_in(file.parent, FILE) for file in files_below(path, FILE))
    return [path] if path.suffix == ".npz" else []


def _the_file(path: pathlib.Path) -> pathlib.Path:
    files = list(_files(path))
    if len(files) == 1:
        return files[0]
    raise ArtifactError(
        f"has {len(files)} files {FILE} below it" if files else f"there is no {FILE}, here or below",
        where=str(path),
        allowed=f"a {FILE}, or a folder with one",
    )


def _named(arrays: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """What each array is -> its values."""
    others = [name for name in arrays if name not in FIELDS]
    if others:
        raise ArtifactError(f"has the array {others[0]!r}, which is not known", where=where, allowed=ALLOWED)
    found = {FIELDS[name]: values for name, values in arrays.items()}
    missing = [name for name in ARRAYS if name not in found]
    if missing or len(found) < len(arrays):
        what = f"there is no array {missing[0]}" if missing else "an array is there under two names"
        raise ArtifactError(what, where=where, allowed=ALLOWED)
    return found


def _check_scale(scale: Tensor | None, dense: DenseForm, where: str) -> None:
    """Older files may have factors of the latents, which are 1 wherever they were published."""
    if scale is None or (scale.shape == dense.b_enc.shape and bool((scale == 1).all())):
        return
    raise ArtifactError(
        f"has a {SCALE} that is not 1 for each latent; where it applies is published nowhere",
        where=where,
        allowed=f"no {SCALE}, or ones",
    )


def _folders(checkpoint: Checkpoint, where: str) -> Folders:
    """The folders that it came from, or those in which one for its vectors would be."""
    dense, told = checkpoint.dense, checkpoint.settings.get("folder")
    found = Folders.named(told) if isinstance(told, str) else Folders()
    if not str(found):
        found = Folders.of(checkpoint.provenance, width_name(dense.n_latents))
    square = dense.W_enc.shape[1] == dense.W_dec.shape[1]
    if checkpoint.kind == "transcoder" and square and found.kind != "transcoders":
        raise ArtifactError(
            "a params.npz of a transcoder is known as one by the folder gemma-scope-2b-pt-transcoders alone, "
            "and is then for inputs before the weight of the norm",
            where=where,
            allowed="SAEs, and transcoders of gemma-scope",
            next="--format gemma-scope-2 has a place for it",
        )
    return found


def _write(checkpoint: Checkpoint, path: pathlib.Path, folders: Folders) -> None:
    where = str(path)
    if path.suffix == ".npz":
        raise ArtifactError(f"a folder is written, with {FILE} in it", where=where, next="name a folder")
    dense = as_jumprelu(checkpoint.dense, where)
    arrays = _arrays(dense, checkpoint.settings.get("arrays", list(ARRAYS)), where)
    file = path / str(folders) / FILE
    file.parent.mkdir(parents=True)
    with file.open("xb") as out:
        numpy.savez(out, **arrays)  # type: ignore[arg-type]  # its stub takes a name for allow_pickle


def _arrays(dense: DenseForm, names: Any, where: str) -> dict[str, numpy.ndarray[Any, Any]]:
    """Arrays under these names, in this order."""
    if dense.W_skip is not None or dense.layers > 1:
        what = "a skip connection" if dense.W_skip is not None else f"vectors of {dense.layers} layers"
        raise ArtifactError(
            f"this format has no place for a coder with {what}",
            where=where,
            next="--format gemma-scope-2 has one",
        )
    values = replace(dense, W_enc=turned(dense.W_enc)).tensors() | {SCALE: torch.ones_like(dense.b_enc)}
    if torch.bfloat16 in {tensor.dtype for tensor in values.values()}:
        raise ArtifactError(
            "numpy has no bfloat16", where=where, allowed="float32, float16", next="add --dtype float32"
        )
    known = isinstance(names, list) and all(isinstance(name, str) and name in FIELDS for name in names)
    if not known or {*ARRAYS} - {FIELDS[name] for name in names}:
        raise ArtifactError(f"its settings name other arrays: {names}", where=where, allowed=ALLOWED)
    return {name: numpy.ascontiguousarray(values[FIELDS[name]].detach().numpy()) for name in names}
