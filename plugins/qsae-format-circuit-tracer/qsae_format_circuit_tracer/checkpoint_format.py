"""The format ``circuit-tracer``: which of its files a path is."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from qsae_core.contracts import Checkpoint, CheckpointFormat
from qsae_core.errors import ArtifactError
from qsae_core.reading import safetensors_names
from qsae_format_circuit_tracer.config_file import CROSS_LAYER, KIND, read_beside
from qsae_format_circuit_tracer.layer_file import is_layer, read_layer, write_layer
from qsae_format_circuit_tracer.layer_folder import layers_in, members_in, write_layers


class CircuitTracerFormat(CheckpointFormat):
    """A layer's file, or a folder of all layers."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether it is a layer's file by its tensors, or a folder with such files or with circuit-tracer's
        ``config.yaml``."""
        try:
            if not path.is_dir():
                return is_layer(safetensors_names(path))
            layers = layers_in(path)
            return read_beside(path).is_config or any(
                is_layer(safetensors_names(file)) for file in list(layers.values())[:1]
            )
        except (ArtifactError, OSError):
            return False

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> its file."""
        if not path.is_dir():
            return {}
        beside = read_beside(path)
        return {} if beside.settings.get(KIND) == CROSS_LAYER else members_in(path, beside)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The transcoder in a layer's file, with what ``config.yaml`` beside it says."""
        if path.is_dir():
            raise ArtifactError(
                f"holds a transcoder for each of the layers {', '.join(self.members(path))}",
                where=str(path),
                allowed="the file of one layer",
            )
        return read_layer(path)

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """A layer's file."""
        write_layer(checkpoint, path)

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """``config.yaml`` and a file for each layer."""
        write_layers(checkpoints, path)
