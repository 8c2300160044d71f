"""A language model whose MLPs are replaced by an exported folder; run by a Python that has circuit-tracer.

    python replace_mlps.py FOLDER MODEL OUT

OUT, a safetensors file, takes ``mlp_in [L, T, D]``, which transformers alone computes, and of circuit-tracer
``latents [L, T, F]`` and the attribution graph's ``edges``.
"""

from __future__ import annotations

import sys

import torch
from circuit_tracer import ReplacementModel, attribute
from circuit_tracer.utils.caching import load_transcoders_from_cache
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

TOKENS = torch.tensor([0, 305, 417, 12, 90, 211])
"""The first is the model's beginning of a text: circuit-tracer puts one there where it is not 0."""


@torch.no_grad()
def read_mlps(model: str) -> Tensor:
    """What the MLPs are given."""
    found: list[Tensor] = []
    loaded = AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32)
    for layer in loaded.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, given: found.append(given[0][0]))
    loaded(TOKENS[None])
    return torch.stack(found)


def main() -> None:
    """Read, replace, attribute."""
    folder, model, out = sys.argv[1:]
    as_they_are = {"device": torch.device("cpu"), "dtype": torch.float32}
    found = {"mlp_in": read_mlps(model)}
    transcoders, _ = load_transcoders_from_cache(folder, **as_they_are)
    replaced = ReplacementModel.from_pretrained_and_transcoders(
        model, transcoders, backend="nnsight", **as_they_are
    )
    with torch.no_grad():
        found["latents"] = replaced.get_activations(TOKENS)[1].to_dense()
    graph = attribute(TOKENS, replaced, max_n_logits=2, batch_size=64, verbose=False)
    found["edges"] = torch.as_tensor(graph.adjacency_matrix).float()
    save_file({name: tensor.detach().contiguous() for name, tensor in found.items()}, out)


if __name__ == "__main__":
    main()
