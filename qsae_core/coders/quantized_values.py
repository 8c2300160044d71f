"""QuantizedValues: the values of codes, through their quantizer. Shapes: N entries."""

from __future__ import annotations

from torch import nn

from qsae_core.contracts.code_quantizer import CodeQuantizer
from qsae_core.contracts.codes import SparseCodes


class QuantizedValues(nn.Module):
    """Passes codes through a quantizer of their values.

    In training it changes them only while ``quantizing`` is True; until then it measures their ranges.
    """

    def __init__(self, quantizer: CodeQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.quantizing = True

    def forward(self, codes: SparseCodes) -> SparseCodes:
        """The same support with quantized values."""
        if self.quantizer.is_identity:
            return codes
        quantized = self.quantizer(codes.values, codes.indices)
        return codes if self.training and not self.quantizing else codes.with_values(quantized)
