"""Post-training quantization: a trained coder's float weights on a quantizer's grid, as a run of its own.

Shapes: F latents, D width, N calibration tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.coders.linear import LinearCoder
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.component import name_of
from qsae_core.config.run import RunConfig
from qsae_core.config.settings import QuantizeConfig
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.quantizer import Calibration
from qsae_core.errors import ConfigError
from qsae_core.quantization.finetuning import finetune
from qsae_core.quantization.making_up import making_up
from qsae_core.quantization.spaces import OF_QUANTIZERS, normalize_coder, normalizes


class Fitted(NamedTuple):
    """What calibration and fine-tuning came to."""

    errors: AtomErrors | None
    """Of the atoms, against the float ones; None where nothing is rounded."""
    rates: list[float | None]
    """Peak rate of each fine-tuning; None of one that was taken back, since it did not help."""


def calibrated(coder: MatrixCoder) -> CalibratedCoder:
    """The coder, whose decoders can be calibrated.

    Raises:
        ConfigError: if it decodes otherwise than by such matrices.
    """
    reason: str | None = "it does not say what its decoders are to make of the codes"
    if isinstance(coder, CalibratedCoder):
        reason = coder.refusal_to_calibrate()
        if reason is None:
            return coder
    raise ConfigError(
        f"{name_of(coder)} cannot be quantized after training: {reason}",
        allowed="a coder that decodes as f W_dec + b_dec, by one matrix or several",
        next="train it through the quantizer: qsae train --quantizer NAME",
    )


@torch.no_grad()
def take_floats(coder: MatrixCoder, source: MatrixCoder) -> None:
    """Give a coder with quantizers the weights and buffers of a stored float one.

    Raises:
        ConfigError: if the two do not have the same tensors.
    """
    state = source.state_dict()
    state |= {f"{name}.weight": matrix() for name, matrix in source.matrices().items()}
    result = coder.load_state_dict(state, strict=False)
    missing = [n for n in result.missing_keys if not any(part in n for part in OF_QUANTIZERS)]
    if missing or result.unexpected_keys:
        odd = ", ".join([*missing, *result.unexpected_keys])
        raise ConfigError(
            f"the float coder and {name_of(coder)} do not have the same tensors: {odd}",
            where="the quantizers",
            allowed="quantizers that leave a coder's other tensors as they are",
            next="choose another: qsae describe quantizer",
        )
    coder.begin_quantization()
    coder.eval()


def fit(
    coder: CalibratedCoder,
    source: MatrixCoder,
    data: DataSource,
    config: RunConfig,
    method: QuantizeConfig,
    message: Callable[[str], None],
) -> Fitted:
    """Calibrate and fine-tune.

    Latents whose atoms are rounded to zero are switched off.

    Raises:
        TrainingError: if the loss of fine-tuning is not finite at a rate that was given.
    """
    batch = data.next_batch(method.tokens).to(coder.device)
    if normalizes(coder, method):
        message("normalising the coder's inputs, which leaves its function as it is")
        assert isinstance(coder, LinearCoder)  # as refusal_to_rotate says
        normalize_coder(coder, batch)
    coder.units.fit(coder.norm_out(coder.target(batch)).flatten(1))  # artifacts do not hold them
    decoders = coder.decoders()
    masters = {name: matrix.master.detach().clone() for name, matrix in decoders.items()}
    rates: list[float | None] = []
    for index in range(method.rounds):
        message(f"calibrating on {len(batch)} vectors, round {index + 1} of {method.rounds}")
        with torch.no_grad():
            codes = (coder if index else source).encode(batch.x).detach()
            _calibrate(coder, masters, coder.calibrations(batch, codes))
            coder.switch_off(torch.cat([(matrix() == 0).all(1) for matrix in decoders.values()]))
        _measure_ranges(coder, batch)
        if method.steps_of_round:
            message(f"fine-tuning the encoder for {method.steps_of_round} steps")
            rates.append(finetune(coder, data, batch, config, method, message))
    with torch.no_grad():
        errors = coder.errors_of_rows(list(masters.values())) if coder.is_quantized else None
    return Fitted(errors, rates)


def _calibrate(
    coder: CalibratedCoder, masters: Mapping[str, Tensor], calibrations: Iterator[tuple[str, Calibration]]
) -> None:
    """Put one decoder after the other on its grid: several are one problem, since they add up."""
    decoders = coder.decoders()
    for name, matrix in decoders.items():
        matrix.master.copy_(masters[name])
    for name, calibration in calibrations:
        matrix, wanted = decoders[name], masters[name]
        if calibration.missed is not None:
            wanted = wanted + making_up(calibration.codes, calibration.missed)
        matrix.master.copy_(matrix.quantizer.calibrate(wanted, calibration))
        matrix.eval()  # a stochastic quantizer rounds as it will be stored


@torch.no_grad()
def _measure_ranges(coder: CalibratedCoder, batch: Batch) -> None:
    """Let code quantizers see values in training mode: their ranges are what they measure there."""
    found = [module for module in coder.modules() if isinstance(module, QuantizedValues)]
    if not all(module.quantizer.is_identity for module in found):
        for module in found:
            module.train()
        coder.encode(batch.x)
    coder.eval()
