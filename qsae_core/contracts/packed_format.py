"""PackedFormat: another library's files around a stored coder whose packed weights stay as they are."""

from __future__ import annotations

import abc
import pathlib
from typing import NoReturn

from qsae_core.contracts.format import Checkpoint, CheckpointFormat
from qsae_core.errors import ArtifactError


class PackedFormat(CheckpointFormat):
    """Files that another library reads through this framework, and no form of a coder.

    Exporting calls ``pack`` with the folder of a stored coder, importing calls ``unpack``, which gives that
    folder back with the same bytes; nothing is folded, rounded or composed.
    """

    @abc.abstractmethod
    def pack(self, artifact: pathlib.Path, path: pathlib.Path) -> None:
        """Write the file or folder of a stored coder; nothing is at ``path`` yet.

        Args:
            artifact: the folder with ``coder.json`` and ``coder.safetensors``.

        Raises:
            ArtifactError: if that library has no place for this coder.
        """

    @abc.abstractmethod
    def unpack(self, path: pathlib.Path, artifact: pathlib.Path) -> None:
        """Give the stored coder that ``pack`` was given back, file by file.

        Args:
            artifact: an empty folder.

        Raises:
            ArtifactError: if the file or folder is damaged, or not of this format.
        """

    def read(self, path: pathlib.Path) -> NoReturn:
        """Refuses: it holds a stored coder, and no form.

        Raises:
            ArtifactError: always.
        """
        raise ArtifactError(
            "holds a stored coder of qsae, whose weights stay packed, and no form of one",
            where=str(path),
            next=f"qsae import {path} --out DIR gives its folder back",
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> NoReturn:
        """Refuses: it is made from a stored coder.

        Raises:
            ArtifactError: always.
        """
        raise ArtifactError(
            "is made from a stored coder, whose weights stay packed, and not from a form of one",
            where=str(path),
            next="qsae export DIR, the folder of a stored coder",
        )
