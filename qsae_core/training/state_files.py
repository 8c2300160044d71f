"""The tensors of a resume state on disk: torch.distributed.checkpoint, as safetensors files and nothing else.

A process writes a file for each large tensor and one for all others; of processes that have parts of a
dictionary each writes the rows of its latents, and a share of what all have alike. The header of each file
says from which row on a tensor is there, so that any number of processes reads the rows that are its own.
What processes tell each other meanwhile (who writes what) torch pickles; files hold tensors and JSON.
"""

from __future__ import annotations

import hashlib
import pathlib
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import safetensors
import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.results.files import COPY, unwritable

SUFFIX = ".safetensors"
LARGE = 2**26
"""Bytes from which on a tensor has a file of its own: each file is put together in memory, twice."""
CHUNK = 2**24
"""Bytes that are read at once for a checksum."""


def write(
    folder: pathlib.Path, tensors: Mapping[str, Tensor], divided: Collection[str], group: ProcessGroup | None
) -> None:
    """Write tensors into a folder that is there; all processes of the group do at the same time.

    Args:
        divided: names of tensors of which each process of the group has other rows, as many each.
        group: None: this process alone.

    Raises:
        QsaeError: in all processes, if one cannot write.
    """
    placed = {name: _placed(tensor.detach(), name in divided, group) for name, tensor in tensors.items()}
    writer = HuggingFaceStorageWriter(str(folder), _files(tensors), save_distributed=True)
    with _checkpoint_errors(folder, writes=True):
        save(placed, storage_writer=writer, process_group=group, no_dist=group is None)


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Tensor -> the number of its file, from 1 on."""
    large = [name for name, tensor in tensors.items() if tensor.nbytes >= LARGE]
    return dict.fromkeys(tensors, 1) | {name: number for number, name in enumerate(large, 2)}


class StoredTensors:
    """What ``write`` wrote into a folder, by whatever group: names and shapes; ``read`` gives the tensors.

    Raises:
        ArtifactError: if a file's header cannot be read.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.reader = folder, HuggingFaceStorageReader(str(folder))
        try:
            stored = self.reader.read_metadata().state_dict_metadata
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(folder, error) from error
        self.shapes: dict[str, tuple[list[int], torch.dtype]] = {
            name: (list(found.size), found.properties.dtype)
            for name, found in stored.items()
            if isinstance(found, TensorStorageMetadata)
        }

    def empty(self, names: Collection[str], divided: Collection[str], parts: int) -> dict[str, Tensor]:
        """Tensors on the CPU for these names.

        Args:
            divided: names of those of which only this process's rows are wanted.
            parts: how many processes have as many rows each.

        Raises:
            ConfigError: where rows do not divide into so many parts: the state is as it should be.
            ArtifactError: where there is no such tensor.
        """
        found = {}
        for name in names:
            if name not in self.shapes:
                raise _unreadable(self.folder, f"there is no {name}")
            shape, dtype = self.shapes[name]
            if name in divided:
                if not shape or shape[0] % parts:
                    raise ConfigError(
                        f"{name} {shape} does not divide into {parts} parts",
                        where=str(self.folder),
                        allowed="a number of parts that divides the latents",
                        next="--latent-parallel with such a number",
                    )
                shape = [shape[0] // parts, *shape[1:]]
            found[name] = torch.empty(shape, dtype=dtype)
        return found

    def read(
        self, tensors: Mapping[str, Tensor], divided: Collection[str], group: ProcessGroup | None
    ) -> None:
        """Fill tensors that ``empty`` gave.

        Args:
            group: of processes that read at the same time, each its rows of ``divided``; None: this process
                alone, which reads all rows.

        Raises:
            ArtifactError: in all of the group, if one cannot read.
        """
        targets = {name: _placed(tensor, name in divided, group) for name, tensor in tensors.items()}
        with _checkpoint_errors(self.folder, writes=False):
            load(targets, storage_reader=self.reader, process_group=group, no_dist=group is None)


def names(folder: pathlib.Path) -> list[str]:
    """The files of a folder that hold tensors."""
    return sorted(path.name for path in folder.glob(f"*{SUFFIX}"))


def digests(folder: pathlib.Path, files: Sequence[str]) -> dict[str, str]:
    """File -> sha256 of its bytes.

    Raises:
        ArtifactError: for one that cannot be read.
    """
    found = {}
    for name in files:
        digest = hashlib.sha256()
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(CHUNK):
                    digest.update(block)
        except OSError as error:
            raise _unreadable(folder / name, error) from error
        found[name] = digest.hexdigest()
    return found


def _placed(tensor: Tensor, divided: bool, group: ProcessGroup | None) -> Tensor:
    """As torch.distributed.checkpoint sees it: a part of a tensor knows of which."""
    tensor = tensor.contiguous()
    if not divided or group is None:
        return tensor
    from torch.distributed.device_mesh import DeviceMesh  # for those who need it
    from torch.distributed.tensor import DTensor, Shard

    mesh = DeviceMesh.from_group(group, tensor.device.type)
    return DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False)


@contextmanager
def _checkpoint_errors(folder: pathlib.Path, *, writes: bool) -> Iterator[None]:
    """torch gathers what went wrong in any process into one error that derives from no Exception."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # on purpose
            yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        for cause in causes:
            if not isinstance(cause, Exception):  # an interrupt
                raise cause from error
        if writes:
            raise unwritable(folder, causes[0]) from error
        raise _unreadable(folder, causes[0]) from error


def _unreadable(folder: pathlib.Path, why: object) -> ArtifactError:
    return ArtifactError(
        f"the tensors cannot be read: {why}",
        where=str(folder),
        allowed="a folder as qsae wrote it",
        next=COPY,
    )
