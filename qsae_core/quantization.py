"""Post-training quantization: a trained coder's float weights on a quantizer's grid, as a run of its own.

Shapes: F latents, D width, N calibration tokens.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from qsae_core import artifact
from qsae_core.coder import SparseCoder
from qsae_core.compose import compose_coder, compose_data, compose_evaluations, compose_metrics
from qsae_core.data import Batch, DataSource
from qsae_core.errors import ConfigError
from qsae_core.evaluation import evaluate
from qsae_core.files import write_json
from qsae_core.linear_coder import LinearCoder
from qsae_core.parts import Calibration
from qsae_core.results import Run, now, open_run, run_path
from qsae_core.run_config import RunConfig
from qsae_core.run_setup import resolve_device
from qsae_core.serving import squared_sines
from qsae_core.trainer import Trainer, auto_learning_rate

if TYPE_CHECKING:
    from qsae_core.registry import Registry

FINETUNE_RATE = 0.25
"""Peak rate of encoder fine-tuning, as a share of the automatic one."""


@dataclass(frozen=True)
class Method:
    """How a coder is quantized.

    Attributes:
        tokens: calibration vectors, from the training stream.
        rotate: ``auto``: where the coder is not rotated yet and can be.
        finetune_steps: optimiser steps of each encoder fine-tuning; 0: none.
        lr: their peak rate; None: a quarter of the automatic one.
        rounds: of (calibrate, fine-tune the encoder); the codes of later rounds are the quantized coder's.
    """

    tokens: int = 16384
    rotate: bool | Literal["auto"] = "auto"
    finetune_steps: int = 0
    lr: float | None = None
    rounds: int = 1


class Quantized(NamedTuple):
    """A finished quantization."""

    run: Run
    before: dict[str, Any]
    """Evaluation name -> values of the float coder, on the same held-out vectors."""


def quantize_artifact(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    method: Method,
    message: Callable[[str], None],
) -> Quantized:
    """Quantize the float coder at ``path`` with the config's quantizers, and write the run.

    Raises:
        ConfigError: if the coder is quantized already, or cannot be rotated or calibrated as asked.
        TrainingError: if the run's folder exists and ``run.overwrite`` is not set.
    """
    device = resolve_device(config.run.device)
    folder = artifact.artifact_folder(path)
    source = artifact.load(folder, device=device, registry=registry)
    if source.is_quantized:
        raise ConfigError(
            "this coder is quantized already",
            where=str(folder),
            allowed="a coder whose quantizers are all none, such as the float twin beside it",
            next="train with --quantizer none --encoder-quantizer none --code-quantizer none",
        )
    coder = compose_coder(config, registry, source.shape).to(device)
    take_floats(coder, source)
    rotated = _rotate(coder, method.rotate, message)
    options = config.coder.options.model_copy(update={"rotate": rotated})
    block = replace(config.coder, options=options)
    config = replace(config, components={**config.components, config.coder_slot: block})
    data = compose_data(config, registry, device=device)
    try:
        steps = method.finetune_steps * method.rounds
        if config.run.name is None:
            name = "-".join([config.coder.use, data.model_name, config.components["quantizer"].use])
            config = replace(config, run=config.run.model_copy(update={"name": name}))
        run = open_run(config, run_path(config, data.model_name, data.layer, steps), data.describe())
        started = time.perf_counter()
        errors = _fit(coder, source, data, config, method, message)
        spent = {
            "steps": steps,
            "tokens": method.tokens + steps * config.train.batch_size,
            "training_seconds": time.perf_counter() - started,
        }
        return _finish(run, coder, source, data, config, registry, errors, folder, spent)
    finally:
        data.close()


@torch.no_grad()
def take_floats(coder: SparseCoder, source: SparseCoder) -> None:
    """Give a coder with quantizers the weights and buffers of a stored float one.

    Raises:
        ConfigError: if the two do not have the same tensors.
    """
    state = source.state_dict()
    state |= {f"{name}.weight": matrix() for name, matrix in source.matrices().items()}
    result = coder.load_state_dict(state, strict=False)
    own = ("quantizer.", "code_quantizer.")
    missing = [n for n in result.missing_keys if not any(part in n for part in own)]
    if missing or result.unexpected_keys:
        raise ConfigError(f"the float coder does not fit: {[*missing, *result.unexpected_keys]}")
    coder.begin_quantization()
    coder.eval()


@torch.no_grad()
def rotate_coder(coder: LinearCoder) -> None:
    """Turn a coder's normalised space by a fixed orthogonal matrix; its function stays, to rounding."""
    coder.norm_in.rotate()
    for matrix in (coder.W_enc, coder.W_dec):
        matrix.master.copy_(coder.norm_in.direction(matrix.master))
    coder.b_dec.copy_(coder.norm_in.direction(coder.b_dec))
    coder.begin_quantization()


