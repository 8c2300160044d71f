"""CalibratedCoder: a coder that can be quantized after training. Shapes: F latents, N tokens, E width."""

from __future__ import annotations

import abc
from collections.abc import Iterator

from torch import Tensor

from qsae_core.coders.loss_units import LossUnits
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.quantizer import Calibration


class CalibratedCoder(MatrixCoder):
    """A coder whose ``decoders`` decode linearly: each makes ``f W`` of its latents, and the rest is biases.

    So a quantizer can be shown what each of them gets and what it is to make of it, and latents whose atoms
    were rounded to nothing can be switched off.
    """

    units: LossUnits

    @abc.abstractmethod
    def calibrations(self, batch: Batch, codes: SparseCodes) -> Iterator[tuple[str, Calibration]]:
        """For each of ``decoders``, by its name: its latents' codes and what they are to decode to, both
        normalised. All masters are float ones at the beginning, and the next calibration is asked for when
        the matrix before it is on its grid: so it says what those before it have missed, and the later one
        makes up for that.

        Args:
            codes: of the whole coder, for the vectors of the batch.
        """

    @abc.abstractmethod
    def switch_off(self, latents_F: Tensor) -> None:
        """Latents (bool ``[F]``) that shall never be active again: their atoms add nothing any more, and
        would take places among the largest and count in L0."""

    def refusal_to_calibrate(self) -> str | None:
        """Why it cannot be done all the same; None where it can."""
        return None
