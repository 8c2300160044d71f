"""The format ``saelens``: cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts import Checkpoint, CheckpointFormat
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, json_settings, safetensors_names, safetensors_tensors
from qsae_format_saelens.hooks import is_transcoder, metadata_of, provenance_of
from qsae_format_saelens.notes import notes_of
from qsae_format_saelens.understood import Rule, understood
from qsae_format_saelens.weights import dense_of, tensors_of, writable

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"
"""Of the SAELens whose files are written."""
OF_A_RULE = (
    "activation_fn",
    "activation_fn_str",
    "activation_fn_kwargs",
    "k",
    "rescale_acts_by_decoder_norm",
    "d_out",
)
"""What says something of the rule in one version or of one architecture, and nothing elsewhere."""


class SaeLensFormat(CheckpointFormat):
    """SAEs and transcoders of SAELens 6, and of its older versions as 6 takes them."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether both files are there, with SAELens' sizes and a decoder; or folders with these."""
        return _is_one(path) or any(_is_one(place) for place in _places(path))

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Folder's name -> folder, in the order of layers where cfg.json says them."""
        places = [] if is_file_in(path, CFG) else _places(path)
        return {place.name: place for place in sorted(places, key=_order)}

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The dense form, all of cfg.json, and what SAELens' own loaders do otherwise."""
        cfg_file, weights_file = file_in(path, CFG), file_in(path, WEIGHTS)
        settings = json_settings(cfg_file)
        found = understood(settings, str(cfg_file))
        dense, folded = dense_of(safetensors_tensors(weights_file), found, str(weights_file))
        dense.validate(str(weights_file))
        return Checkpoint(
            dense,
            "transcoder" if is_transcoder(found) else "sae",
            provenance_of(found),
            settings,
            (cfg_file, weights_file),
            notes=(*folded, *notes_of(found, dense, path)),
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """Both files, in a folder."""
        checkpoint.dense.validate(str(path))
        dense, rule = writable(checkpoint.dense, checkpoint.kind, str(path))
        tensors = tensors_of(dense)
        cfg = (
            _changed(checkpoint.settings, rule, tensors)
            if checkpoint.settings
            else _new(checkpoint, rule, tensors)
        )
        path.mkdir(parents=True)
        save_file(tensors, path / WEIGHTS)
        (path / CFG).write_text(json.dumps(cfg, allow_nan=False), encoding="utf-8")  # as SAELens lays it out

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """A folder for each, under its name."""
        for name, checkpoint in checkpoints.items():
            if name != pathlib.PurePath(name).name or name in (".", ".."):
                raise ArtifactError(f"{name!r} is no name of a folder", where=str(path))
            self.write(checkpoint, path / name)


def _places(path: pathlib.Path) -> list[pathlib.Path]:
    """The folders below that have both files; links to folders are not followed."""
    try:
        below = [place for place in path.iterdir() if place.is_dir() and not place.is_symlink()]
    except OSError:
        return []
    return [place for place in below if is_file_in(place, CFG) and is_file_in(place, WEIGHTS)]


def _is_one(path: pathlib.Path) -> bool:
    try:
        settings = json_settings(file_in(path, CFG))
        names = safetensors_names(file_in(path, WEIGHTS))
    except ArtifactError:
        return False
    return "W_dec" in names and {"d_in", "d_sae"} <= settings.keys()


def _order(place: pathlib.Path) -> tuple[Any, ...]:
    """By layer, then by name, in which numbers count as such."""
    name = [
        (int(digits), "") if digits else (-1, text)
        for digits, text in re.findall(r"(\d{1,9})|(\D+)", place.name)
    ]
    try:
        found = understood(json_settings(file_in(place, CFG)), str(place))
    except ArtifactError:
        return -1, name
    hook = re.search(r"\.(\d{1,9})(?:\.|$)", str(found.metadata.get("hook_name")))
    return int(hook[1]) if hook else -1, name


def _dtype(tensors: Mapping[str, Tensor]) -> str:
    """The narrowest type that holds them all."""
    types = [tensor.dtype for tensor in tensors.values()]
    return str(functools.reduce(torch.promote_types, types)).removeprefix("torch.")


def _new(checkpoint: Checkpoint, rule: Rule, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """cfg.json of a coder that comes from elsewhere."""
    metadata = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    metadata |= metadata_of(checkpoint.provenance)
    return {
        **rule.cfg(),
        "dtype": _dtype(tensors),
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }


def _changed(settings: Mapping[str, Any], rule: Rule, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """cfg.json of a coder that was imported, with what its weights and rule say otherwise."""
    found, cfg = understood(settings, CFG), dict(settings)
    if found.rule != rule:
        cfg = {name: value for name, value in cfg.items() if name not in OF_A_RULE} | rule.cfg()
    if found.is_finetuned:
        cfg["finetuning_scaling_factor"] = False
    rounded = getattr(torch, found.dtype)
    if torch.promote_types(tensors["W_enc"].dtype, rounded) != rounded:
        cfg["dtype"] = _dtype(tensors)
    return cfg
