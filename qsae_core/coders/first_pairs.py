"""How latents of a transcoder begin, at pairs of a source and its target, and how fast their biases learn.

Shapes: N tokens of a sample, P of them, D width of the source, E width of the target, F latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from qsae_core.contracts.data import Batch

if TYPE_CHECKING:
    from qsae_core.coders.linear import LinearCoder

SEED = 0
"""Of the draw of tokens. The sample is another one for each seed of a run; and of several coders that begin
one after the other, each draws what it would alone."""
TRANSCODER_BIAS_RATE = 32.0
"""``LinearCoder.bias_rate`` of transcoders. Adam moves each parameter by about the same in a step, which
changes a latent's pre-activation by one such move through its bias and by that times the sum of D inputs'
magnitudes through its row: at one rate for both, biases stay behind. FVU with 1, 32 and 64 here (SmolLM2,
layer 9, 300 steps of 1024 vectors of a store, seed 0, on its held-out documents): 0.170, 0.149 and 0.150."""


@torch.no_grad()
def begin_at_tokens(coder: LinearCoder, sample: Batch) -> None:
    """Set the rows of each latent to a token's pair: the directions of its source and of its target, both
    beside their means. Latents beyond the tokens keep their random rows; all are 0 for the mean source.

    In trials of a few hundred steps (SmolLM2, layer 9, one seed) it was worth 0.2 points of FVU or more, and
    a ``W_skip`` from least squares was worth nothing.

    For ``LinearCoder.begin_rows`` of a transcoder: the normalisation and ``b_dec`` are there.
    """
    x, y = coder.normalized(sample.x), coder.norm_out(sample.y).flatten(1)
    mean_D = torch.zeros_like(x[0]) if coder.norm_in.centres else x.mean(0)
    pairs = first_pairs(x - mean_D, y - coder.b_dec, coder.config.n_latents)
    encoders, atoms = (rows[coder.own_latents] for rows in pairs)
    coder.W_enc.master[: len(atoms)] = coder.encoder_scale * encoders
    coder.W_dec.master[: len(atoms)] = atoms
    coder.b_enc.copy_(-coder.W_enc.master @ mean_D)


def first_pairs(x_ND: Tensor, y_NE: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Directions of sources ``[P, D]`` and of their targets ``[P, E]``, both beside their means; unit rows.

    Tokens are drawn with probability in proportion to the target's square, none twice, and none of which a
    side is zero.

    Args:
        most: P at most; fewer where the sample has not so many.
    """
    size_N = y_NE.double().square().sum(1) * x_ND.any(1)
    count = min(most, int((size_N > 0).sum()))
    if count == 0:
        return x_ND[:0], y_NE[:0]
    tokens = torch.multinomial(size_N, count, generator=torch.Generator().manual_seed(SEED))
    return normalize(x_ND[tokens], dim=1), normalize(y_NE[tokens], dim=1)
