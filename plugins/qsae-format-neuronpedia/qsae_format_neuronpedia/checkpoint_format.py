"""The format ``neuronpedia``: ``batch-0.json``, ``batch-1.json``, ..., as SAEDashboard 0.8.0's runner writes
them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import NoReturn, cast

import numpy as np

from qsae_core.contracts import Checkpoint, CheckpointFormat, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import is_file_in
from qsae_core.runs import slug
from qsae_format_neuronpedia import NeuronpediaConfig
from qsae_format_neuronpedia.features import Features
from qsae_format_neuronpedia.stored import names_of, samples_of

BEGINNING = '{"model_id":'
"""Of each file."""


class NeuronpediaFormat(CheckpointFormat):
    """Where each latent of a run fires, for Neuronpedia. Written alone."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether it is a folder that ``write``, or SAEDashboard, wrote."""
        if not is_file_in(path, "batch-0.json"):
            return False
        try:
            with (path / "batch-0.json").open("rb") as file:
                return file.read(len(BEGINNING)) == BEGINNING.encode()
        except OSError:
            return False

    def read(self, path: pathlib.Path) -> NoReturn:
        """Refuse."""
        raise ArtifactError(
            "dashboards hold no weights, and are not read",
            where=str(path),
            allowed="the stored coder whose latents they show, or a checkpoint of it",
            next="give that folder to the command itself",
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """The batches, in a folder."""
        self._write(checkpoint, path, None)

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """A folder of batches for each, under its layer's name."""
        for layer, checkpoint in checkpoints.items():
            self._write(checkpoint, path / slug(layer), layer)

    def _write(self, checkpoint: Checkpoint, path: pathlib.Path, layer: str | None) -> None:
        config = cast(NeuronpediaConfig, self.config)
        form = _one_layer(checkpoint)
        samples = samples_of(checkpoint, layer)
        head = names_of(checkpoint, config)
        features = Features(samples, form.W_dec.float(), config.dataset)
        path.mkdir(parents=True)
        n_files = -(-form.n_latents // config.latents_per_file)
        for number, latents in enumerate(np.array_split(np.arange(form.n_latents), n_files)):
            with (path / f"batch-{number}.json").open("w", encoding="utf-8") as file:
                # latent by latent, so that memory does not hang on how many a file has
                file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
                for place, latent in enumerate(latents.tolist()):
                    text = json.dumps(features.of(latent), ensure_ascii=False, allow_nan=False)
                    file.write((", " if place else "") + text)
                file.write("]}")


def _one_layer(checkpoint: Checkpoint) -> DenseForm:
    """The form.

    Raises:
        ArtifactError: if it reads or writes several layers.
    """
    form, provenance = checkpoint.form, checkpoint.provenance
    if not isinstance(form, DenseForm) or form.layers > 1 or len(provenance.sources) > 1:
        raise ArtifactError(
            "its latents are of several layers, and each of Neuronpedia's is of one",
            allowed="a coder of one layer, or a run with one for each (--per-layer)",
        )
    return form
