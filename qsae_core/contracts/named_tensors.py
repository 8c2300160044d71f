"""NamedTensors: formats that are a dense form under other names."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from qsae_core.contracts.dense import DenseForm, Function
from qsae_core.contracts.format import Checkpoint, CheckpointFormat
from qsae_core.contracts.provenance import Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings, safetensors_names, safetensors_tensors


class ActivationWord(NamedTuple):
    """What a library calls an activation."""

    function: Function
    has_k: bool = False
    """Whether its k largest stay."""
    ranks_by_norm: bool = False


class NamedTensors(CheckpointFormat):
    """A folder with a safetensors file and a JSON file, which hold a dense form in another library's words.

    A subclass sets what follows. What its library does otherwise, it writes in ``to_dense`` and
    ``from_dense``; another kind of file in ``load_tensors`` and ``save_tensors``.
    """

    tensors_file: ClassVar[str]
    settings_file: ClassVar[str]
    names: ClassVar[Mapping[str, str]]
    """Field of ``DenseForm`` -> the tensor's name; ``threshold``, ``r_mag``, ``b_mag`` and ``W_skip`` where
    there may be one."""
    transposed: ClassVar[frozenset[str]] = frozenset()
    """Fields that are stored the other way round: ``W_enc`` as ``[D, F]``."""
    subtracts_b_dec: ClassVar[bool] = False
    """Whether the library subtracts ``b_dec`` from what it encodes."""
    activation_key: ClassVar[str]
    """Key of the JSON file that names the activation."""
    k_key: ClassVar[str] = "k"
    words: ClassVar[Mapping[str, ActivationWord]]
    """The library's name of an activation -> what it is."""
    marks: ClassVar[Mapping[str, Any]] = {}
    """Key -> value in the JSON file by which this format is known, where names alone do not tell."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether both files are there, with the format's marks, activation and tensors."""
        try:
            settings = self.load_settings(path)
            found = self.load_names(path)
        except ArtifactError:
            return False
        known = settings.get(self.activation_key) in self.words
        marked = all(settings.get(key) == value for key, value in self.marks.items())
        return known and marked and all(self.names[field] in found for field in _REQUIRED)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The dense form, and all of the JSON file as settings."""
        settings, tensors = self.load_settings(path), self.load_tensors(path)
        dense = self.to_dense(tensors, settings, str(path))
        dense.validate(str(path))
        is_sae = dense.W_skip is None and dense.W_enc.shape[1] == dense.W_dec.shape[1]
        return Checkpoint(
            dense,
            "sae" if is_sae else "transcoder",
            self.provenance(settings),
            settings,
            (path / self.settings_file, path / self.tensors_file),
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """Both files, in a folder."""
        checkpoint.dense.validate(str(path))
        tensors, settings = self.from_dense(checkpoint.dense, str(path))
        known = checkpoint.settings or self.settings_of(checkpoint.provenance)
        path.mkdir(parents=True)
        self.save_tensors(path, tensors)
        text = json.dumps({**known, **settings}, indent=2, allow_nan=False)
        (path / self.settings_file).write_text(text + "\n", encoding="utf-8")

    # --- what a library may do otherwise

    def to_dense(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], where: str) -> DenseForm:
        """A dense form from the library's tensors and settings.

        Raises:
            ArtifactError: if a tensor or a setting is missing, or is none that the library has.
        """
        found = {field: tensors[name] for field, name in self.names.items() if name in tensors}
        missing = [self.names[field] for field in _REQUIRED if field not in found]
        if missing:
            raise _damaged(f"there is no tensor {' and no '.join(missing)}", where)
        word = self.words.get(str(settings.get(self.activation_key)))
        if word is None:
            known, given = ", ".join(self.words), settings.get(self.activation_key)
            raise ArtifactError(
                f"{self.activation_key} is {given!r}, which is not read here", where=where, allowed=known
            )
        k = settings.get(self.k_key) if word.has_k else None
        if word.has_k and (not isinstance(k, int) or isinstance(k, bool)):
            raise _damaged(f"{self.k_key} is {k!r}, not a whole number", where)
        if word.function != "jumprelu":
            found.pop("threshold", None)
        if word.function != "gated":
            found = {name: tensor for name, tensor in found.items() if name not in ("r_mag", "b_mag")}
        fields: dict[str, Any] = {name: self._turned(name, tensor) for name, tensor in found.items()}
        return DenseForm(
            **fields,
            activation=word.function,
            k=k,
            ranks_by_norm=word.ranks_by_norm,
            subtracts_b_dec=self.subtracts_b_dec,
        )

    def from_dense(self, dense: DenseForm, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The library's tensors and settings of a dense form.

        Raises:
            ArtifactError: if the library has no such variant.
        """
        has_k = dense.k is not None
        if all(word.function != dense.activation for word in self.words.values()):
            dense = dense.plain()  # gated latents as the jumprelu that they are
        asked = ActivationWord(dense.activation, has_k, has_k and dense.ranks_by_norm)
        name = next((name for name, word in self.words.items() if word == asked), None)
        homeless = sorted(dense.tensors().keys() - self.names.keys())
        if dense.layers > 1:
            homeless, name = [f"{dense.layers} layers in one code"], name or ""
        if name is None or homeless:
            largest = f" and the {dense.k} largest latents{' by norm' * asked.ranks_by_norm}"
            what = f"activation {dense.activation}{largest * has_k}" if name is None else homeless[0]
            raise ArtifactError(
                f"this format has no place for a coder with {what}",
                where=where,
                allowed=f"{', '.join(self.words)}, with tensors for {', '.join(self.names)}",
            )
        dense = dense.with_offset(self.subtracts_b_dec)
        tensors = {
            self.names[field]: self._turned(field, tensor).clone().contiguous()
            for field, tensor in dense.tensors().items()
        }
        settings = {**self.marks, self.activation_key: name} | ({self.k_key: dense.k} if has_k else {})
        return tensors, settings

    def provenance(self, settings: Mapping[str, Any]) -> Provenance:
        """What the JSON file says of where the vectors are from: nothing, unless a library says it."""
        return Provenance()

    def settings_of(self, provenance: Provenance) -> dict[str, Any]:
        """What the JSON file should say of it."""
        return {}

    def load_tensors(self, path: pathlib.Path) -> dict[str, Tensor]:
        """Name -> tensor of the file; raises an ArtifactError where there is none, or it is damaged."""
        return safetensors_tensors(file_in(path, self.tensors_file))

    def load_names(self, path: pathlib.Path) -> set[str]:
        """The names of ``load_tensors``, without reading values."""
        return set(safetensors_names(file_in(path, self.tensors_file)))

    def save_tensors(self, path: pathlib.Path, tensors: dict[str, Tensor]) -> None:
        """What ``load_tensors`` reads."""
        save_file(tensors, path / self.tensors_file)

    def load_settings(self, path: pathlib.Path) -> dict[str, Any]:
        """The JSON file; raises an ArtifactError where it is missing, or no mapping."""
        return json_settings(file_in(path, self.settings_file))

    # --- mechanics

    def _turned(self, field: str, tensor: Tensor) -> Tensor:
        return tensor.T if field in self.transposed and tensor.dim() == 2 else tensor


_REQUIRED = ("W_enc", "b_enc", "W_dec", "b_dec")


def _damaged(what: str, where: str) -> ArtifactError:
    return ArtifactError(what, where=where, allowed="a checkpoint as that library writes it")
