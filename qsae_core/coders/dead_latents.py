"""Dead latents: counting them in tokens, and the auxiliary loss that revives them.

Shapes: B tokens, D width of the input, E width of the output, F latents, K entries per token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qsae_core import kernels
from qsae_core.component import ComponentConfig
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.kernels import Matrix, as_rows, partners, processes

DEAD_AFTER_TOKENS = 10_000_000
EVERY_STEPS, SHARE_OF_TOKENS = 8, 8
"""AuxK is computed at every eighth step on an eighth of the batch, and weighs eight times as much there."""


class DeadLatents(nn.Module):
    """Counts, for each latent, the tokens since it last fired. Saved with checkpoints, not with artifacts."""

    training_only = True
    tokens_since_fired: Tensor
    batches: Tensor

    def __init__(self, n_latents: int) -> None:
        super().__init__()
        self.register_buffer("tokens_since_fired", torch.zeros(n_latents, dtype=torch.int64))
        self.threshold = DEAD_AFTER_TOKENS
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def set_threshold(self, tokens: int | str, budget_tokens: int) -> None:
        """Dead after so many tokens; ``"auto"``: 10M, or an eighth of a run that is shorter than 80M."""
        self.threshold = min(DEAD_AFTER_TOKENS, budget_tokens // 8) if tokens == "auto" else int(tokens)

    @torch.no_grad()
    def update(self, codes: SparseCodes) -> None:
        """Take a training batch into account."""
        together = processes()
        fired = torch.zeros(codes.n_latents, dtype=torch.float32, device=codes.indices.device)
        fired.index_add_(0, codes.indices, codes.active.to(fired.dtype))
        fired = together.sum(fired)
        self.batches += 1
        self.tokens_since_fired += codes.batch_size * together.world
        self.tokens_since_fired.masked_fill_(fired > 0, 0)

    def mask(self, share: float = 1.0) -> Tensor:
        """Bool ``[F]``: latents that count as dead, or were silent for a share of the time until then."""
        return self.tokens_since_fired >= share * self.threshold

    def turn(self) -> slice | None:
        """The tokens of the last batch that was taken into account on which AuxK is computed, every eighth of
        them, at every eighth batch; None at the others. Of several processes' batch, this one's of these."""
        turn, rest = divmod(int(self.batches), EVERY_STEPS)
        return None if rest else processes().own(turn % SHARE_OF_TOKENS, SHARE_OF_TOKENS)

    def share(self) -> float:
        """Dead latents as a share of all."""
        dead = partners().sum(self.mask().sum())
        return dead.item() / (len(self.tokens_since_fired) * partners().world)


def auxk_loss(
    x_BD: Tensor,
    error_BE: Tensor,
    W_enc_FD: Matrix,
    bias_F: Tensor,
    W_dec_FE: Matrix,
    dead_F: Tensor,
    activation: Activation,
    k_aux: int,
    offset_D: Tensor | None = None,
) -> Tensor:
    """The auxiliary loss of Gao et al. (2024): the top ``k_aux`` dead latents model what the live ones left.

    ``||sg(e) - e_hat||^2 / ||e - mean(e)||^2`` with ``e_hat`` decoded without bias. 0, and so are its
    gradients, where nothing is dead or ``e`` has no spread beyond rounding (a single token).

    Args:
        x_BD: what the encoder multiplies, ``offset_D`` subtracted from it first.
        error_BE: ``e``, the target less the reconstruction; its gradient is stopped here.
        dead_F: bool, which latents are dead.
        k_aux: dead latents per token, at most as many as there are.
    """
    dead = torch.nonzero(dead_F).squeeze(1)
    n_dead = int(partners().sum(torch.tensor(dead.numel(), device=dead.device)))
    if n_dead == 0:
        return x_BD.new_zeros(())
    codes = kernels.encode(
        x_BD,
        _some(W_enc_FD, dead),
        bias_F[dead],
        _Subset(activation, dead),
        _Largest(min(k_aux, n_dead), n_dead),
        offset_D=offset_D,
    )
    error = error_BE.detach()
    modelled = partners().total(kernels.decode(codes, _some(W_dec_FE, dead)))
    together = processes()
    spread = together.sum((error - together.mean_row(error)).square().sum())
    size = together.sum(error.square().sum())
    # decided before the division: a quotient that is masked afterwards still has a gradient of NaN
    divisor = spread.where(spread > torch.finfo(spread.dtype).eps * size, torch.inf)
    return together.share((error - modelled).square().sum() / divisor)


def _some(matrix_FD: Matrix, latents: Tensor) -> Matrix:
    """Rows of a matrix; of a process that has none of them, whose partners do, nothing that is quantized."""
    rows = as_rows(matrix_FD)
    return rows.take(latents) if latents.numel() else torch.empty(0, rows.shape[1], device=latents.device)


class _Subset(Activation):
    """An activation applied to a subset of its latents."""

    def __init__(self, whole: Activation, subset: Tensor) -> None:
        super().__init__(whole.config, subset.numel())
        self.whole, self.subset, self.keeps_order = whole, subset, whole.keeps_order  # type: ignore[misc]

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """Look each entry's latent up in the whole dictionary."""
        if latent_index is not None:
            return self.whole(pre_acts, self.subset[latent_index.long()])
        index = self.subset.expand(pre_acts.shape).reshape(-1)
        return self.whole(pre_acts.reshape(-1), index).view_as(pre_acts)


class _Largest(SparsityRule):
    """The k largest latents of each token."""

    def __init__(self, k: int, n_latents: int) -> None:
        super().__init__(ComponentConfig(), n_latents)
        self.fixed_k = k

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """Importance plays no part among dead latents."""
        assert self.fixed_k is not None
        values, indices = kernels.top_k(latents_BF, min(self.fixed_k, latents_BF.shape[1]))
        return SparseCodes.from_top_k(indices, values, latents_BF.shape[1])
