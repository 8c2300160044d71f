"""Writes a TopK SAE of random unit rows as SAELens does. The one argument is JSON: sizes, type, seed, out."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import torch
from safetensors.torch import save_file

ROWS_AT_ONCE = 8192


def write(spec: dict[str, Any]) -> None:
    """``cfg.json`` and ``sae_weights.safetensors`` in the folder ``out``."""
    n_latents, width, dtype = spec["n_latents"], spec["width"], getattr(torch, spec["dtype"])
    generator = torch.Generator().manual_seed(spec["seed"])
    W_dec = torch.empty(n_latents, width, dtype=dtype)
    for rows in W_dec.split(ROWS_AT_ONCE):
        drawn = torch.randn(rows.shape, generator=generator)
        rows.copy_(drawn / drawn.norm(dim=1, keepdim=True))
    tensors = {
        "W_enc": W_dec.T.contiguous(),
        "b_enc": torch.zeros(n_latents, dtype=dtype),
        "W_dec": W_dec,
        "b_dec": torch.zeros(width, dtype=dtype),
    }
    out = pathlib.Path(spec["out"])
    out.mkdir(parents=True)
    save_file(tensors, out / "sae_weights.safetensors")
    cfg = {"architecture": "topk", "d_in": width, "d_sae": n_latents, "k": spec["k"], "dtype": spec["dtype"]}
    (out / "cfg.json").write_text(json.dumps(cfg), encoding="utf-8")


if __name__ == "__main__":
    write(json.loads(sys.argv[1]))
