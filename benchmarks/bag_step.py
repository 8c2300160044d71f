"""Decoding k of F rows with torch's ``embedding_bag`` in float32; indices uniform, another set each time."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.stopwatch import measure, read_spec, write

SETS = 16


@torch.no_grad()
def main() -> None:
    spec = read_spec()
    W_dec_FD = torch.nn.functional.normalize(torch.randn(spec.n_latents, spec.d), dim=1)
    indices = torch.randint(spec.n_latents, (SETS, spec.batch_size, spec.k))
    values = torch.rand(SETS, spec.batch_size, spec.k)

    def decode(batch: Tensor, number: int) -> None:
        which = number % SETS
        torch.nn.functional.embedding_bag(
            indices[which], W_dec_FD, per_sample_weights=values[which], mode="sum"
        )

    write(spec, measure(spec, decode, "torch"))


if __name__ == "__main__":
    main()
