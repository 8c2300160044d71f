"""Run by delphi's own Python: its cache of latents, with a coder of qsae in place of sparsify's.

    in_delphi.py SITE_PACKAGES ARTIFACT SPARSIFY_FOLDER MODULE OUT

SITE_PACKAGES is where qsae is installed; SPARSIFY_FOLDER is the same coder as sparsify has it.
"""

import functools
import site
import sys

site.addsitedir(sys.argv[1])  # behind what delphi's environment has

import torch
from delphi.latents import LatentCache
from delphi.sparse_coders.load_sparsify import sae_dense_latents
from qsae_format_onnx import delphi_coder
from safetensors.torch import save_file
from sparsify import SparseCoder
from transformers import LlamaConfig, LlamaModel


def tiny_model() -> LlamaModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaModel(LlamaConfig(vocab_size=50, max_position_embeddings=32, **sizes)).eval()


def cached(model, coder, module: str, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What ``populate_cache`` of delphi's command does."""
    transcode = coder.cfg.transcode or coder.cfg.skip_connection  # as load_sparsify_hooks decides
    encode = functools.partial(sae_dense_latents, sae=torch.compile(coder.to(model.device)))
    cache = LatentCache(model, {module: encode}, batch_size=2, transcode=transcode)
    cache.run(tokens.numel(), tokens)
    return {
        "locations": cache.cache.latent_locations[module],
        "activations": cache.cache.latent_activations[module],
        "firing": cache.hookpoint_firing_counts[module],
    }


@torch.no_grad()
def main(artifact: str, sparsify_folder: str, module: str, out: str) -> None:
    model, coder = tiny_model(), delphi_coder(artifact)
    tokens = torch.randint(50, (6, 16), generator=torch.Generator().manual_seed(1))
    seen = []

    def keep(_module, given, output):
        seen.append(given[0] if coder.cfg.transcode else output)

    handle = dict(model.named_modules())[module].register_forward_hook(keep)
    found = cached(model, coder, module, tokens)
    handle.remove()
    x = torch.cat(seen).flatten(0, 1)
    own = coder.encode(x)
    theirs = SparseCoder.load_from_disk(sparsify_folder).encode(x)
    for name, output in (("own", own), ("theirs", theirs)):
        fields = zip(("top_acts", "top_indices", "pre_acts"), output, strict=True)
        found |= {f"{name}.{field}": tensor for field, tensor in fields}
    save_file({name: t.contiguous() for name, t in {**found, "x": x}.items()}, out)


main(*sys.argv[2:])