def refusal_to_rotate(coder: SparseCoder) -> str | None:
    """Why a trained coder cannot be rotated; None where it can."""
    if not isinstance(coder, LinearCoder) or not coder.is_autoencoder or coder.norm_in.layers > 1:
        return "only SAEs of one encoder and one decoder matrix are rotated after training"
    known = {"W_enc.weight", "W_dec.weight", "b_dec", "b_enc"}
    width = coder.shape.d_in
    others = [n for n, p in coder.named_parameters() if n not in known and width in p.shape]
    return f"it has parameters of the data's width besides: {', '.join(others)}" if others else None


def _rotate(coder: SparseCoder, wanted: bool | str, message: Callable[[str], None]) -> bool:
    if bool(coder.norm_in.rotated) or not wanted:
        return bool(coder.norm_in.rotated)
    reason = refusal_to_rotate(coder)
    if reason is None:
        assert isinstance(coder, LinearCoder)
        rotate_coder(coder)
        return True
    if wanted != "auto":
        raise ConfigError(f"this coder cannot be rotated: {reason}", where="--rotate", next="--no-rotate")
    message(f"not rotated: {reason}")
    return False


def _fit(
    coder: SparseCoder,
    source: SparseCoder,
    data: DataSource,
    config: RunConfig,
    method: Method,
    message: Callable[[str], None],
) -> Tensor | None:
    """Calibrate and fine-tune; returns the errors of the atoms against the float ones."""
    batch = data.next_batch(method.tokens).to(coder.device)
    decoder = coder.decoder_matrix()
    master = decoder.master.detach().clone()
    errors: Tensor | None = None
    for index in range(method.rounds):
        message(f"calibrating on {len(batch)} vectors, round {index + 1} of {method.rounds}")
        with torch.no_grad():
            codes = (coder if index else source).encode(batch.x).detach()
            target = coder.norm_out(batch.y) - getattr(coder, "b_dec", 0)
            decoder.master.copy_(decoder.quantizer.calibrate(master, Calibration(codes, target)))
            if coder.is_quantized:
                errors = squared_sines(master, decoder.master)
        _measure_ranges(coder, batch)
        if method.finetune_steps:
            message(f"fine-tuning the encoder for {method.finetune_steps} steps")
            _finetune(coder, data, config, method)
    return errors


@torch.no_grad()
def _measure_ranges(coder: SparseCoder, batch: Batch) -> None:
    """Let a code quantizer see values in training mode: its ranges are what it measures there."""
    quantizer = getattr(coder, "code_quantizer", None)
    if quantizer is not None and not quantizer.quantizer.is_identity:
        quantizer.train()
        coder.encode(batch.x)
    coder.eval()


def _finetune(coder: SparseCoder, data: DataSource, config: RunConfig, method: Method) -> None:
    rate = method.lr or FINETUNE_RATE * auto_learning_rate(coder.n_latents, method.finetune_steps)
    values: dict[str, Any] = {"steps": method.finetune_steps, "tokens": None, "lr": rate}
    values |= {"quantize_after": 0.0, "freeze_decoder_after": 0.0, "screen": "none"}
    settings = config.train.model_copy(update=values)
    coder.freeze_decoder(True)
    trainer = Trainer(coder, settings, "coder")
    for step in range(method.finetune_steps):
        trainer.step(data.next_batch(settings.batch_size).to(coder.device), step)
    coder.freeze_decoder(False)
    coder.eval()


def _finish(
    run: Run,
    coder: SparseCoder,
    source: SparseCoder,
    data: DataSource,
    config: RunConfig,
    registry: Registry,
    errors: Tensor | None,
    folder: pathlib.Path,
    spent: dict[str, float],
) -> Quantized:
    record = {"model": data.model_name, "layer": data.layer, **data.describe()}
    artifact.save(coder, run.final, config, registry, record)
    loaded = artifact.load(run.final, device=str(coder.device), registry=registry)

    def measured(some: SparseCoder, atom_errors: Tensor | None) -> dict[str, Any]:
        return evaluate(
            some,
            data,
            compose_evaluations(config, registry),
            lambda: list(compose_metrics(config, registry).values()),
            n_tokens=config.train.eval_tokens,
            batch_size=config.train.batch_size,
            atom_errors=atom_errors,
        )

    before = measured(source, None)
    entry = {
        "artifact": artifact.measurements(loaded, run.final) | {"path": str(run.final.relative_to(run.path))},
        "evaluations": measured(loaded, errors),
    }
    summary = {
        "model": data.model_name,
        "layer": data.layer,
        **spent,
        "quantized_from": {"path": str(folder), "evaluations": before},
        "coders": {"coder": entry},
    }
    write_json(run.metrics_file, summary)
    run.update_record(status="finished", completed_at=now())
    return Quantized(run, before)
