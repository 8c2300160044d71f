"""Latents that fall silent begin anew where the dictionary is worst. Shapes: B tokens, R latents that
begin anew, D width of the input, E width of the output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from qsae_core.coders.dead_latents import DeadLatents
from qsae_core.contracts.coder import Budget
from qsae_core.kernels import partners, processes

TIMES = 40
"""How often in a run."""
ENDS_AFTER = 0.9
"""Of the run: what begins anew later has no time left to learn."""
SILENT_SHARE = 0.25
"""A latent begins anew after this share of ``dead_after_tokens``, so that few ever count as dead."""
MOST_TOKENS = 0.25
"""The largest share of a batch whose errors become directions: those that are badly reconstructed are few."""
ENCODER_NORM = 0.2
"""Of a new encoder row. At 1 it would take the whole error of its own token, and some of every other token's.
FVU and dead share of a topk SAE on documents that it was not trained on (F=8192, B=2048, one seed):

    states of                           0.1            0.2            0.35           no restarts
    SmolLM2, layer 9, code, 400 steps   0.1143  6.7%   0.1128  3.4%   0.1149  7.2%
    news                                0.1162  2.7%   0.1138  1.2%   0.1154  3.0%
    talk of a forum                     0.0955  4.3%   0.0934  2.6%   0.0986  4.6%
    built-in model, code, 200 steps     0.1130 22.7%   0.1091  1.8%                  0.1131 12.4%
"""
SOURCE_NORM = 0.1
"""Of a transcoder's, which has the direction of the token's source: other tokens have more of it."""


class Found(NamedTuple):
    """What begins anew after a step."""

    latents: Tensor
    """int64 ``[R]``, numbered among those that this process has; those of others are not here."""
    atoms: Tensor
    """``[R, E]`` of norm 1: their new decoder rows."""
    encoders: Tensor
    """``[R, D]``: their new encoder rows."""
    biases: Tensor
    """``[R]``: with which these are 0 for the mean input."""


class Restarts:
    """Re-initialisation of silent latents from the errors of badly reconstructed tokens.

    A latent that is silent for long gets the direction of one token's error as its atom and, shorter, as
    its encoder row (a transcoder's that of the token's source), and is 0 for the mean input; tokens are
    drawn with probability in proportion to their squared error (after Bricken et al., 2023). It costs
    next to nothing, where AuxK encodes, decodes and differentiates hundreds of latents a token. What is
    drawn depends on the number of the batch alone, so that a resumed run draws the same.
    """

    def __init__(self) -> None:
        self._every: int | None = None
        self._last = 0
        self._found: Found | None = None

    def begin(self, budget: Budget) -> None:
        """Spread the restarts over a run."""
        self._every, self._last = max(1, budget.steps // TIMES), int(ENDS_AFTER * budget.steps)

    def look(
        self,
        target_BE: Tensor,
        y_hat_BE: Tensor,
        dead: DeadLatents,
        x_BD: Tensor | None = None,
        *,
        centred: bool = True,
    ) -> None:
        """At a batch whose turn it is, choose latents and directions; ``take`` gives them.

        Args:
            target_BE: what was to be reconstructed.
            y_hat_BE: its reconstruction.
            x_BD: a transcoder's inputs; of an autoencoder, whose targets are its inputs, None.
            centred: whether their mean over the data is 0; else the batch's stands for it.
        """
        self._found = None
        batch = int(dead.batches)
        if self._every is None or batch % self._every or batch > self._last:
            return
        silent = partners().join(dead.mask(SILENT_SHARE)).nonzero().squeeze(1).cpu()
        error_BE = (target_BE - y_hat_BE).detach()
        together = processes()
        size_B = together.rows(error_BE.square().sum(1).double().cpu())  # of the whole batch
        if not size_B.isfinite().all():
            return  # nor is the loss, which ends the run and says so
        count = min(len(silent), int(MOST_TOKENS * len(size_B)), int((size_B > 0).sum()))
        if count == 0:
            return
        generator = torch.Generator().manual_seed(batch)
        tokens = torch.multinomial(size_B, count, generator=generator)
        latents = silent[torch.randperm(len(silent), generator=generator)[:count]]
        own = partners().part(partners().world * len(dead.tokens_since_fired))
        here = (latents >= own.start) & (latents < own.stop)
        latents, tokens = latents[here] - own.start, tokens[here].to(error_BE.device)
        atoms = normalize(together.take(error_BE, tokens), dim=1)
        encoders, biases = ENCODER_NORM * atoms, atoms.new_zeros(len(atoms))
        if x_BD is not None:
            sources = together.take(x_BD, tokens)
            mean_D = torch.zeros_like(x_BD[0]) if centred else together.mean_row(x_BD.detach())
            encoders = SOURCE_NORM * normalize(sources - mean_D, dim=1)
            biases = -(encoders @ mean_D)
        self._found = Found(latents.to(error_BE.device), atoms, encoders, biases)

    def take(self) -> Found | None:
        """What was found, once."""
        found, self._found = self._found, None
        return found


@torch.no_grad()
def restart(
    found: Found, W_enc_FD: Tensor, W_dec_FE: Tensor, b_enc_F: Tensor, dead: DeadLatents
) -> Mapping[str, Tensor]:
    """Write the rows; gives parameter name -> bool of its shape, what was set anew."""
    latents, atoms, encoders, biases = found
    W_enc_FD[latents], W_dec_FE[latents], b_enc_F[latents] = encoders, atoms, biases
    dead.tokens_since_fired[latents] = 0
    chosen_F = torch.zeros(len(b_enc_F), dtype=torch.bool, device=b_enc_F.device)
    chosen_F[latents] = True
    rows_F1 = chosen_F[:, None]
    return {
        "W_enc.weight": rows_F1.expand_as(W_enc_FD),
        "W_dec.weight": rows_F1.expand_as(W_dec_FE),
        "b_enc": chosen_F,
    }
