"""The evaluation ``gradients``."""

from __future__ import annotations

import pathlib
from typing import NamedTuple, cast

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.conformance import Case
from qsae_core.contracts import Accumulator, Batch, Evaluation, EvaluationContext, Observation, Result
from qsae_evaluation_gradients import GradientsConfig
from qsae_evaluation_gradients.findings import found
from qsae_evaluation_gradients.trainable import why_not


class Gradients(Evaluation):
    """Gradients of the training loss on held-out batches, in a copy of the coder that trains.

    ``grad_norm``: norm of a batch's gradient over all parameters, mean over batches; ``noise_share``: the
    part of its square that another batch would not have;
    ``ste_mismatch`` = sqrt(sum (D - <g, u>)^2 / sum D^2) over random directions u of a matrix, with g the
    gradient that reaches its master and D = (L(Q(w + h u)) - L(Q(w - h u))) / 2h; ``ste_cosine``: the cosine
    of the two; ``flip_mismatch``: as ``ste_mismatch``, of <G, Q(w + h u) - Q(w - h u)> / 2h, with G the
    gradient of the quantized entries; ``passed_cosine`` = cos(g, G);
    ``saturated_share``: weights at the grid's lowest or highest point; ``clipped_share``: weights that get no
    gradient where their quantized values have one; ``near_boundary_share``: weights that one step of size
    ``rate`` would take to another point;
    ``n_tokens``, ``n_batches``.

    Means over the matrices that are quantized; slopes over all matrices where none is.
    """

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """One direction, and small batches."""
        return [Case({"directions": 1, "batch": 20, "tokens": 64})]

    def unavailable(self, context: EvaluationContext) -> str | None:
        """Where there are no float masters, with what keeps them."""
        return why_not(context.coder)

    def start(self, context: EvaluationContext) -> Gathered:
        """Batches that have nothing in them."""
        return Gathered(cast(GradientsConfig, self.config), cast(MatrixCoder, context.coder))


class Piece(NamedTuple):
    """Vectors of the stream, on the CPU."""

    first: int
    x: Tensor
    y: Tensor


class Gathered(Accumulator):
    """The first ``tokens`` tokens of the stream. What follows from them is computed of all at once, since a
    gradient is that of a batch, whoever has seen which part of it."""

    def __init__(self, config: GradientsConfig, coder: MatrixCoder) -> None:
        self.config, self.coder = config, coder
        self.n_tokens = config.tokens
        self.pieces: list[Piece] = []
        self._position = 0

    def update(self, observation: Observation) -> None:
        """Keep what belongs to the first tokens."""
        assert observation.inputs is not None  # as core observes
        first = self._position if observation.first is None else observation.first
        self._position = first + len(observation.target)
        wanted = max(0, self.config.tokens - first)
        x = observation.inputs[:wanted].detach().cpu().clone()
        y = x if self.coder.is_autoencoder else observation.target[:wanted].detach().cpu().clone()
        if len(x):
            self.pieces.append(Piece(first, x, y))

    def merge(self, other: Gathered) -> None:
        """Keep what the other one has kept."""
        self.pieces += other.pieces

    def batches(self) -> list[Batch]:
        """Of ``batch`` tokens, in the order of the stream; what is left over is a batch only where there is
        no other."""
        if not self.pieces:
            return []
        ordered = sorted(self.pieces, key=lambda piece: piece.first)
        x = torch.cat([piece.x for piece in ordered])
        y = x if self.coder.is_autoencoder else torch.cat([piece.y for piece in ordered])
        whole, size = Batch(x, y), self.config.batch
        ends = range(size, len(x) + 1, size) or [len(x)]
        return [whole.rows(slice(max(0, end - size), end)) for end in ends]

    def result(self) -> Result:
        """The values that ``Gradients`` names."""
        return found(self.coder, self.batches(), self.config)
