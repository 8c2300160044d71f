"""What no plugin brings: ``train`` (the loop), ``run`` (where and how), and how a coder is quantized."""

from __future__ import annotations

import os
import pathlib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from qsae_core.component import ComponentConfig, option
from qsae_core.config.counts import FORM, Count

DEFAULT_TOKENS = 500_000
LONGEST_NAME = 255
"""Bytes of a folder's name, as file systems have it."""
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]


class TrainConfig(ComponentConfig):
    """How long and how the coder is trained (Adam, linear warm-up, constant rate, linear decay to zero)."""

    tokens: Count | None = option(
        DEFAULT_TOKENS,
        "length of training in vectors (tokens), rounded up to whole batches; or give steps",
        allowed=f"{FORM}; or none",
    )
    steps: Positive | None = option(
        None, "length of training in optimiser steps, instead of tokens", instead_of="tokens"
    )
    batch_size: int = option(2048, "vectors per optimiser step", gt=0)
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = option(
        "auto", "peak learning rate of Adam; auto: scaled with the size of the dictionary"
    )
    warmup: float = option(0.05, "share of the steps in which the rate rises from zero", ge=0, le=1)
    decay: float = option(0.2, "share of the steps at the end in which the rate falls to zero", ge=0, le=1)
    beta1: float = option(0.9, "Adam's decay of the first moment", ge=0, lt=1)
    beta2: float = option(0.999, "Adam's decay of the second moment", ge=0, lt=1)
    clip: Annotated[float, Field(gt=0)] | None = option(
        1.0, "largest norm of the gradient of all parameters together; none: no clipping"
    )
    screen: Literal["auto", "none", "bf16", "int8"] = option(
        "auto",
        "find the largest latents among candidates from a bf16 or int8 product, and compute these again in "
        "fp32; none: from the fp32 product of the whole encoder; auto: the fastest that finds 0.999 of the "
        "exact code, else none, measured before the first step and while it trains",
    )
    latent_parallel: int = option(
        1,
        "processes that divide the dictionary among them, each with its part of the latents, their weights "
        "and moments; divides the number of processes that torchrun starts. 1: each has all of them",
        gt=0,
    )
    quantize_after: float = option(
        0.5, "share of the steps trained in float before training passes through the quantizers", ge=0, le=1
    )
    freeze_decoder_after: float = option(
        1.0,
        "share of the steps after which a quantized decoder stays as it is, while all else learns to "
        "use it; 1: never",
        ge=0,
        le=1,
    )
    freeze_decoder: bool = option(
        False,
        "the decoder, quantized or not, stays the random one that it begins as: what an encoder alone "
        "makes of that is a baseline for what was learned",
    )
    init_seed: int | None = option(
        None,
        "seed of the initial weights alone; none: the run's, which all else is drawn from",
        ge=0,
        lt=2**32,
    )
    statistics_tokens: Count = option(
        16384, "training vectors from which normalisation and initial values are computed", allowed=FORM
    )
    prefetch: NotNegative | Literal["auto"] = option(
        "auto",
        "batches read ahead in another thread, the same ones in the same order; 0: none; auto: as many as "
        "the data source says while a GPU trains, none while the CPU does, since reading costs it cores",
    )
    log_every: Positive | Literal["auto"] = option(
        "auto", "steps between logged lines; auto: 200 lines a run"
    )
    eval_every: NotNegative | Literal["auto"] = option(
        "auto",
        "steps between measurements on held-out vectors; 0: only at the end; auto: 10 a run, each on a "
        "fiftieth as many vectors as the run has, at most",
    )
    eval_tokens: Count = option(
        32768,
        "held-out vectors (tokens) that each measurement uses; an evaluation while the coder is trained uses "
        "at most a fortieth of those trained on since the last one",
        allowed=FORM,
    )
    checkpoint_every: int = option(
        0, "steps between checkpoints to resume from; 0: only at the end or when interrupted", ge=0
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_tokens(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("steps") is not None and "tokens" not in values:
            return {**values, "tokens": None}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> TrainConfig:
        if self.tokens is None and self.steps is None:
            raise ValueError("the length of training is missing: give tokens or steps")
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup ({self.warmup}) and decay ({self.decay}) together exceed the whole run (1)"
            )
        return self

    @property
    def n_steps(self) -> int:
        """Optimiser steps of the whole run."""
        if self.steps is not None:
            return self.steps
        assert self.tokens is not None  # _check_together
        return -(-self.tokens // self.batch_size)

    @property
    def n_tokens(self) -> int:
        """Vectors of the whole run, in whole batches."""
        return self.n_steps * self.batch_size

    @property
    def measurements(self) -> tuple[int, int]:
        """Steps between measurements while it trains (0: there are none), and held-out vectors of each.

        With ``eval_every="auto"`` all of them together take a fifth of the vectors that are trained on, or a
        batch each: what a run learns of itself on the way should not be most of what it does.
        """
        if self.eval_every != "auto":
            return self.eval_every, self.eval_tokens
        each = max(self.batch_size, self.n_tokens // 50)
        return max(1, self.n_steps // 10), min(self.eval_tokens, each)

    def tokens_after(self, every: int) -> int:
        """Held-out vectors that an evaluation is shown each ``every`` steps of training.

        A fortieth of those trained on meanwhile, a batch at least: one that goes over them twice then reads a
        language model for a twentieth of what training reads.
        """
        return min(self.eval_tokens, max(self.batch_size, every * self.batch_size // 40))


class RunSettings(ComponentConfig):
    """What surrounds the training: seed, device, where results go."""

    seed: int = option(0, "seed of initial weights, data order and every other draw", ge=0, lt=2**32)
    device: str = option("auto", "auto (cuda where there is one), cpu, cuda or cuda:N")
    out: str = option("results", "folder under which the run's own folder is made")
    name: str | None = option(None, "name of the run's folder, instead of {coder}-{model}")
    overwrite: bool = option(False, "replace a finished run that has the same folder")
    resume: bool = option(
        False,
        "continue an interrupted run from its last checkpoint; --resume RUN has its recorded options",
    )
    save_float: bool = option(False, "write the float32 master weights beside the packed artifact")
    compare_float: bool = option(
        True,
        "where anything is quantized, also train the same coder in full precision on the same batches, and "
        "show both",
    )
    per_layer: bool = option(
        False, "where the data gives several layers, train a coder for each of them, from the same batches"
    )
    kernels: str = option(
        "auto",
        "compiled operations: auto (every installed kernel set that works here), none, or a set's name",
    )
    threads: Positive | None = option(None, "CPU threads of torch; none: as many as torch takes by itself")

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        kind, colon, index = device.partition(":")
        known = device in ("auto", "cpu", "cuda") or (kind == "cuda" and bool(colon) and index.isdecimal())
        if not known:
            raise ValueError("Input should be auto, cpu, cuda or cuda:N")
        return device

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if not name.strip() or name in (".", "..") or any(c in name for c in "/\\\0"):
            raise ValueError("Input should be one folder's name, without slashes")
        return name

    @field_validator("name", "out")
    @classmethod
    def _check_length(cls, path: str | None) -> str | None:
        longest = max((len(os.fsencode(part)) for part in pathlib.PurePath(path or "").parts), default=0)
        if longest > LONGEST_NAME:
            raise ValueError(
                f"Input should have folders' names of at most {LONGEST_NAME} bytes, not {longest}"
            )
        return path

    @model_validator(mode="after")
    def _check_together(self) -> RunSettings:
        if self.overwrite and self.resume:
            raise ValueError("overwrite and resume exclude each other; give one of them")
        return self


OF_FINETUNING = ("finetune_steps", "lr")
"""Options of ``QuantizeConfig`` that say something where anything is fine-tuned, and nothing elsewhere."""


class QuantizeConfig(ComponentConfig):
    """How a trained coder's weights are put on a quantizer's grid."""

    tokens: Count = option(16384, "calibration vectors, from the training stream", allowed=FORM)
    rotate: bool | Literal["auto"] = option(
        "auto", "rotate the coder first; auto: where it is not rotated yet and can be"
    )
    finetune: Literal["encoder"] | None = option(
        None, "what learns to use the new decoder, which stays as it is; none: nothing"
    )
    finetune_steps: int = option(150, "optimiser steps of each fine-tuning", gt=0)
    lr: Annotated[float, Field(gt=0)] | None = option(
        None,
        "peak rate of fine-tuning; none: a quarter of the automatic one, less for fewer than 150 steps, and "
        "lower still where that raises the calibration loss",
    )
    alternate: Positive | None = option(
        None,
        "rounds of calibrating and fine-tuning the encoder, each but the first calibrated on codes of the "
        "quantized coder; none: one, without fine-tuning unless that is asked for",
    )

    @property
    def without_effect(self) -> list[str]:
        """Options that were given, and that change nothing because nothing is fine-tuned."""
        given = [name for name in OF_FINETUNING if name in self.model_fields_set]
        return [] if self.steps_of_round else [name for name in given if getattr(self, name) is not None]

    @property
    def rounds(self) -> int:
        """Calibrations, each with its fine-tuning."""
        return self.alternate or 1

    @property
    def steps_of_round(self) -> int:
        """Optimiser steps after each calibration."""
        return self.finetune_steps if self.finetune or self.alternate else 0

    @property
    def n_steps(self) -> int:
        """Optimiser steps of all rounds."""
        return self.steps_of_round * self.rounds
