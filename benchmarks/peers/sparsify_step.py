"""sparsify: ``SparseCoder`` with Adam, in the order of its ``Trainer``.

Its trainer is bound to a language model's hooks, so the step is written out here with the coder's own
methods: unit-norm decoder, forward, backward, gradient projected off the decoder's rows, optimizer,
scheduler, dead counting. Without Triton the coder uses its eager decoder. Adam instead of its default
(signum), so that all sides do the same; it would take an 8-bit Adam where bitsandbytes is installed.

Option ``autocast``: forward within torch's autocast, as the coder does by itself on a GPU.
"""

from __future__ import annotations

import torch
from sparsify.config import SparseCoderConfig
from sparsify.sparse_coder import SparseCoder
from sparsify.utils import decoder_impl
from stopwatch import Spec, autocast, measure, read_spec, write
from torch import Tensor
from transformers import get_linear_schedule_with_warmup


class Step:
    """The coder, its optimizer, and its trainer's counters."""

    def __init__(self, spec: Spec) -> None:
        torch.set_float32_matmul_precision("high")  # as its Trainer.fit does
        self.spec = spec
        config = SparseCoderConfig(num_latents=spec.n_latents, k=spec.k)
        self.coder = SparseCoder(spec.d, config, "cpu", dtype=torch.float32)
        self.optimizer = torch.optim.Adam(
            [{"params": self.coder.parameters(), "lr": 2e-4 / (spec.n_latents / 2**14) ** 0.5}]
        )
        self.scheduler = get_linear_schedule_with_warmup(self.optimizer, 1000, 20_000)
        self.tokens_since_fired = torch.zeros(spec.n_latents, dtype=torch.long)
        self.fired = torch.zeros(spec.n_latents, dtype=torch.bool)

    def __call__(self, batch: Tensor, number: int) -> None:
        if number == 0:
            self.coder.b_dec.data = batch.mean(0)
        self.coder.set_decoder_norm_to_unit_norm()
        variance = (batch - batch.mean(0)).pow(2).sum()
        with autocast(self.spec):
            out = self.coder(x=batch, y=batch, dead_mask=None, total_variance=variance)
        self.fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + out.multi_topk_fvu / 8).backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.count(len(batch))

    @torch.no_grad()
    def count(self, tokens: int) -> None:
        self.tokens_since_fired += tokens
        self.tokens_since_fired[self.fired] = 0
        self.fired.zero_()


def main() -> None:
    spec = read_spec()
    write(spec, measure(spec, Step(spec), "eai-sparsify") | {"note": f"decoder: {decoder_impl.__name__}"})


if __name__ == "__main__":
    main()
