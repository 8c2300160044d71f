"""Wrong checkpoint formats, each made from a right one: a dense form in a folder of two files."""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch import Tensor

from qsae_core import ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.contracts.dense import DenseForm
from qsae_core.contracts.format import Checkpoint, CheckpointFormat
from qsae_core.contracts.named_tensors import ActivationWord, NamedTensors
from qsae_core.errors import ArtifactError


class RightFormat(NamedTensors):
    """Every variant, under the names of DenseForm."""

    settings_file, tensors_file = "right.json", "right.safetensors"
    names: ClassVar = {field.name: field.name for field in dataclasses.fields(DenseForm)}
    transposed = frozenset({"W_enc", "W_skip"})
    activation_key = "activation"
    words: ClassVar = {
        f"{function}{'-k' * has_k}{'-norm' * by_norm}": ActivationWord(function, has_k, by_norm)
        for function in ("relu", "identity", "jumprelu")
        for has_k, by_norm in ((False, False), (True, False), (True, True))
    }


class SubtractsBDec(RightFormat):
    """The other convention, which has no place for transcoders."""

    subtracts_b_dec = True
    names: ClassVar = {name: f"sae.{name}" for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}


class RecognizesAnything(RightFormat):
    """Takes everything for its own."""

    def recognizes(self, path: pathlib.Path) -> bool:
        return True


class FailsOnForeign(RightFormat):
    """Lets the library's own error through."""

    def read(self, path: pathlib.Path) -> Checkpoint:
        if not (path / self.settings_file).exists():
            raise FileNotFoundError(path)
        return super().read(path)


class LosesBias(RightFormat):
    """Writes zeros for the encoder's bias."""

    def from_dense(self, dense: DenseForm, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, settings = super().from_dense(dense, where)
        return {**tensors, "b_enc": torch.zeros_like(tensors["b_enc"])}, settings


class ForgetsItsFiles(RightFormat):
    """Does not know again what it wrote."""

    def recognizes(self, path: pathlib.Path) -> bool:
        return False


class LetsDamageThrough(RightFormat):
    """Reads with safetensors, whose errors it lets through."""

    def load_tensors(self, path: pathlib.Path) -> dict[str, Tensor]:
        return safetensors.torch.load_file(path / self.tensors_file)


class RoundsTheOffset(RightFormat):
    """Takes b_dec out of the encoder's bias, and back into it."""

    def to_dense(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], where: str) -> DenseForm:
        dense = super().to_dense(tensors, settings, where)
        is_sae = dense.W_enc.shape[1] == dense.W_dec.shape[1] and dense.W_skip is None
        return dense.with_offset(True) if is_sae else dense


class Unpickles(RightFormat):
    """Reads what is no safetensors file as a pickle."""

    def load_tensors(self, path: pathlib.Path) -> dict[str, Tensor]:
        try:
            return super().load_tensors(path)
        except ArtifactError as error:
            try:
                data = io.BytesIO((path / self.tensors_file).read_bytes())
                return dict(torch.load(data, weights_only=False))
            except Exception:
                raise error from None


class FailsToConstruct(RightFormat):
    """Cannot be made."""

    def __init__(self, config: PlainConfig) -> None:
        raise RuntimeError("no")


def form(cls: type[CheckpointFormat]) -> ComponentSpec:
    return ComponentSpec("format", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [form(RightFormat), form(SubtractsBDec)]
WRONG = [
    (form(RecognizesAnything), "recognizes"),
    (form(FailsOnForeign), "refuses"),
    (form(LosesBias), "round-trip"),
    (form(ForgetsItsFiles), "round-trip"),
    (form(LetsDamageThrough), "damaged"),
    (form(RoundsTheOffset), "writes-again"),
    (form(Unpickles), "never-unpickles"),
    (form(FailsToConstruct), "constructs"),
]
