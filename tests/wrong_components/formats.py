"""Wrong checkpoint formats, each made from a right one: the state of a coder in one safetensors file."""

from __future__ import annotations

import pathlib

import safetensors.torch
from torch import Tensor

from qsae_core import ComponentSpec
from qsae_core.conformance.cases import Case
from qsae_core.conformance.coder_samples import Variant, bare
from qsae_core.conformance.evaluation import ReferenceCoder
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.conformance.subject import Subject
from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.format import CheckpointFormat
from qsae_core.errors import ArtifactError

from .coders import coder


class RightFormat(CheckpointFormat):
    """One file with every tensor of the kit's SAE."""

    FILE = "right.safetensors"

    def recognizes(self, path: pathlib.Path) -> bool:
        return (path / self.FILE).is_file()

    def read(self, path: pathlib.Path) -> SparseCoder:
        if not self.recognizes(path):
            raise ArtifactError(f"no {self.FILE}", where=str(path))
        fresh = bare(Subject(coder(ReferenceCoder)), Variant(Case(), {}))
        fresh.load_state_dict(self.stored(safetensors.torch.load_file(path / self.FILE)), strict=False)
        return fresh.eval()

    def write(self, coder: SparseCoder, path: pathlib.Path) -> None:
        if type(coder) is not ReferenceCoder:
            raise ArtifactError("this format holds the kit's SAE alone")
        path.mkdir()
        tensors = {name: tensor.clone() for name, tensor in coder.state_dict().items()}
        safetensors.torch.save_file(tensors, path / self.FILE)

    def stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors


class RecognizesAnything(RightFormat):
    """Takes everything for its own."""

    def recognizes(self, path: pathlib.Path) -> bool:
        return True

    def read(self, path: pathlib.Path) -> SparseCoder:
        if not (path / self.FILE).is_file():
            raise ArtifactError(f"no {self.FILE}", where=str(path))
        return super().read(path)


class FailsOnForeign(RightFormat):
    """Lets the library's own error through."""

    def read(self, path: pathlib.Path) -> SparseCoder:
        if not self.recognizes(path):
            raise FileNotFoundError(path)
        return super().read(path)


class LosesMean(RightFormat):
    """Forgets the data's mean."""

    def stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors | {name: tensors[name] * 0 for name in ("norm_in.mean", "norm_out.mean")}


class FailsToConstruct(RightFormat):
    """Cannot be made."""

    def __init__(self, config: PlainConfig) -> None:
        raise RuntimeError("no")


def form(cls: type[CheckpointFormat]) -> ComponentSpec:
    return ComponentSpec("format", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


INSTALLED = [coder(ReferenceCoder)]
"""SAEs that the formats are tried with."""
RIGHT = [form(RightFormat)]
WRONG = [
    (form(RecognizesAnything), "recognizes"),
    (form(FailsOnForeign), "refuses"),
    (form(LosesMean), "round-trip"),
    (form(FailsToConstruct), "constructs"),
]
