"""Coders that can be varied: the twin with noise in its weights, the coder with other thresholds.

Shapes: B tokens, D width, F latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import DenseForm, SparseCoder, SparseCodes, concatenate
from qsae_core.errors import ConfigError

ENTRIES_AT_ONCE = 2**22
"""Of a dense ``[B, F]`` tensor, which is cut by tokens."""
SEED = 0
"""Of the noise."""
FINEST = 256
"""Bins of a threshold's multiples, for each factor of 2."""
OCTAVES = 12
"""The largest factor by which thresholds are moved is 2 to this power."""


def dense_form(coder: SparseCoder) -> tuple[DenseForm | None, str | None]:
    """The coder as plain matrices on the coder's device; or why there is none."""
    if not isinstance(coder, MatrixCoder):
        return None, "it is no coder of matrices"
    try:
        form = coder.dense().plain()
    except ConfigError as error:
        return None, error.what
    if form.layers > 1:
        return None, "it reads several layers"
    here: dict[str, Any] = {name: tensor.to(coder.device) for name, tensor in form.tensors().items()}
    return replace(form, **here), None


@torch.no_grad()
def with_noise(form: DenseForm, other: DenseForm, mean_D: Tensor) -> DenseForm:
    """The form with Gaussian noise in each row of both matrices, as large as the other form's row is away.

    The noise acts on ``x - mean``, as the coders' own encoders do, and biases stay.
    """
    generator = torch.Generator().manual_seed(SEED)
    noise = {}
    for name in ("W_enc", "W_dec"):
        before, after = getattr(form, name), getattr(other, name)
        drawn = torch.randn(before.shape, generator=generator).to(before)
        drawn *= (after - before).norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
        noise[name] = drawn
    return replace(
        form,
        W_enc=form.W_enc + noise["W_enc"],
        b_enc=form.b_enc - noise["W_enc"] @ mean_D.to(form.b_enc),
        W_dec=form.W_dec + noise["W_dec"],
    )


def chunks(form: DenseForm, x_BD: Tensor) -> Iterator[Tensor]:
    """Rows of x, so many that ``[B, F]`` stays small."""
    return iter(x_BD.split(max(1, ENTRIES_AT_ONCE // form.n_latents)))


def encode(form: DenseForm, x_BD: Tensor) -> SparseCodes:
    """The codes of the form."""
    return concatenate([SparseCodes.from_dense(form.encode(some.float())) for some in chunks(form, x_BD)])


def refusal_to_fit(form: DenseForm) -> str | None:
    """Why no threshold of the form can be moved; None where one can."""
    if form.k is not None:
        return f"no threshold to fit: the rule keeps the {form.k} largest latents of each token"
    if form.threshold is None:
        return f"no threshold to fit: latents are active wherever the {form.activation} is not 0"
    if not bool((form.threshold > 0).all()):
        return "no threshold to fit: not all thresholds are above 0"
    return None


class ThresholdFit:
    """How many entries there would be with all thresholds multiplied by one factor.

    Pre-activations are counted by ``log2(z / threshold)`` in bins of 1/``FINEST``.
    """

    def __init__(self, form: DenseForm) -> None:
        self.form = form
        device = form.W_enc.device
        self.counts = torch.zeros(2 * OCTAVES * FINEST, dtype=torch.int64, device=device)
        self.wanted = 0
        """Entries of the twin on the same tokens."""

    def add(self, x_BD: Tensor, n_entries: int) -> None:
        """Add tokens, on which the twin has so many entries."""
        assert self.form.threshold is not None
        self.wanted += n_entries
        for some in chunks(self.form, x_BD):
            pre = some.float() @ self.form.W_enc.T + self.form.b_enc
            times = (pre / self.form.threshold)[pre > 0].double().log2()
            bins = ((times + OCTAVES) * FINEST).floor().clamp(-1, len(self.counts) - 1).long()
            self.counts += torch.bincount(bins[bins >= 0], minlength=len(self.counts))

    def merge(self, other: ThresholdFit) -> None:
        """Add what another one has seen."""
        self.counts += other.counts
        self.wanted += other.wanted

    def factor(self) -> float:
        """The one that comes closest to the twin's number of entries."""
        above = self.counts.flip(0).cumsum(0).flip(0)
        return 2.0 ** (int((above - self.wanted).abs().argmin()) / FINEST - OCTAVES)

    def fitted(self) -> DenseForm:
        """The form with its thresholds multiplied by it."""
        assert self.form.threshold is not None
        return replace(self.form, threshold=self.form.threshold * self.factor())
