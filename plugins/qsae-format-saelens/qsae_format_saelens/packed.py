"""The format ``saelens-packed``: a stored coder within the two files that SAELens reads."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from qsae_core import load
from qsae_core.contracts import PackedFormat, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings, safetensors_names, safetensors_tensors
from qsae_core.runs import stored_description
from qsae_format_saelens import ARCHITECTURE, STORED_FILES, file_of_bytes
from qsae_format_saelens.checkpoint_format import CFG, VERSION, WEIGHTS
from qsae_format_saelens.hooks import metadata_of
from qsae_format_saelens.stored_bytes import compressed
from qsae_format_saelens.understood import understood


class SaeLensPackedFormat(PackedFormat):
    """``cfg.json``, and ``sae_weights.safetensors`` with the bytes of the stored coder's two files."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether cfg.json names the architecture, and the bytes are there."""
        try:
            settings = json_settings(file_in(path, CFG))
            names = safetensors_names(file_in(path, WEIGHTS))
        except ArtifactError:
            return False
        return settings.get("architecture") == ARCHITECTURE and set(names) == set(STORED_FILES)

    def pack(self, artifact: pathlib.Path, path: pathlib.Path) -> None:
        """Both files, in a folder."""
        cfg = _cfg(artifact)
        files = {
            name: _as_tensor(compressed((artifact / file).read_bytes()))
            for name, file in STORED_FILES.items()
        }
        path.mkdir(parents=True)
        save_file(files, path / WEIGHTS)
        (path / CFG).write_text(json.dumps(cfg, allow_nan=False), encoding="utf-8")

    def unpack(self, path: pathlib.Path, artifact: pathlib.Path) -> None:
        """The two files of the stored coder."""
        if not self.recognizes(path):
            raise ArtifactError(
                "holds no coder that was packed for SAELens",
                where=str(path),
                allowed=f"{CFG} and {WEIGHTS} as qsae export --format saelens-packed wrote them",
            )
        file = file_in(path, WEIGHTS)
        for name, tensor in safetensors_tensors(file).items():
            where = f"{file}: {name}"
            if tensor.dtype != torch.uint8 or tensor.dim() != 1:
                raise ArtifactError(
                    f"is {tensor.dtype} {list(tensor.shape)}", where=where, allowed="uint8, [bytes]"
                )
            (artifact / STORED_FILES[name]).write_bytes(file_of_bytes(tensor.numpy().tobytes(), where))


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _cfg(artifact: pathlib.Path) -> dict[str, Any]:
    """cfg.json of a stored coder.

    Raises:
        ArtifactError: if it is damaged, or of several layers.
    """
    coder, description = load(artifact), stored_description(artifact)
    if (coder.shape.layers_in, coder.shape.layers_out) != (1, 1):
        raise ArtifactError(
            "reads or writes the vectors of several layers at once, and SAELens those of one",
            where=str(artifact),
            allowed="a coder of one layer",
        )
    return {
        "architecture": ARCHITECTURE,
        "d_in": coder.shape.d_in,
        "d_sae": coder.n_latents,
        "d_out": coder.shape.d_out,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        **_of_vectors(description["source"]),
    }


def _of_vectors(source: dict[str, Any]) -> dict[str, Any]:
    """Whose vectors the coder is for, as cfg.json says it: as SAELens did, where it comes from there."""
    imported = source.get("imported_from") or {}
    if imported.get("format") != "saelens":
        metadata, reshapes = metadata_of(Provenance.of_record(source)), False
    else:
        found = understood(imported["settings"], str(imported.get("path")))
        metadata, reshapes = dict(found.metadata), found.reads_heads
    versions = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    return {"reshape_activations": "hook_z" if reshapes else "none", "metadata": {**metadata, **versions}}
