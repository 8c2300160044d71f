"""What one unit of a coefficient is: the variance of the data. Shapes: B tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LossUnits(nn.Module):
    """The total variance V of what a coder reconstructs, in the space in which its error is measured.

    A squared error is a sum over dimensions, so it grows with the data's width and with the square of its
    scale; a number of latents does neither, and a sum of activations grows with the root of both. Added up
    as they are, a coefficient of 1/32 would be 1/32 of something else for every model. So coefficients are
    those of the normalised error ``||x - x_hat||^2 / V`` (Gao et al., 2024): every other term is a pure
    number, and the sum of all is minimised times V, which leaves the error itself, clipping and learning
    rates as they are. V is measured once, on the vectors that also give the normalisation: the variance of a
    batch would be 0 for a batch of one.

    Saved with checkpoints, not with artifacts.
    """

    training_only = True
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.ones((), dtype=torch.float32))

    @torch.no_grad()
    def fit(self, sample_BD: Tensor) -> None:
        """Measure V; 1 for a sample of one vector, which has none.

        Args:
            sample_BD: targets in the normalised space, a vector a token.
        """
        vectors = sample_BD.double()
        variance = (vectors - vectors.mean(0)).square_().sum(1).mean()
        self.variance.copy_(variance.where(variance > 0, 1.0))

    def rms(self) -> Tensor:
        """The root of V: the typical distance of a vector from the mean."""
        return self.variance.sqrt()
