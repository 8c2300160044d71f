"""The format ``circuit-tracer``: which of its files a path is."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from qsae_core.contracts import Checkpoint, CheckpointFormat, CrossLayerForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import safetensors_names
from qsae_format_circuit_tracer.config_file import CROSS_LAYER, KIND, read_beside
from qsae_format_circuit_tracer.cross_layer import is_cross_layer, read_cross_layer, write_cross_layer
from qsae_format_circuit_tracer.layer_file import is_layer, read_layer, write_layer
from qsae_format_circuit_tracer.layer_folder import layers_in, members_in, write_layers


class CircuitTracerFormat(CheckpointFormat):
    """A layer's file, a folder of all layers, or a cross-layer transcoder's folder."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether it is a layer's file by its tensors, or a folder with circuit-tracer's ``config.yaml`` or
        such files."""
        try:
            if not path.is_dir():
                return is_layer(safetensors_names(path))
            if read_beside(path).is_config:
                return True
            if is_cross_layer(path):
                return "W_enc_0" in safetensors_names(path / "W_enc_0.safetensors")
            first = next(iter(layers_in(path).values()), None)
            return first is not None and is_layer(safetensors_names(first))
        except (ArtifactError, OSError):
            return False

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> its file."""
        return {} if not path.is_dir() or _is_cross_layer(path) else members_in(path, read_beside(path))

    def is_set(self, path: pathlib.Path) -> bool:
        """Where there is circuit-tracer's ``config.yaml``, which describes sets alone."""
        return read_beside(path).is_config

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The transcoder in a layer's file, with what ``config.yaml`` says; or a folder's cross-layer one."""
        if not path.is_dir():
            return read_layer(path)
        if _is_cross_layer(path):
            return read_cross_layer(path)
        raise ArtifactError(
            f"holds a transcoder for each of the layers {', '.join(self.members(path))}",
            where=str(path),
            allowed="the file of one layer",
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """A layer's file; of a cross-layer transcoder, a folder."""
        if isinstance(checkpoint.form, CrossLayerForm):
            write_cross_layer(checkpoint, checkpoint.form, path)
        else:
            write_layer(checkpoint, path)

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """``config.yaml`` and a file for each layer."""
        write_layers(checkpoints, path)


def _is_cross_layer(folder: pathlib.Path) -> bool:
    settings = read_beside(folder).settings
    return settings[KIND] == CROSS_LAYER if KIND in settings else is_cross_layer(folder)
