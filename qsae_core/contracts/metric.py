"""Metric: values by name over a stream of batches. Shapes: B tokens, L layers, F latents, N entries."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.language_model import TokenBatch
from qsae_core.errors import ConfigError


class Origin(NamedTuple):
    """Where each vector of a batch comes from, counted from 0 within the held-out data; int64 ``[B]``."""

    document: Tensor
    """The text that it was read from; -1 where that is not known."""
    context: Tensor
    """The context that went through the language model."""
    position: Tensor
    """The place in the context."""


class Observation(NamedTuple):
    """What metrics and evaluations see of one batch, all in the data's own space."""

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
    inputs: Tensor | None = None
    """float, what was encoded; the target itself for an SAE."""
    tokens: TokenBatch | None = None
    """The contexts behind the vectors, where a language model is. ``counted`` is true at the positions of the
    batch's vectors, in their order."""
    origin: Origin | None = None
    """Where each vector comes from, where that is known."""
    twin_codes: SparseCodes | None = None
    """What the full-precision twin makes of the same inputs, where an evaluation observes it."""
    first: int | None = None
    """How many tokens of the held-out data come before this batch; None: as many as were seen before."""
    layers: tuple[Observation, ...] = ()
    """Of a set of coders: what is seen of each, in the order of layers (``SparseCoder.by_layer``)."""
    shorter: Callable[[], list[Tensor]] | None = None
    """Of a coder whose first latents are coders of their own (``CoderConfig.prefixes``), when it is called:
    what the codes of the first 1, 2, ... groups decode to, for all but the last; None for other coders."""


@torch.no_grad()
def observe(
    coder: SparseCoder,
    batch: Batch,
    atom_errors: AtomErrors | None = None,
    *,
    tokens: TokenBatch | None = None,
    origin: Origin | None = None,
    twin: SparseCoder | None = None,
    first: int | None = None,
) -> Observation:
    """One batch through the coder as it is seen; the coder should be in evaluation mode.

    Args:
        atom_errors: ``coder.atom_errors()``, computed once for all batches.
        tokens, origin: of the batch.
        twin: the full-precision twin, where its codes are wanted.
        first: how many tokens come before the batch.
    """
    more: dict[str, Any] = {"tokens": tokens, "origin": origin, "first": first}
    layers = _observe_layers(coder, batch, atom_errors, twin, more)
    if layers:
        codes = coder.join([seen.codes for seen in layers], batch.x)
        reconstruction = torch.stack([seen.reconstruction for seen in layers], dim=1)
    else:
        codes = coder.encode(batch.x)
        reconstruction = coder.decode(codes)
    return Observation(
        coder.target(batch),
        reconstruction,
        codes,
        coder.atom_norms(),
        batch.token_ids,
        coder.code_levels(codes),
        atom_errors,
        batch.x,
        twin_codes=None if twin is None else _twin_codes(twin, layers, batch),
        layers=layers,
        shorter=None if layers else _shorter(coder, codes),
        **more,
    )


def _shorter(coder: SparseCoder, codes: SparseCodes) -> Callable[[], list[Tensor]] | None:
    prefixes = coder.config.prefixes()
    if prefixes is None or len(prefixes) == 1:
        return None

    @torch.no_grad()
    def decoded() -> list[Tensor]:
        cut = (codes.with_values(codes.values * (codes.indices < end)) for end in prefixes[:-1])
        return [coder.decode(some) for some in cut]

    return decoded


def _observe_layers(
    coder: SparseCoder,
    batch: Batch,
    errors: AtomErrors | None,
    twin: SparseCoder | None,
    more: Mapping[str, Any],
) -> tuple[Observation, ...]:
    """What is seen of each coder of a set."""
    parts = coder.by_layer()
    of_each = errors.by_layer(parts) if errors is not None and parts else [None] * len(parts)
    twins = [None] * len(parts) if twin is None else twin.by_layer()
    return tuple(
        observe(part, batch.layer(i), of_each[i], twin=twins[i], **more) for i, part in enumerate(parts)
    )


def _twin_codes(twin: SparseCoder, layers: tuple[Observation, ...], batch: Batch) -> SparseCodes:
    of_each = [seen.twin_codes for seen in layers if seen.twin_codes is not None]
    return twin.join(of_each, batch.x) if of_each else twin.encode(batch.x)


SameMetric = TypeVar("SameMetric", bound="Metric")


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
    def merge(self: SameMetric, other: SameMetric) -> None:
        """Take into account what another metric of the same class and options has seen."""

    @abc.abstractmethod
    def compute(self) -> dict[str, float | None]:
        """Name -> value over everything since ``reset``; None where the value is not defined."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget everything."""


def measure(metrics: Sequence[Metric], observations: Iterable[Observation]) -> dict[str, float | None]:
    """Reset the metrics, show them every observation, and give their values; ``n_tokens`` is among them.

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
    return computed(metrics, n_tokens)


def computed(metrics: Sequence[Metric], n_tokens: int) -> dict[str, float | None]:
    """The values of all metrics after so many tokens, and ``n_tokens`` itself.

    Raises:
        ConfigError: if two metrics give a value of one name.
    """
    values: dict[str, float | None] = {"n_tokens": float(n_tokens)}
    for metric in metrics:
        found = metric.compute()
        taken = sorted(values.keys() & found.keys())
        if taken:
            raise ConfigError(f"two metrics give a value named {', '.join(taken)}", next="leave one out")
        values |= found
    return values
