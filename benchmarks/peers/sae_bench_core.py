"""SAEBench: its evaluation ``core`` on a TopK SAE of SAELens, with a model that SAELens wraps.

Everything that ``core`` computes is asked for. Its own store of activations reads data sets; here the tokens
are given, so what takes its place gives them.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
import sae_bench.evals.core.main as core
import torch
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_lens.load_model import load_model
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from stopwatch import peak_bytes
from torch import Tensor

PROMPTS = 16
"""Of a batch: its default."""


class Tokens:
    """What ``core`` asks of an ``ActivationsStore``."""

    store_batch_size_prompts = PROMPTS

    def __init__(self, ids: Tensor) -> None:
        self.ids, self.context_size, self.place = ids, ids.shape[1], 0

    def get_batch_tokens(self, n: int) -> Tensor:
        batch = self.ids[self.place : self.place + n]
        self.place += n
        return batch

    def reset_input_dataset(self) -> None:
        self.place = 0


def sae_of(arrays: Any, layer: int) -> TopKSAE:
    """The SAE, which says where it is read in the way that ``core`` asks for."""
    n_latents, d = arrays["W_enc"].shape
    k = int(arrays["k"])
    sae = TopKSAE(TopKSAEConfig(d_in=d, d_sae=n_latents, k=k, apply_b_dec_to_input=False))
    weights = {name: torch.from_numpy(arrays[name]) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    sae.load_state_dict({**weights, "W_enc": weights["W_enc"].T.contiguous()})
    place = {"hook_name": f"model.layers.{layer}", "hook_layer": layer, "hook_head_index": None}
    for name, value in {**place, "architecture_str": "topk"}.items():
        setattr(sae.cfg, name, value)
    return sae.eval()


def main() -> None:
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    arrays = np.load(spec["arrays"])
    ids = torch.from_numpy(arrays["ids"])
    sae = sae_of(arrays, spec["layer"])
    exact = {"dtype": torch.float32}  # as the other side computes; else it is what the weights are stored in
    model = load_model("AutoModelForCausalLM", spec["model"], "cpu", model_from_pretrained_kwargs=exact)
    config = CoreEvalConfig(
        model_name="given",
        batch_size_prompts=PROMPTS,
        n_eval_reconstruction_batches=spec["spliced_contexts"] // PROMPTS,
        n_eval_sparsity_variance_batches=len(ids) // PROMPTS,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
    )
    started = time.perf_counter()
    found, _ = core.run_evals(sae, Tokens(ids), model, config, ignore_tokens=set(spec["special"]))
    seconds = time.perf_counter() - started
    values = {name: value for group in found.values() for name, value in group.items()}
    result = {"seconds": seconds, "values": values, "peak_bytes": peak_bytes()}
    result |= {"version": importlib.metadata.version("sae-bench"), "torch": torch.__version__}
    pathlib.Path(spec["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
