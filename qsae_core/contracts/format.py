"""CheckpointFormat: another library's files."""

from __future__ import annotations

import abc
import pathlib

from qsae_core.component import ComponentConfig
from qsae_core.contracts.coder import SparseCoder


class CheckpointFormat(abc.ABC):
    """Another library's checkpoint. Built as ``Class(config)``; never unpickles what it reads."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether the file or folder looks like this format."""

    @abc.abstractmethod
    def read(self, path: pathlib.Path) -> SparseCoder:
        """A coder in evaluation mode with the checkpoint's weights."""

    @abc.abstractmethod
    def write(self, coder: SparseCoder, path: pathlib.Path) -> None:
        """Write the coder as that library would have."""
