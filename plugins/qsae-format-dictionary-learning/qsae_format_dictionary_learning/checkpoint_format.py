"""The format ``dictionary-learning``: a state dict of one of the library's classes, and its configuration."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from qsae_core.contracts import Checkpoint, CheckpointFormat
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, json_settings
from qsae_format_dictionary_learning import notes, settings
from qsae_format_dictionary_learning.classes import DICT_CLASSES, classes_of
from qsae_format_dictionary_learning.folders import CONFIG, WEIGHTS, by_layer, coders_below
from qsae_format_dictionary_learning.groups import components
from qsae_format_dictionary_learning.reading import dense_form
from qsae_format_dictionary_learning.state import State, read_state
from qsae_format_dictionary_learning.writing import choose, state_dict

BARE = ".pt"
"""Suffix of a state dict alone."""


class _Files(NamedTuple):
    weights: pathlib.Path
    config: pathlib.Path | None


class DictionaryLearningFormat(CheckpointFormat):
    """A folder with ``ae.pt`` and ``config.json``, or such a ``.pt`` file.

    Settings are ``{"config.json": what it holds, "ae.pt": what of the tensors a dense form does not hold}``.
    """

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether there are tensors of one of the classes, or folders with an ``ae.pt`` below it."""
        try:
            if path.is_dir() and not is_file_in(path, WEIGHTS):
                return bool(coders_below(path))
            files = _files(path)
            known = classes_of(read_state(files.weights).tensors)
            named = files.config and "dict_class" in _trainer(json_settings(files.config), files.config)
        except (ArtifactError, OSError):
            return False
        # other libraries have files of these names too, each alone
        return bool(named) or (bool(known) and (known != ["AutoEncoderNew"] or path.name.startswith("ae")))

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> folder, where each coder below is of another layer."""
        alone = not path.is_dir() or is_file_in(path, WEIGHTS)
        return {} if alone else by_layer(path)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The dense form of the class that the tensors say, or the configuration where they leave it open."""
        files, where = _files(path), str(path)
        config = json_settings(files.config) if files.config else {}
        state = read_state(files.weights)
        trainer = settings.section(config, "trainer", where)
        name = _class(state, trainer, where)
        said_k = settings.whole_number(trainer, "k", where)
        dense, kept = dense_form(name, state.tensors, said_k, where)
        dense.validate(where)
        _check_sizes(trainer, dense.n_latents, dense.W_enc.shape[1], where)
        both = settings.section(config, "buffer", where).get("io") == settings.BOTH_SIDES
        said = {CONFIG: config} if files.config else {}
        return Checkpoint(
            dense,
            "transcoder" if both else "sae",
            settings.provenance_of(config, where),
            {**said, WEIGHTS: kept},
            tuple(file for file in files if file is not None),
            components(name, kept),
            notes.of(name, dense, kept, trainer, state),
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """``ae.pt`` and ``config.json`` in a folder; at a path that ends in ``.pt``, the state dict alone."""
        where = str(path)
        checkpoint.dense.validate(where)
        kept = checkpoint.settings.get(WEIGHTS, {})
        written = choose(checkpoint, kept, where)
        is_bare = path.suffix == BARE
        if is_bare and len(classes_of(DICT_CLASSES[written.dict_class].keys)) > 1:
            raise ArtifactError(
                f"the tensors of a {written.dict_class} alone do not tell what it computes",
                where=where,
                allowed="a folder, with config.json beside them",
                next=f"--out {path.with_suffix('')}",
            )
        tensors = state_dict(written, checkpoint.dense, kept)
        if is_bare:
            _save(tensors, path)
            return
        before = checkpoint.settings.get(CONFIG)
        config = settings.changed_config(before, kept, checkpoint, written) if before else None
        path.mkdir(parents=True)
        _save(tensors, path / WEIGHTS)
        text = json.dumps(config or settings.config_of(checkpoint, written), indent=4, allow_nan=False)
        (path / CONFIG).write_text(text, encoding="utf-8")

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """``SUBMODULE/trainer_0`` of each."""
        names = {}
        for name, checkpoint in checkpoints.items():
            names[name] = settings.folder_name(checkpoint, f"{path}: {name}")
        if len(set(names.values())) < len(names):
            raise ArtifactError(
                f"several of its coders would be in one folder: {', '.join(names.values())}",
                where=str(path),
                allowed="coders of different layers",
            )
        for name, checkpoint in checkpoints.items():
            self.write(checkpoint, path / names[name] / "trainer_0")


def _files(path: pathlib.Path) -> _Files:
    """The weights, and the configuration beside them; of ``checkpoints/ae_STEP.pt`` that of its run."""
    if path.is_dir():
        folder, weights = path, file_in(path, WEIGHTS)
    else:
        weights = path
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    has_config = is_file_in(folder, CONFIG)
    if has_config and not path.is_dir():  # the configuration of something else may lie beside a file
        has_config = "dict_class" in _trainer(json_settings(folder / CONFIG), folder / CONFIG)
    return _Files(weights, folder / CONFIG if has_config else None)


def _trainer(config: Mapping[str, Any], where: pathlib.Path) -> Mapping[str, Any]:
    return settings.section(config, "trainer", str(where))


def _class(state: State, trainer: Mapping[str, Any], where: str) -> str:
    """What the tensors say; where two classes have the same ones, what the configuration says."""
    said, known = settings.dict_class(trainer), classes_of(state.tensors)
    if said is not None and said not in DICT_CLASSES:
        raise ArtifactError(
            f"its class is {said}, which is not read here", where=where, allowed=", ".join(DICT_CLASSES)
        )
    if not known:
        raise ArtifactError(
            f"its tensors are those of no class: {', '.join(state.tensors)[:400]}",
            where=where,
            allowed="; ".join(f"{name}: {', '.join(c.keys)}" for name, c in DICT_CLASSES.items()),
        )
    if len(known) == 1:
        return known[0]
    if said in known:
        return str(said)
    raise ArtifactError(
        f"its tensors are those of {' and of '.join(known)}, which compute different latents",
        where=where,
        allowed=f"a file {CONFIG} beside it that says which",
        next=f'write {CONFIG} beside it: {{"trainer": {{"dict_class": "{known[0]}"}}}}',
    )


def _check_sizes(trainer: Mapping[str, Any], n_latents: int, width: int, where: str) -> None:
    for name, actual in (("dict_size", n_latents), ("activation_dim", width)):
        said = settings.whole_number(trainer, name, where)
        if said not in (None, actual):
            raise ArtifactError(
                f"trainer.{name} is {said}, and the tensors' is {actual}",
                where=where,
                next=f"check that {CONFIG} and {WEIGHTS} are of one coder",
            )


def _save(tensors: Mapping[str, Any], path: pathlib.Path) -> None:
    """torch.save, whose error for a disk that refuses is no OSError."""
    try:
        torch.save(tensors, path)
    except RuntimeError as error:
        raise OSError(str(error)) from error
