"""What a coder is built from and what its loss gives. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from qsae_core.codes import SparseCodes
from qsae_core.parts import Activation, SparsityRule
from qsae_core.quantizer import CodeQuantizer, Quantizer


class CoderShape(NamedTuple):
    """Widths of what goes in and comes out; SAEs have ``d_in == d_out``."""

    d_in: int
    d_out: int
    layers_in: int = 1
    layers_out: int = 1


class Parts(NamedTuple):
    """Factories of the chosen parts, so that a coder with several matrices or groups gets one for each."""

    quantizer: Callable[[tuple[int, int]], Quantizer]
    """``(F, D) ->`` quantizer of one decoder matrix."""
    encoder_quantizer: Callable[[tuple[int, int]], Quantizer]
    """``(F, D) ->`` quantizer of one encoder matrix."""
    code_quantizer: Callable[[int], CodeQuantizer]
    """``F ->`` quantizer of the codes of that many latents."""
    activation: Callable[[int], Activation]
    """``F ->`` activation of that many latents."""
    sparsity: Callable[[int], SparsityRule]
    """``F ->`` rule over that many latents."""


class AtomErrors(NamedTuple):
    """What quantization does to the decoder's rows."""

    squared_sines: Tensor
    """float64 ``[F]``: 1 - cos^2 between each row before and after it, 0 where nothing is quantized."""
    norms: Tensor
    """float ``[F]``, or ``[F, L]`` of several layers: each row's norm before it, in the data's space."""


class Budget(NamedTuple):
    """How long training will be; warm-ups, dead thresholds and schedules are shares of it."""

    steps: int
    tokens: int
    batch_size: int


class LossOutput(NamedTuple):
    """What ``SparseCoder.loss`` gives: the terms to minimise, and what was computed on the way."""

    terms: dict[str, Tensor]
    """Name -> scalar; the optimiser minimises the sum. Squared errors are sums over D, means over tokens."""
    codes: SparseCodes
    target: Tensor
    """``[B, d_out]`` in the normalised space, where FVU is the same as in the data's (from several layers
    ``[B, L, d_out]``, each with its own scale)."""
    reconstruction: Tensor
    """``[B, d_out]`` in the normalised space."""
    values: Mapping[str, Tensor] = {}
    """Name -> scalar: what a variant wants logged beside its terms; not part of the loss."""
