"""CheckpointFormat: another library's files, as a description that core composes a coder from."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qsae_core.component import ComponentConfig
from qsae_core.contracts.dense import DenseForm


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a format reads."""

    dense: DenseForm
    kind: Literal["sae", "transcoder"] = "sae"
    source: Mapping[str, Any] = field(default_factory=dict)
    """JSON values about where it comes from, in the file's own words: model, layer, site, dataset."""
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Slot -> block ``{"use": name, ...options}``, where the file says more than the dense form: the SAE
    with the options that it was trained with, ``data`` with its model and layer. Core chooses the rest, and
    refuses components that do not compute what the dense form does."""


class CheckpointFormat(abc.ABC):
    """Another library's checkpoint. Built as ``Class(config)``.

    Nothing is unpickled: no ``pickle.load``, and no ``torch.load`` but with ``weights_only=True``. A variant
    that a dense form, or a file, cannot hold exactly is refused with the reason, never approximated.
    """

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether the file or folder is of this format and of no other; raises nothing."""

    @abc.abstractmethod
    def read(self, path: pathlib.Path) -> Checkpoint:
        """What the file or folder holds; no coder is made of it here.

        Raises:
            ArtifactError: if it is damaged, not of this format, or a variant with no dense form.
        """

    @abc.abstractmethod
    def write(self, dense: DenseForm, path: pathlib.Path, source: Mapping[str, Any]) -> None:
        """Write a file or folder as that library would have; nothing is at ``path`` yet.

        Args:
            source: JSON values about the coder's data (model, layer, site), as far as they are known.

        Raises:
            ArtifactError: if that library has no such variant.
        """
