"""The format ``sparsify``: a TopK coder of square matrices, and the library's configuration of it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts import Checkpoint, CheckpointFormat, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings, safetensors_names, safetensors_tensors
from qsae_format_sparsify.configuration import Configuration, configuration, written
from qsae_format_sparsify.notes import notes
from qsae_format_sparsify.runs import (
    CFG,
    RUN,
    WEIGHTS,
    coders_below,
    is_coder,
    is_transcoder,
    members,
    own_hookpoint,
    provenance_of,
    run_of,
    surroundings,
)

FIELDS = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
SKIP = {"W_skip": "W_skip"}
"""Field -> tensor, of a coder with ``skip_connection``."""


class SparsifyFormat(CheckpointFormat):
    """``cfg.json`` and ``sae.safetensors`` in a folder of the hookpoint's name, of which a run's folder has
    several.

    Settings are ``{"cfg.json": ..., "config.json": the run's, "hookpoint": ...}``, those that are known.
    """

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether both files are there, with an encoder and the width of its inputs; or folders with them."""
        if not is_coder(path):
            return bool(coders_below(path))
        try:
            names = safetensors_names(file_in(path, WEIGHTS))
            return "d_in" in json_settings(file_in(path, CFG)) and "encoder.weight" in names
        except ArtifactError:
            return False

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """The coder of each hookpoint."""
        return {} if is_coder(path) else members(path)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The coder in a folder; where it is from, by the folder's name and the run's configuration."""
        where = str(path)
        cfg = json_settings(file_in(path, CFG))
        said, tensors = configuration(cfg, where), safetensors_tensors(file_in(path, WEIGHTS))
        dense, around = _dense(tensors, said, where), surroundings(path)
        dense.validate(where)
        kind: Literal["sae", "transcoder"] = "transcoder" if is_transcoder(cfg, around.run) else "sae"
        known = {CFG: cfg, RUN: around.run, "hookpoint": around.hookpoint}
        return Checkpoint(
            dense,
            kind,
            provenance_of(around, transcodes=kind == "transcoder"),
            {name: value for name, value in known.items() if value},
            (path / CFG, path / WEIGHTS, *around.files),
            notes=notes(cfg, kind, dense),
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """Both files; what is known of the run beside them, since there is no run's folder around them."""
        cfg, tensors = _of_coder(checkpoint, str(path))
        hookpoint = own_hookpoint(checkpoint)
        is_named = hookpoint is None or hookpoint == path.name
        run = run_of(checkpoint, cfg, [] if is_named else [str(hookpoint)])
        path.mkdir(parents=True)
        _save(path, cfg, tensors)
        if run:
            _write_json(path / RUN, run)

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """A run's folder: one of each hookpoint, which has its name, and ``config.json``."""
        folders = {name: own_hookpoint(checkpoint) or name for name, checkpoint in checkpoints.items()}
        if len(set(folders.values())) < len(folders) or any("/" in folder for folder in folders.values()):
            raise ArtifactError(
                f"its coders would be in the folders {', '.join(folders.values())}",
                where=str(path),
                allowed="coders of different hookpoints",
            )
        cfg: dict[str, Any] = {}
        for name, checkpoint in checkpoints.items():
            cfg, tensors = _of_coder(checkpoint, f"{path}: {name}")
            (path / folders[name]).mkdir(parents=True)
            _save(path / folders[name], cfg, tensors)
        first = next(iter(checkpoints.values()))
        hookpoints = [hookpoint for one in checkpoints.values() if (hookpoint := own_hookpoint(one))]
        run = run_of(first, cfg, [] if RUN in first.settings else hookpoints)
        if run:
            _write_json(path / RUN, run)


def _dense(tensors: Mapping[str, Tensor], said: Configuration, where: str) -> DenseForm:
    """The dense form, whose tensors are those of the configuration and no others."""
    F, d = said.n_latents, said.d_in
    fields = FIELDS | (SKIP if said.skips else {})
    sizes = {"W_enc": (F, d), "b_enc": (F,), "W_dec": (F, d), "b_dec": (d,), "W_skip": (d, d)}
    wanted = {name: sizes[field] for field, name in fields.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != wanted:
        raise ArtifactError(
            f"its tensors are {_shown(found)}",
            where=f"{where}/{WEIGHTS}",
            allowed=f"what cfg.json asks for: {_shown(wanted)}",
        )
    own: dict[str, Any] = {field: tensors[name] for field, name in fields.items()}
    return DenseForm(**own, k=said.k, subtracts_b_dec=not said.transcodes)


def _of_coder(checkpoint: Checkpoint, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``cfg.json`` and the tensors."""
    dense = checkpoint.dense
    dense.validate(where)
    fault = _fault(dense)
    if fault is not None:
        raise ArtifactError(
            f"sparsify has no place for a coder with {fault}",
            where=where,
            allowed="the k largest latents of a relu, as many outputs as inputs, with or without W_skip",
        )
    if checkpoint.kind == "sae":
        dense = dense.with_offset(True)
    cfg = written(checkpoint.settings.get(CFG, {}), dense, transcodes=not dense.subtracts_b_dec)
    return cfg, {(FIELDS | SKIP)[field]: _own(tensor) for field, tensor in dense.tensors().items()}


def _fault(dense: DenseForm) -> str | None:
    if dense.layers > 1:
        return "several layers"
    if dense.W_enc.shape[1] != dense.W_dec.shape[1]:
        return f"{dense.W_enc.shape[1]} inputs and {dense.W_dec.shape[1]} outputs"
    if dense.activation != "relu" or dense.k is None:
        return f"activation {dense.activation}" + (
            " and no fixed number of latents" if dense.k is None else ""
        )
    return f"the {dense.k} largest latents times the norms of their atoms" if dense.ranks_by_norm else None


def _own(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


def _save(path: pathlib.Path, cfg: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path / WEIGHTS)
    _write_json(path / CFG, cfg)


def _write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, allow_nan=False), encoding="utf-8")


def _shown(sizes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(size)}" for name, size in sorted(sizes.items())[:20])
