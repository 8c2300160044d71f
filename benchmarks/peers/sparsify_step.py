"""sparsify: ``SparseCoder`` with Adam, in the order of its ``Trainer``.

Its trainer is bound to a language model's hooks, so the step is written out here with the coder's own
methods: unit-norm decoder, forward, backward, gradient projected off the decoder's rows, optimizer,
scheduler, dead counting. Without Triton the coder uses its eager decoder. Adam instead of its default
(signum), so that all sides do the same; it would take an 8-bit Adam where bitsandbytes is installed.

Option ``autocast``: forward within torch's autocast, as the coder does by itself on a GPU. ``transcode`` and
``skip``: its transcoder, whose decoder rows are free; what it is to give are the vectors, turned round. In
the middle of a run: ``run_steps``, ``lr``, and ``dead_tokens`` without firing after which a latent is dead,
for its auxiliary loss, which is off by default, with the weight 1/32 of its authors' paper.
"""

from __future__ import annotations

import torch
from sparsify.config import SparseCoderConfig
from sparsify.sparse_coder import SparseCoder
from sparsify.utils import decoder_impl
from stopwatch import autocast, measure, read_spec, write
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_linear_schedule_with_warmup


class Step:
    """The coder, its optimizer, and its trainer's counters.

    Args:
        auxk_alpha: weight of the auxiliary loss; 0, its default, is off.
        dead_after_tokens: without firing, for that loss.
    """

    def __init__(
        self,
        coder: SparseCoder,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        *,
        auxk_alpha: float = 0.0,
        dead_after_tokens: int = 10_000_000,
    ) -> None:
        torch.set_float32_matmul_precision("high")  # as its Trainer.fit does
        self.coder, self.optimizer, self.scheduler = coder, optimizer, scheduler
        self.auxk_alpha, self.dead_after_tokens = auxk_alpha, dead_after_tokens
        self.tokens_since_fired = torch.zeros(coder.num_latents, dtype=torch.long)
        self.fired = torch.zeros(coder.num_latents, dtype=torch.bool)
        self.keeps_norm = not coder.cfg.transcode

    def __call__(self, batch: Tensor, number: int, target: Tensor | None = None) -> None:
        target = batch if target is None else target
        if number == 0:
            self.begin(batch, target)
        if self.keeps_norm:
            self.coder.set_decoder_norm_to_unit_norm()
        dead = self.tokens_since_fired > self.dead_after_tokens if self.auxk_alpha > 0 else None
        variance = (target - target.mean(0)).pow(2).sum()
        out = self.coder(x=batch, y=target, dead_mask=dead, total_variance=variance)
        self.fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + self.auxk_alpha * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        if self.keeps_norm:
            self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler is not None:
            self.scheduler.step()
        self.count(len(batch))

    @torch.no_grad()
    def begin(self, batch: Tensor, target: Tensor) -> None:
        """Biases at the start, as its trainer sets them from the first batch."""
        if self.coder.cfg.transcode:
            self.coder.encoder.bias.data = -batch.mean(0) @ self.coder.encoder.weight.data.T
        self.coder.b_dec.data = target.mean(0)

    @torch.no_grad()
    def count(self, tokens: int) -> None:
        self.tokens_since_fired += tokens
        self.tokens_since_fired[self.fired] = 0
        self.fired.zero_()


def make_coder(d: int, n_latents: int, k: int, *, transcode: bool = False, skip: bool = False) -> SparseCoder:
    config = SparseCoderConfig(num_latents=n_latents, k=k, transcode=transcode, skip_connection=skip)
    return SparseCoder(d, config, "cpu", dtype=torch.float32)


def main() -> None:
    spec = read_spec()
    transcode = spec.options.get("transcode", False)
    skip = spec.options.get("skip", False)
    coder = make_coder(spec.d, spec.n_latents, spec.k, transcode=transcode, skip=skip)
    steps = spec.options.get("run_steps", 20_000)
    adam = Adam(coder.parameters(), lr=spec.options.get("lr", 2e-4 / (spec.n_latents / 2**14) ** 0.5))
    schedule = get_linear_schedule_with_warmup(adam, min(1000, steps // 20), steps)
    aux = {}
    if "dead_tokens" in spec.options:
        aux = {"auxk_alpha": 1 / 32, "dead_after_tokens": spec.options["dead_tokens"]}
    one_step = Step(coder, adam, schedule, **aux)

    def step(batch: Tensor, number: int) -> None:
        with autocast(spec):
            one_step(batch, number, batch.flip(1) if transcode else batch)

    found = measure(spec, step, "eai-sparsify") | {"note": f"decoder: {decoder_impl.__name__}"}
    silent = one_step.tokens_since_fired > one_step.dead_after_tokens
    write(spec, found | {"dead": silent.float().mean().item()})


if __name__ == "__main__":
    main()
