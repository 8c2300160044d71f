"""Post-training quantization: a trained coder's float weights on a quantizer's grid, as a run of its own.

Shapes: F latents, D width, N calibration tokens.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.coders.linear import LinearCoder
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.component import name_of
from qsae_core.config.run import RunConfig
from qsae_core.config.settings import QuantizeConfig
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.dense import ROWS_AT_ONCE
from qsae_core.contracts.quantizer import Calibration, Quantizer
from qsae_core.errors import ConfigError
from qsae_core.quantization.finetuning import finetune
from qsae_core.quantization.making_up import making_up
from qsae_core.quantization.spaces import OF_QUANTIZERS, normalize_coder, normalizes
from qsae_core.reading import LARGE, is_mapped, let_go, on_disk
from qsae_core.training.memory import hand_back


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
def take_floats(
    coder: MatrixCoder, source: MatrixCoder, *, over: bool = False, scratch: pathlib.Path | None = None
) -> None:
    """Give a coder with quantizers the weights and buffers of a stored float one, in float32.

    Args:
        over: take matrices over, without a copy where that is none; the source cannot be used any more.
        scratch: a folder in which large matrices that are views of a file, or of 16 bits, are on disk.

    Raises:
        ConfigError: if the two do not have the same tensors.
        OSError: if there is no room in the folder.
    """
    state = {n: t for n, t in source.state_dict().items() if not any(part in n for part in OF_QUANTIZERS)}
    floats = {name: _floats(matrix) for name, matrix in source.matrices().items()}
    matrices = coder.matrices()
    taken = floats.keys() & matrices.keys() if over and all(m.is_plain for m in matrices.values()) else set()
    state |= {f"{name}.weight": floats[name] for name in floats.keys() - taken}
    for name in taken:
        state.pop(f"{name}.weight", None)
        matrices[name].replace(_taken(floats[name].detach(), scratch))
    result = coder.load_state_dict(state, strict=False)
    result.missing_keys[:] = [n for n in result.missing_keys if n.removesuffix(".weight") not in taken]
    missing = [n for n in result.missing_keys if not any(part in n for part in OF_QUANTIZERS)]
    if missing or result.unexpected_keys:
        odd = ", ".join([*missing, *result.unexpected_keys])
        raise ConfigError(
            f"the float coder and {name_of(coder)} do not have the same tensors: {odd}",
            where="the quantizers",
            allowed="quantizers that leave a coder's other tensors as they are",
            next="choose another: qsae describe quantizer",
        )
    coder.eval()


def _floats(matrix: QuantizedMatrix) -> Tensor:
    found = matrix.floats()
    return matrix() if found is None else found


def _taken(rows_FD: Tensor, scratch: pathlib.Path | None) -> Tensor:
    """float32 ``[F, D]`` to write to: the tensor itself, unless it is of another type or a view of a file."""
    if rows_FD.dtype == torch.float32 and not is_mapped(rows_FD):
        return rows_FD
    if scratch is not None and rows_FD.device.type == "cpu" and rows_FD.numel() >= LARGE:
        own_FD = on_disk(tuple(rows_FD.shape), scratch)
    else:
        own_FD = rows_FD.new_empty(rows_FD.shape, dtype=torch.float32)
    for rows_RD, own_RD in zip(rows_FD.split(ROWS_AT_ONCE), own_FD.split(ROWS_AT_ONCE), strict=True):
        own_RD.copy_(rows_RD)
        let_go(rows_RD)
        let_go(own_RD)
    return own_FD


def fit(
    coder: CalibratedCoder,
    batch: Batch,
    float_codes: SparseCodes,
    data: DataSource,
    config: RunConfig,
    method: QuantizeConfig,
    message: Callable[[str], None],
) -> Fitted:
    """Calibrate and fine-tune.

    Latents whose atoms are rounded to zero are switched off. Without fine-tuning matrices are packed as soon
    as they are known, and their masters are gone: they may be large.

    Args:
        batch: calibration vectors, on the coder's device.
        float_codes: what the float coder makes of them.
        data: goes on behind them.

    Raises:
        TrainingError: if the loss of fine-tuning is not finite at a rate that was given.
    """
    if normalizes(coder, method):
        message("normalising the coder's inputs, which leaves its function as it is")
        assert isinstance(coder, LinearCoder)  # as refusal_to_rotate says
        normalize_coder(coder, batch)
    coder.units.fit(coder.norm_out(coder.target(batch)).flatten(1))  # artifacts do not hold them
    decoders, packs = coder.decoders(), not method.steps_of_round
    _round_others(coder, packs)
    hand_back()
    masters = {name: matrix.master.detach() for name, matrix in decoders.items()}
    at_once = packs and method.rounds == 1
    rates: list[float | None] = []
    for index in range(method.rounds):
        message(f"calibrating on {len(batch)} vectors, round {index + 1} of {method.rounds}")
        with torch.no_grad():
            codes = coder.encode(batch.x).detach() if index else float_codes
            _calibrate(coder, masters, coder.calibrations(batch, codes), packs=at_once)
            coder.switch_off(torch.cat([_zero_rows(matrix) for matrix in decoders.values()]))
        _measure_ranges(coder, batch)
        if not packs:
            message(f"fine-tuning the encoder for {method.steps_of_round} steps")
            rates.append(finetune(coder, data, batch, config, method, message))
    if packs:
        for matrix in decoders.values():
            if not matrix.is_restored:
                matrix.keep_packed()
    with torch.no_grad():
        errors = coder.errors_of_rows(list(masters.values())) if coder.is_quantized else None
    return Fitted(errors, rates)


def _round_others(coder: CalibratedCoder, packs: bool) -> None:
    """Put all matrices but the decoders on their grids, which hang on nothing else."""
    for name, matrix in coder.matrices().items():
        if name not in coder.decoders():
            matrix.quantizer.initialize(matrix.master.detach())
            if packs:
                matrix.keep_packed()


def _calibrate(
    coder: CalibratedCoder,
    masters: Mapping[str, Tensor],
    calibrations: Iterator[tuple[str, Calibration]],
    *,
    packs: bool,
) -> None:
    """Put one decoder after the other on its grid: several are one problem, since they add up.

    Args:
        packs: have the stored form alone of those whose quantizers know nothing of the data, and which are
            rounded as they are packed: there is no second matrix of floats then.
    """
    decoders = coder.decoders()
    for name, matrix in decoders.items():
        matrix.replace(masters[name])
    for name, calibration in calibrations:
        matrix, wanted = decoders[name], masters[name]
        if calibration.missed is not None:
            wanted = wanted + making_up(calibration.codes, calibration.missed)
        quantizer = matrix.quantizer
        if packs and quantizer.packs_by_row and type(quantizer).calibrate is Quantizer.calibrate:
            quantizer.initialize(wanted)
            matrix.replace(wanted)
            matrix.keep_packed()
        else:
            matrix.replace(quantizer.calibrate(wanted, calibration))
        matrix.eval()  # a stochastic quantizer rounds as it will be stored


def _zero_rows(matrix: QuantizedMatrix) -> Tensor:
    """bool ``[F]``: rows that are zero on the grid, on which the matrix is."""
    if matrix.is_restored:
        return torch.cat([(rows == 0).all(1) for rows in matrix.blocks()])
    found = []
    for rows in matrix.master.detach().split(ROWS_AT_ONCE):
        found.append((rows == 0).all(1))
        let_go(rows)
    return torch.cat(found)


@torch.no_grad()
def _measure_ranges(coder: CalibratedCoder, batch: Batch) -> None:
    """Let code quantizers see values in training mode: their ranges are what they measure there."""
    found = [module for module in coder.modules() if isinstance(module, QuantizedValues)]
    if not all(module.quantizer.is_identity for module in found):
        for module in found:
            module.train()
        coder.encode(batch.x)
    coder.eval()
