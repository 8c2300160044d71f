"""The format ``gemma-scope-2``: params.safetensors and config.json; of several layers a file for each.

Shapes: D width of the input, E of the output, F latents.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts import Checkpoint, CheckpointFormat, CrossLayerForm, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, safetensors_names
from qsae_format_gemma_scope import several_layers
from qsae_format_gemma_scope.below import by_layer, files_below
from qsae_format_gemma_scope.config import (
    CONFIG,
    Found,
    Type,
    completed,
    config_files,
    settings_for,
    settings_in,
    type_of,
)
from qsae_format_gemma_scope.hooks import HEADS, HOOKS_OF, layers_of, provenance_of
from qsae_format_gemma_scope.jumprelu import NEGATIVE, UNKNOWN, as_jumprelu, width_name
from qsae_format_gemma_scope.one_layer import REQUIRED, dense_form, kind_of, tensors_for, tensors_of

FILE = "params.safetensors"
FIRST = several_layers.FILE.format(0)
Tensors = dict[str, Tensor]


class GemmaScope2Format(CheckpointFormat):
    """A JumpReLU SAE or transcoder, or a crosscoder, of which each latent reads one layer."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether it is such a folder or file, or the first one below is."""
        try:
            folder = next(_folders(path), None)
            if folder is None:
                return False
            file = FILE if is_file_in(folder, FILE) else FIRST
            return safetensors_names(file_in(folder, file)).keys() >= REQUIRED
        except (ArtifactError, OSError):
            return False

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Of a folder with several coders below it: layer -> its folder."""
        folders = list(_folders(path))
        if len(folders) < 2:
            return {}
        return by_layer({folder: _layer(folder) for folder in folders}, path)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The one coder of a folder; without a config.json, it is what the names of folders say."""
        folder = _the_folder(path)
        if not is_file_in(folder, FILE):
            return several_layers.read(folder)
        file = file_in(folder, FILE)
        tensors = tensors_of(file)
        dense = dense_form(tensors)
        dense.validate(str(file))
        settings, found = settings_in(folder), Found(dense.n_latents, dense.W_skip is not None)
        said = type_of(settings, found, str(folder))
        kind = kind_of(said, dense, settings, str(folder))
        notes = [] if settings or kind == "transcoder" else [UNKNOWN]
        notes += [NEGATIVE] if dense.threshold is not tensors["threshold"] else []
        if str(settings.get("hf_hook_point_in")).endswith(HOOKS_OF["attn_out"][0]):
            notes.append(HEADS)
        place, config = provenance_of(settings, 1), config_files(folder)
        if settings and not config:
            settings = completed(settings, kind, found)
        return Checkpoint(dense, kind, place, settings, (file, *config), notes=tuple(notes))

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """The tensors and config.json, in a folder."""
        if path.suffix == ".safetensors":
            raise ArtifactError(f"a folder is written, with {FILE} in it", where=str(path))
        files, settings = _contents(checkpoint, str(path))
        path.mkdir(parents=True)
        for name, tensors in files:
            save_file(tensors, path / name)
        text = json.dumps(settings, indent=2, allow_nan=False)
        (path / CONFIG).write_text(text + "\n", encoding="utf-8")

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """A folder for each layer, called as in a repository."""
        folders = {name: path / _folder_name(name, checkpoint) for name, checkpoint in checkpoints.items()}
        by_layer({path / name: _named_layer(folder.name) for name, folder in folders.items()}, path)
        for name, checkpoint in checkpoints.items():
            self.write(checkpoint, folders[name])


def _contents(checkpoint: Checkpoint, where: str) -> tuple[Iterable[tuple[str, Tensors]], dict[str, Any]]:
    """(name, tensors) of each file, and config.json."""
    form = checkpoint.form
    if isinstance(form, DenseForm) and form.layers == 1:
        dense = as_jumprelu(form, where)
        found = Found(dense.n_latents, dense.W_skip is not None)
        return [(FILE, tensors_for(dense))], settings_for(checkpoint, checkpoint.kind, found)
    layers = several_layers.as_layers(form, where)
    found = Found(layers.n_latents, layers.layers[0].W_skip is not None)
    kind: Type = "clt" if isinstance(form, CrossLayerForm) else "crosscoder"
    return several_layers.files_of(layers), settings_for(checkpoint, kind, found)


def _folders(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Those that hold a coder: the one itself, or those below."""
    if path.name == FILE and path.is_file():
        yield path.parent
    elif path.is_dir():
        yield from (file.parent for file in files_below(path, FILE, FIRST))


def _the_folder(path: pathlib.Path) -> pathlib.Path:
    folders = list(_folders(path))
    if len(folders) == 1:
        return folders[0]
    names = f"{FILE} or {FIRST}"
    raise ArtifactError(
        f"has {len(folders)} coders below it" if folders else f"there is no {names}, here or below",
        where=str(path),
        allowed=f"a folder with one {names}",
    )


def _layer(folder: pathlib.Path) -> str | None:
    if not is_file_in(folder, FILE):
        raise ArtifactError(
            "is of several layers, and beside others", where=str(folder), next="give the path of one coder"
        )
    layers = layers_of(settings_in(folder).get("hf_hook_point_in"), 1)
    return str(layers[0]) if len(layers) == 1 else _named_layer(folder.name)


def _named_layer(folder: str) -> str | None:
    named = re.match(r"layer_(\d{1,4})(?:_|$)", folder)
    return str(int(named[1])) if named else None


def _folder_name(name: str, checkpoint: Checkpoint) -> str:
    """``layer_17_width_16k_affine``, with the layer of its vectors, or else of its name."""
    dense, hook = checkpoint.dense, checkpoint.settings.get("hf_hook_point_in")
    places = {place.partition(".")[0] for place in checkpoint.provenance.sources}
    layer = next(iter(places or map(str, layers_of(hook, 1))), name)
    affine = "_affine" if dense.W_skip is not None else ""
    return f"layer_{layer}_width_{width_name(dense.n_latents)}{affine}"
