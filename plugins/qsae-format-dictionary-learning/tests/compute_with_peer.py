"""What dictionary_learning makes of folders that qsae wrote; run by a Python that has it.

``python compute_with_peer.py X.safetensors FOLDER...`` loads each as the library does, and writes
``computed.safetensors`` beside it: latents and reconstruction of x.
"""

from __future__ import annotations

import pathlib
import sys

import torch
from dictionary_learning.dictionary import AutoEncoder
from dictionary_learning.utils import load_dictionary
from safetensors.torch import load_file, save_file


@torch.no_grad()
def main(vectors: str, *folders: str) -> None:
    """Compute; an AutoEncoder also as it is read by default, with latents times the norms of their atoms."""
    x = load_file(vectors)["x"]
    for folder in map(pathlib.Path, folders):
        coder, config = load_dictionary(str(folder), "cpu")
        found = {}
        if config["trainer"]["dict_class"] == "AutoEncoder":
            found["normalized"] = coder.encode(x)
            coder = AutoEncoder.from_pretrained(folder / "ae.pt", normalize_decoder=False)
        found |= {"x": x, "latents": coder.encode(x), "reconstruction": coder(x)}
        found = {name: tensor.contiguous() for name, tensor in found.items()}
        save_file(found, folder.with_name(f"{folder.name}.computed.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
