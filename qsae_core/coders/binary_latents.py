"""Latents of one bit, and coders whose codes are such bits.

Shapes: B tokens, C rows of a chunk, F latents, D width, N entries.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from qsae_core.coder_options import CoderConfig
from qsae_core.coders.dead_latents import auxk_loss
from qsae_core.coders.linear import LinearCoder
from qsae_core.coders.steps import step, step_candidates
from qsae_core.component import ComponentConfig
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.code_quantizer import CodeQuantizer
from qsae_core.contracts.coder import CoderShape, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.kernels import Matrix, as_rows

USUAL_L0 = 32
"""Active latents per token at the start, where the sparsity rule has no k."""
SPEED = 10.0
"""How many times faster than a weight the logarithm of a magnitude moves: norms of atoms are far apart."""
SAMPLE_TOKENS, LATENTS_AT_ONCE = 4096, 2048
LEAST_MAGNITUDE = 1e-3


class BinaryLatents(Activation):
    """``f_j = m_j 1[s_j >= 1/2]`` with ``s = sigma(z)``: a bit times a magnitude that belongs to the latent.

    The gradient of the bit is that of s (straight through: Bengio et al., 2013). A magnitude is positive and
    learned as ``m_j = base_j exp(10 log_magnitude_j)``. Rules rank latents by z: bits would tie.
    """

    straight_through = True
    has_gates = True
    base: Tensor

    def __init__(self, n_latents: int) -> None:
        super().__init__(ComponentConfig(), n_latents)
        self.register_buffer("base", torch.ones(n_latents, dtype=torch.float32))
        self.log_magnitude = nn.Parameter(torch.zeros(n_latents, dtype=torch.float32))

    def magnitudes(self) -> Tensor:
        """``[F]``: m."""
        return self.base * (SPEED * self.log_magnitude).exp()

    def part(self, latents: slice) -> Activation:
        """The same for some of the latents, numbered from 0."""
        return _Part(self, latents)

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """m where z >= 0, else 0."""
        magnitudes = self.magnitudes()
        if latent_index is not None:
            magnitudes = magnitudes.index_select(0, latent_index)
        return step(pre_acts) * magnitudes

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """Ranks of bits (``step_candidates``)."""
        return step_candidates(pre_BF, self.training)

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """The bits, with the gradient of s."""
        return step(pre_N)


class _Part(Activation):
    """Consecutive latents of a ``BinaryLatents``, whose parameters these are."""

    straight_through = True
    has_gates = True

    def __init__(self, whole: BinaryLatents, latents: slice) -> None:
        super().__init__(whole.config, latents.stop - latents.start)
        self._whole, self._start = (whole,), latents.start  # a tuple: its parameters are the coder's already

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """m where z >= 0, else 0."""
        if latent_index is None:
            columns = torch.arange(self.n_latents, device=pre_acts.device).expand(pre_acts.shape)
            return self(pre_acts.reshape(-1), columns.reshape(-1)).view_as(pre_acts)
        latents: Tensor = self._whole[0](pre_acts, latent_index + self._start)
        return latents

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """As of the whole."""
        return self._whole[0].candidates(pre_BF)

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """As of the whole."""
        return self._whole[0].gates(pre_N, latent_N)


class _SoftLatents(Activation):
    """``m_j sigma(z_j)``: with it dead latents, whose bits are all 0, can model a residual."""

    def __init__(self, binary: BinaryLatents) -> None:
        super().__init__(binary.config, binary.n_latents)
        self._binary = (binary,)  # its parameters are the coder's already

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """Latents from pre-activations."""
        magnitudes = self._binary[0].magnitudes()
        if latent_index is not None:
            magnitudes = magnitudes.index_select(0, latent_index)
        return torch.sigmoid(pre_acts) * magnitudes


class BitCodes(CodeQuantizer):
    """Stands where a coder's values are stored as one bit already; changes nothing."""

    bits = 1.0

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """The very tensor that came in."""
        return values_N

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """uint8 ``[N]``: 1 where a latent is active."""
        return (values_N != 0).to(torch.uint8)

    def unpack(self, levels_N: Tensor, latent_N: Tensor) -> Tensor:
        """Not for use: magnitudes are the coder's."""
        raise TypeError("the values of bits are magnitudes of the coder")

    @property
    def is_identity(self) -> bool:
        """True."""
        return True


