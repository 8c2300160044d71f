"""What sparsify makes of folders that qsae wrote; run by a Python that has it.

``python compute_with_peer.py X.safetensors FOLDER...`` loads each as the library does (a run's folder with
``load_many``), and writes ``FOLDER.computed.safetensors``: latents and reconstruction of x.
"""

from __future__ import annotations

import os
import pathlib
import sys

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder


@torch.no_grad()
def computed(coder: SparseCoder, x: torch.Tensor, start: str = "") -> dict[str, torch.Tensor]:
    """In the coder's own type."""
    x = x.to(coder.dtype)
    found = coder.encode(x)
    latents = torch.zeros(len(x), coder.num_latents, dtype=coder.dtype)
    latents.scatter_(1, found.top_indices, found.top_acts)
    values = {"x": x, "latents": latents, "reconstruction": coder(x).sae_out}
    return {f"{start}{name}": tensor.contiguous().clone() for name, tensor in values.items()}


def main(vectors: str, *folders: str) -> None:
    """Compute, and write."""
    x = load_file(vectors)["x"]
    for folder in map(pathlib.Path, folders):
        if (folder / "cfg.json").exists():
            found = computed(SparseCoder.load_from_disk(folder), x)
        else:
            found = {}
            for name, coder in SparseCoder.load_many(str(folder), local=True).items():
                found |= computed(coder, x, f"{name}/")
        save_file(found, folder.with_name(f"{folder.name}.computed.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
