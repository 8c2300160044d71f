"""A language model whose MLPs are replaced by a folder's transcoders; run by a Python with circuit-tracer.

    python replace_mlps.py FOLDER OUT

FOLDER is given to ``ReplacementModel`` as its README says. OUT, a safetensors file, takes ``mlp_in`` and
``mlp_out [L, T, D]``, which transformers alone computes, and what circuit-tracer makes of them: ``latents
[L, T, F]``, and ``edges``, of the attribution graph.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import torch
from circuit_tracer import ReplacementModel, attribute
from circuit_tracer.utils.caching import load_transcoders_from_cache
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOKENS = torch.tensor([1, 5, 7, 9, 11, 20])


def language_model(path: pathlib.Path, d: int, n_layers: int) -> LlamaForCausalLM:
    """A small one with a layer norm of many weights, saved where circuit-tracer finds it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": d, "intermediate_size": 2 * d, "num_hidden_layers": n_layers}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, num_attention_heads=2, **sizes))
    for name, parameter in model.named_parameters():
        parameter.data = torch.rand(parameter.shape) + 0.5 if "norm" in name else torch.randn(parameter.shape) / 4
    model.save_pretrained(path)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(32)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="1").save_pretrained(path)
    return model


def read_mlps(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """Inputs and outputs of the MLPs."""
    found: dict[str, list[Tensor]] = {"mlp_in": [], "mlp_out": []}
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, given: found["mlp_in"].append(given[0][0]))
        layer.mlp.register_forward_hook(lambda module, given, out: found["mlp_out"].append(out[0]))
    with torch.no_grad():
        model(TOKENS[None])
    return {name: torch.stack(each).clone() for name, each in found.items()}


def main() -> None:
    """Read, replace, attribute."""
    folder, out = sys.argv[1:]
    as_they_are = {"device": torch.device("cpu"), "dtype": torch.float32}
    transcoders, _ = load_transcoders_from_cache(folder, **as_they_are)
    with tempfile.TemporaryDirectory() as place:
        d = transcoders[0].d_model if hasattr(transcoders, "transcoders") else transcoders.d_model
        found = read_mlps(language_model(pathlib.Path(place), d, transcoders.n_layers))
        replaced = ReplacementModel.from_pretrained_and_transcoders(
            place, transcoders, backend="nnsight", **as_they_are
        )
        with torch.no_grad():
            _, latents = replaced.get_activations(TOKENS)
        graph = attribute(TOKENS, replaced, max_n_logits=2, batch_size=16, verbose=False)
    edges = torch.as_tensor(graph.adjacency_matrix).float()
    save_file(found | {"latents": latents.to_dense().contiguous(), "edges": edges.contiguous()}, out)


if __name__ == "__main__":
    main()
