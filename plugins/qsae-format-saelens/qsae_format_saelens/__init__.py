"""Formats ``saelens``, of SAELens' own files, and ``saelens-packed``, of packed weights within these."""

from __future__ import annotations

import pathlib

from qsae_core import ComponentConfig, ComponentSpec, hookimpl

__all__ = [
    "ARCHITECTURE",
    "STORED_FILES",
    "SaeLensConfig",
    "SaeLensPackedConfig",
    "file_of_bytes",
    "name_in_transformer_lens",
    "pack",
]

ARCHITECTURE = "qsae"
"""What cfg.json calls a coder whose weights are packed."""
STORED_FILES = {"coder_json": "coder.json", "coder_safetensors": "coder.safetensors"}
"""Tensor of bytes in sae_weights.safetensors -> the file of the stored coder that it holds."""


class SaeLensConfig(ComponentConfig):
    """A folder with cfg.json and sae_weights.safetensors, of SAELens 6 or of an older version."""


class SaeLensPackedConfig(ComponentConfig):
    """The same two files around a stored coder, whose weights stay packed; SAELens reads them with
    qsae-in-saelens."""


def file_of_bytes(data: bytes, where: str) -> bytes:
    """The file of a stored coder that a tensor of bytes holds.

    Raises:
        ArtifactError: if it is damaged; ``where`` it was found.
    """
    from qsae_format_saelens.stored_bytes import decompressed  # numpy, when it is needed

    return decompressed(data, where)


def pack(artifact: pathlib.Path, path: pathlib.Path) -> None:
    """Write the stored coder in the folder ``artifact`` as a new folder ``path`` of ``saelens-packed``.

    Raises:
        ArtifactError: if it is damaged, or of several layers.
    """
    from qsae_format_saelens.packed import SaeLensPackedFormat  # torch, when it is needed

    SaeLensPackedFormat(SaeLensPackedConfig()).pack(artifact, path)


def name_in_transformer_lens(model: str) -> str | None:
    """TransformerLens' usual name of a model on the hub; None where its table has none."""
    from qsae_format_saelens import models

    return models.name_in_transformer_lens(model)


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register both."""
    dense = "qsae_format_saelens.checkpoint_format:SaeLensFormat"
    packed = "qsae_format_saelens.packed:SaeLensPackedFormat"
    return [
        ComponentSpec("format", "saelens", SaeLensConfig, dense),
        ComponentSpec("format", "saelens-packed", SaeLensPackedConfig, packed),
    ]
