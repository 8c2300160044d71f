"""Small SAELens folders, written by hand."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import torch
from safetensors.torch import save_file

V6 = {"d_in": 2, "d_sae": 2, "dtype": "float32", "architecture": "standard", "sae_lens_version": "6.1.0"}
OLD = {"d_in": 2, "d_sae": 2, "dtype": "torch.float32", "activation_fn_str": "relu"}
TENSORS = {
    "W_enc": torch.tensor([[1.0, 2.0], [0.0, 1.0]]),  # [d_in, d_sae]
    "b_enc": torch.tensor([0.25, 0.0]),
    "W_dec": torch.tensor([[1.0, 0.0], [0.0, 3.0]]),
    "b_dec": torch.tensor([1.0, -1.0]),
}
THRESHOLD = {"threshold": torch.tensor([0.5, -2.0])}
GATED = {"b_gate": torch.tensor([0.25, 0.0]), "b_mag": torch.tensor([0.0, 1.0]), "r_mag": torch.zeros(2)}


def written(folder: pathlib.Path, cfg: Any, tensors: dict[str, torch.Tensor] | None = None) -> pathlib.Path:
    """A folder with both files."""
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(cfg), encoding="utf-8")
    save_file(TENSORS if tensors is None else tensors, folder / "sae_weights.safetensors")
    return folder


def without(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    """The others."""
    return {name: tensor for name, tensor in tensors.items() if name not in names}
