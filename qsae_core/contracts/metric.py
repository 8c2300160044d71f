"""Metric: values by name over a stream of batches. Shapes: B tokens, L layers, F latents, N entries."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError


class Observation(NamedTuple):
    """What a metric sees of one batch, all in the data's own space."""

    target: Tensor
    """float ``[B, d_out]``, or ``[B, L, d_out]`` of several layers: what should be reconstructed."""
    reconstruction: Tensor
    """float, of the target's shape."""
    codes: SparseCodes
    atom_norms: Tensor
    """float ``[F]``, or ``[F, L]`` of several layers: norm of each decoder row, in each layer."""
    token_ids: Tensor | None = None
    """int ``[B]``: the token behind each vector, where there is one."""
    levels: Tensor | None = None
    """uint8 ``[N]``: the level at which each entry's value is stored, 0 where it is zero; None where values
    are stored as float32."""
    atom_errors: AtomErrors | None = None
    """None where the decoder's rows before quantization are not known."""


@torch.no_grad()
def observe(coder: SparseCoder, batch: Batch, atom_errors: AtomErrors | None = None) -> Observation:
    """One batch through the coder as a metric sees it; the coder should be in evaluation mode.

    Args:
        atom_errors: ``coder.atom_errors()``, computed once for all batches.
    """
    codes = coder.encode(batch.x)
    return Observation(
        coder.target(batch),
        coder.decode(codes),
        codes,
        coder.atom_norms(),
        batch.token_ids,
        coder.code_levels(codes),
        atom_errors,
    )


class Metric(abc.ABC):
    """A streaming measurement in float64, independent of the batch size. Built as ``Class(config)``."""

    optimum: ClassVar[Mapping[str, float]] = {}
    """Value name -> what a perfect reconstruction gives (``{"fvu": 0.0}``); conformance checks it."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def update(self, observation: Observation) -> None:
        """Take one batch into account."""

    @abc.abstractmethod
    def compute(self) -> dict[str, float | None]:
        """Name -> value over everything since ``reset``; None where the value is not defined."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget everything."""


def measure(metrics: Sequence[Metric], observations: Iterable[Observation]) -> dict[str, float | None]:
    """Reset the metrics, show them every observation, and merge their values; ``n_tokens`` is among them.

    Raises:
        ConfigError: if two metrics give a value of one name.
    """
    n_tokens = 0
    for metric in metrics:
        metric.reset()
    for observation in observations:
        n_tokens += len(observation.target)
        for metric in metrics:
            metric.update(observation)
    values: dict[str, float | None] = {"n_tokens": float(n_tokens)}
    for metric in metrics:
        computed = metric.compute()
        taken = sorted(values.keys() & computed.keys())
        if taken:
            raise ConfigError(f"two metrics give a value named {', '.join(taken)}", next="leave one out")
        values |= computed
    return values
