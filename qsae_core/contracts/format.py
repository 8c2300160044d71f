"""CheckpointFormat: another library's files, as a description that core composes a coder from."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qsae_core.component import ComponentConfig
from qsae_core.contracts.cross_layer import Form
from qsae_core.contracts.dense import DenseForm
from qsae_core.contracts.provenance import Provenance
from qsae_core.errors import ArtifactError


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One coder of another library: what a format reads, and what it writes."""

    form: Form
    kind: Literal["sae", "transcoder"] = "sae"
    provenance: Provenance = field(default_factory=Provenance)
    """Which vectors it is for."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: the library's own configuration, as its file has it. Of a coder that was imported from
    the same format they come back in ``write``, which changes what the coder's weights and rule say
    otherwise, and leaves the rest; of others there are none."""
    files: tuple[pathlib.Path, ...] = ()
    """The files that it was read from, whose checksums are recorded."""
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Slot -> block ``{"use": name, ...options}``, where the file says more than the dense form: the SAE
    with the options that it was trained with. Core chooses the rest, and refuses components that do not
    compute what the dense form does. In ``write``, all that the coder is made of: what it was trained with
    may be what another library has a word for (nested groups, k latents on average)."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should read: where the library's own loader computes something else."""
    run: pathlib.Path | None = None
    """In ``write``, for formats that publish more than weights: the run that is exported; of a coder that is
    in none its own folder. What was found out about the coder is below it: ``samples``, ``evaluations``.
    None where there is only a form; ``read`` never sets it."""

    @property
    def dense(self) -> DenseForm:
        """``form``, of anything but a cross-layer transcoder.

        Raises:
            ArtifactError: for one.
        """
        if isinstance(self.form, DenseForm):
            return self.form
        raise ArtifactError(
            "it is a cross-layer transcoder, for which this format has no place",
            allowed="an SAE, a transcoder, or one for each layer",
        )


class CheckpointFormat(abc.ABC):
    """Another library's checkpoint. Built as ``Class(config)``.

    Files come from strangers, and are read by ``qsae_core.reading``: nothing is unpickled, and nothing is
    allocated before it is known that the file holds so much. A variant that a dense form, or a file, cannot
    hold exactly is refused with the reason, never approximated. What ``read`` gave of an unchanged file,
    ``write`` writes again with the same tensors, bit for bit.
    """

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether the file or folder is of this format and of no other; raises nothing. A folder of several
        (``members``) is too."""

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Of a folder of several coders: name -> path of each, for ``read``, in the order of layers; nothing
        for a single coder. Names are those of layers or of places.

        Raises:
            ArtifactError: if it is damaged.
        """
        return {}

    def is_set(self, path: pathlib.Path) -> bool:
        """Whether a file of a folder with one coder below it says that this is a set of coders, which it then
        stays; else that one coder is meant by the folder.

        Args:
            path: a folder with one of ``members``.
        """
        return False

    @abc.abstractmethod
    def read(self, path: pathlib.Path) -> Checkpoint:
        """What the file or folder of one coder holds; no coder is made of it here.

        Raises:
            ArtifactError: if it is damaged, not of this format, or a variant with no dense form.
        """

    @abc.abstractmethod
    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """Write a file or folder as that library would have; nothing is at ``path`` yet.

        Raises:
            ArtifactError: if that library has no such variant.
        """

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """Write a folder whose ``members`` are these.

        Raises:
            ArtifactError: if that library has no such folders, or no place for one of them.
        """
        raise ArtifactError(
            "this format has no folder of several coders",
            where=str(path),
            next="export one of them: give the folder of its layer",
        )
