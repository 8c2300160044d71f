"""What is left of a coder learns to use its new decoders: fine-tuning, kept only where it helps.

Shapes: N calibration vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.config.run import RunConfig
from qsae_core.config.settings import QuantizeConfig
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.errors import TrainingError
from qsae_core.training.trainer import Trainer, auto_learning_rate

SHARE = 0.25
"""Peak rate, as a share of the automatic one of training."""
WHOLE_FROM = 150
"""Steps from which on it is that; fewer have the root of their share of it. A trained coder has not far to
go, and Adam's first steps are as long as the rate says, however small the gradient: a short schedule with
the rate of a long one ends before it has made up for them."""
LOWER = 4.0
"""What the automatic rate is divided by where it has raised the loss."""
TRIES = 4


def finetune(
    coder: CalibratedCoder,
    data: DataSource,
    calibration: Batch,
    config: RunConfig,
    method: QuantizeConfig,
    message: Callable[[str], None],
) -> float | None:
    """Train all but the decoders, on the vectors behind those of the calibration; the coder is then in
    evaluation mode. Gives the peak rate at which that was done; None where the coder stays as it was.

    What counts is the loss of the calibration vectors, which are not trained on here. Where it rises, the
    coder is put back, and lower automatic rates are tried on the same vectors, as long as the next one is
    better than the one before it. One that was given is not replaced by another.

    Raises:
        TrainingError: if the loss is not finite at a rate that was given.
    """
    size, place, given = config.train.batch_size, data.state_dict(), method.lr
    automatic = automatic_rate(coder.dictionary_size, method.steps_of_round)
    rates = [given] if given else [automatic / LOWER**tries for tries in range(TRIES)]
    start = best = _State(_loss(coder, calibration, size), None, _copy(coder))
    for rate in rates:
        loss = math.inf
        try:
            _train(coder, data, rate, config, method)
            loss = _loss(coder, calibration, size)
        except TrainingError as error:
            if given:
                error.next = f"fine-tune with an lr below {rate:.3g}"
                raise
        if loss < best.loss:
            if rate == rates[0]:
                return rate
            best = _State(loss, rate, _copy(coder))
        else:
            message(f"at a rate of {rate:.2g} the calibration loss becomes {loss:.4g}, from {best.loss:.4g}")
            if best.rate is not None:
                break
        coder.load_state_dict(start.tensors, strict=False)
        data.load_state_dict(place)
    coder.load_state_dict(best.tensors, strict=False)
    if best.rate is None:
        message("the encoder stays as it was" + ("; a lower --lr may help" if given else ""))
    return best.rate


class _State(NamedTuple):
    loss: float
    rate: float | None
    tensors: dict[str, Tensor]
    """All but the decoders, which are large and stay."""


def _copy(coder: CalibratedCoder) -> dict[str, Tensor]:
    decoders = tuple(f"{name}." for name in coder.decoders())
    return {n: tensor.clone() for n, tensor in coder.state_dict().items() if not n.startswith(decoders)}


def automatic_rate(n_latents: int, steps: int) -> float:
    """Peak rate of so many steps of fine-tuning."""
    return SHARE * auto_learning_rate(n_latents, steps) * min(1.0, math.sqrt(steps / WHOLE_FROM))


@torch.no_grad()
def _loss(coder: CalibratedCoder, batch: Batch, size: int) -> float:
    """Of evaluation mode, a mean over all vectors."""
    total = 0.0
    for start in range(0, len(batch), size):
        part = batch.rows(slice(start, start + size))
        total += len(part) * sum(term.item() for term in coder.loss(part).terms.values())
    return total / len(batch)


def _train(
    coder: CalibratedCoder, data: DataSource, rate: float, config: RunConfig, method: QuantizeConfig
) -> None:
    values: dict[str, Any] = {"steps": method.steps_of_round, "tokens": None, "lr": rate}
    values |= {"quantize_after": 0.0, "freeze_decoder_after": 0.0, "screen": "none"}
    settings = config.train.model_copy(update=values)
    decoders = coder.decoders().values()
    for matrix in decoders:
        matrix.freeze(True)
    try:
        trainer = Trainer(coder, settings, "coder", rate_factors={})  # nothing is behind in a trained coder
        for step in range(method.steps_of_round):
            trainer.step(data.next_batch(settings.batch_size).to(coder.device), step)
    finally:
        for matrix in decoders:
            matrix.freeze(False)
        coder.eval()