class BinaryLatentCoder(LinearCoder):
    """A LinearCoder whose latents are ``m_j 1[sigma(W_enc (x - b_dec) + b_enc) >= 1/2]``.

    Its component takes no activation and no code quantizer (``default_parts`` with None there).
    """

    unit_norm_rows = True
    encoder_scale = 1.0  # a bit has no size that could add up, and its gradient wants z of the order of 1
    activation: BinaryLatents

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        own = parts._replace(
            activation=BinaryLatents, code_quantizer=functools.partial(BitCodes, ComponentConfig())
        )
        super().__init__(config, shape, own)

    @torch.no_grad()
    def initialize(self, sample: Batch) -> None:
        """As a LinearCoder; then biases and magnitudes from the sample (``fit_codes``)."""
        super().initialize(sample)
        self.fit_codes(self.norm_in(sample.x[:SAMPLE_TOKENS]) - self.b_dec)

    def fit_codes(self, x_BD: Tensor) -> None:
        """Set biases so that each latent fires as often as the sparsity rule will have it.

        Without that the bit of a random direction is 1 for half of the tokens.

        Args:
            x_BD: normalised, ``b_dec`` subtracted.
        """
        self.fit_bits(x_BD, slice(0, self.n_latents), usual_l0(self.sparsity))

    @torch.no_grad()
    def fit_bits(self, x_BD: Tensor, latents: slice, l0: int) -> None:
        """Biases with which ``l0`` of these latents fire per token; magnitudes begin as the mean of
        ``W_enc x`` over the tokens for which they do.

        Args:
            x_BD: what their encoder rows multiply.
        """
        W_enc, n = self.W_enc.master[latents], x_BD.shape[0]
        firing = max(1, min(n, round(n * l0 / W_enc.shape[0])))
        for start in range(0, W_enc.shape[0], LATENTS_AT_ONCE):
            rows = W_enc[start : start + LATENTS_AT_ONCE]
            largest = torch.topk(x_BD @ rows.T, firing, dim=0).values
            some = slice(latents.start + start, latents.start + start + rows.shape[0])
            self.b_enc[some] = -largest[-1]
            self.activation.base[some] = largest.mean(0).clamp_min(LEAST_MAGNITUDE)

    def code_levels(self, codes: SparseCodes) -> Tensor:
        """uint8 ``[N]``: 1 where a latent is active; its magnitude belongs to the latent."""
        return codes.active.to(torch.uint8)

    @property
    def dead_activation(self) -> Activation:
        """Soft latents ``m_j s_j``: the bits of dead ones are 0."""
        return _SoftLatents(self.activation)

    def soft_auxk(
        self,
        x_BD: Tensor,
        error_BE: Tensor,
        W_enc_FD: Matrix,
        W_dec_FE: Matrix,
        dead_F: Tensor,
        offset_D: Tensor | None,
    ) -> Tensor:
        """``auxk_loss`` of some dead latents, softened."""
        soft, bias = self.dead_activation, self.b_enc
        return auxk_loss(x_BD, error_BE, W_enc_FD, bias, W_dec_FE, dead_F, soft, self.k_aux, offset_D)

    def secant(self, codes: SparseCodes, W_dec_FE: Matrix, sums_N: Tensor | float = 1.0) -> Tensor:
        """A term of value 0 that turns the gradient of each bit into the change of the loss between 0 and 1.

        ``1/2 ||e - m_j w_j b_j||^2`` is a parabola in b_j. Its slope at 0 or 1, where bits are, is off the
        secant between the two by ``(1/2 - b_j) m_j^2 ||w_j||^2``.

        Args:
            codes: with gates.
            sums_N: in how many squared errors each entry is.
        """
        assert codes.gates is not None
        bits = codes.gates.detach()
        with torch.no_grad():
            norms_F = self.activation.magnitudes() * as_rows(W_dec_FE).norms()
            curvature_N = norms_F.square().index_select(0, codes.indices) * sums_N
        return ((0.5 - bits) * curvature_N * (codes.gates - bits)).sum() / max(1, codes.batch_size)


def usual_l0(rule: SparsityRule) -> int:
    """How many latents per token a rule keeps (``counts``), or ``USUAL_L0`` where it does not say."""
    count = getattr(rule.config, rule.counts) if rule.counts is not None else None
    return USUAL_L0 if count is None else max(1, round(count))
