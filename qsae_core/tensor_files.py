"""Safetensors files with a checksum of their contents in the header."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.errors import ArtifactError


def tensors_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """sha256 over a text and over names, dtypes, shapes and bytes of tensors, in the order of names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: pathlib.Path, tensors: Mapping[str, Tensor], text: str = "") -> None:
    """Write a safetensors file whose header holds the digest of its tensors and of an accompanying text."""
    save_file(dict(tensors), path, metadata={"sha256": tensors_digest(tensors, text)})


def load_tensors(path: pathlib.Path, text: str = "", device: str = "cpu") -> dict[str, Tensor]:
    """Read what ``save_tensors`` wrote.

    Raises:
        ArtifactError: if the file is missing, truncated or altered, or the text is not the one of saving.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as reader:
            recorded = (reader.metadata() or {}).get("sha256")
            tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise ArtifactError("there is no such file", where=str(path)) from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"is truncated or no safetensors file ({error})",
            where=str(path),
            next="copy it again from its source",
        ) from error
    if recorded is None:
        raise ArtifactError("holds no checksum, so qsae did not write it", where=str(path))
    if tensors_digest(tensors, text) != recorded:
        raise ArtifactError(
            "was altered: its contents do not match the checksum in its header",
            where=str(path),
            next="copy it again from its source, together with the JSON file beside it",
        )
    # a copy: tensors of a mapped file are not aligned, and BLAS may round differently on unaligned memory
    return {name: tensor.clone().to(device) for name, tensor in tensors.items()}
