"""Stored coders in another library's files, whose weights stay packed."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qsae_core.artifact.artifact import load
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.config.layers import Layer
from qsae_core.contracts.packed_format import PackedFormat
from qsae_core.errors import ConfigError
from qsae_core.results.files import atomic_folder

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def read_packed(form: PackedFormat, path: pathlib.Path, registry: Registry) -> MatrixCoder:
    """The coder, in evaluation mode.

    Raises:
        ArtifactError, PluginError: as ``load``, and if the files are damaged.
    """
    with tempfile.TemporaryDirectory() as holder:
        form.unpack(path, pathlib.Path(holder))
        return load(holder, registry=registry)


def import_packed(
    form: PackedFormat, path: pathlib.Path, out: pathlib.Path, registry: Registry, layers: Sequence[Layer]
) -> MatrixCoder:
    """The coder, and its folder as it was.

    Args:
        layers: none that say anything: it has a record of its data.

    Raises:
        ConfigError: if one of them does.
        ArtifactError, PluginError: as ``read_packed``.
    """
    if any(layer.tree for layer in layers):
        raise ConfigError(
            "it is a stored coder, which has its own record of its data",
            where=str(path),
            next="import it without, and give them to qsae evaluate and qsae quantize",
        )
    with atomic_folder(out, fresh=True) as temporary:
        form.unpack(path, temporary)
        load(temporary, registry=registry)
    return load(out, registry=registry)
