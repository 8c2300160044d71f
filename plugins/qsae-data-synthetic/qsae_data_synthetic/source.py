"""The data source ``synthetic``: an endless stream of tokens, drawn in numbered blocks."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Batch, DataSource, HeldOutPart, Overlap, SparseCodes, concatenate
from qsae_data_synthetic import SyntheticConfig
from qsae_data_synthetic.sampling import Sample, draw
from qsae_data_synthetic.world import build_world, seeded_generator

if TYPE_CHECKING:
    from qsae_core.conformance import Case

BLOCK = 1024
"""Tokens drawn together; part of what a stream is."""


class SyntheticSource(DataSource):
    """Tokens of a synthetic world, with its truth.

    Block number n of a stream has a generator of its own, seeded by the stream and n. So the stream is a
    sequence of tokens that does not depend on batch sizes, and the place in it is one number. The held-out
    stream and the world depend on ``world_seed`` alone, the training stream on the run's seed as well.
    """

    layer = "synthetic"
    for_one_layer = "--layers 1"
    for_several_layers = "--layers 3"

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        self._options = cast(SyntheticConfig, config)
        self._world = build_world(self._options)
        self.d_in = self.d_out = self._options.d_model
        self.layers_in = self.layers_out = self._options.layers
        self._rotations = _rotations(self._options)
        self.model_name = f"synthetic-{self._options.preset}"
        self._taken = 0
        self._block: tuple[int, Tensor] | None = None

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Small worlds with and without hierarchy, correlation and noise."""
        from qsae_core.conformance import Case

        small: dict[str, Any] = {"d_model": 12, "n_features": 40}
        return [
            Case(),
            Case({**small, "n_roots": 0, "shared_variance": 0.0, "noise_std": 0.0}),
            Case({**small, "n_roots": 0, "layers": 3}),
            Case({**small, "n_roots": 2, "branching": 3, "depth": 2, "rank": 2, "orthogonalize_steps": 0}),
        ]

    # --- the stream

    def next_batch(self, size: int) -> Batch:
        """The next ``size`` tokens of the training stream, on the CPU."""
        if size < 1:
            raise ValueError(f"a batch of {size} tokens")
        parts = []
        while size > 0:
            number, start = divmod(self._taken, BLOCK)
            part = self._training_block(number)[start : start + size]
            parts.append(part)
            size -= len(part)
            self._taken += len(part)
        return self._batch(torch.cat(parts))

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """``n_tokens`` tokens of a stream of their own, which no training stream meets."""
        waiting = torch.empty(0, self.d_in)
        for sample in self._held_out_samples(n_tokens):
            waiting = torch.cat([waiting, sample.x])
            while len(waiting) >= batch_size:
                yield self._batch(waiting[:batch_size])
                waiting = waiting[batch_size:]
        if len(waiting):
            yield self._batch(waiting)

    def held_out_part(self) -> HeldOutStream:
        """The stream of this world that training never meets."""
        return HeldOutStream(self.model_name, self._options.world_seed)

    def state_dict(self) -> dict[str, Any]:
        """How many tokens were given."""
        return {"tokens": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after so many tokens."""
        self._taken = int(state["tokens"])

    def describe(self) -> dict[str, Any]:
        """The world in numbers."""
        rates = self.firing_rates()
        return {
            "preset": self._options.preset,
            "features": self._options.n_features,
            "features_in_trees": self._options.in_trees,
            "mean_l0": float(rates.sum()),
            "mean_squared_coherence": mean_squared_coherence(self._world.dictionary),
        }

    # --- the truth

    def dictionary(self) -> Tensor:
        """float32 ``[n_features, d_model]``: the true features, unit rows, the most frequent first; with
        several layers ``[n_features, L, d_model]``, a feature's direction in each."""
        return self._layered(self._world.dictionary.clone())

    def firing_rates(self) -> Tensor:
        """float64 ``[n_features]``: the probability that a feature's activation is positive on a token.

        These are the rates of the power law, except for siblings that ask together for more than their parent
        has: they get the same share less.
        """
        return self._world.hierarchy.rate.clone()

    def parents(self) -> Tensor:
        """int64 ``[n_features]``: the parent of each feature, -1 for roots and features in no tree."""
        return self._world.hierarchy.parent.clone()

    def held_out_features(self, n_tokens: int) -> SparseCodes:
        """True activations of the first ``n_tokens`` held-out tokens, in the order of ``held_out``.

        ``decode`` of them with ``dictionary()`` is the token without bias and noise.
        """
        return concatenate([sample.codes for sample in self._held_out_samples(n_tokens)])

    def _layered(self, x: Tensor) -> Tensor:
        """``[N, D]``, or ``[N, L, D]``: what the layers make of it."""
        if self.layers_in == 1:
            return x
        return torch.stack([x @ rotation for rotation in self._rotations], dim=1)

    def _batch(self, x: Tensor) -> Batch:
        x = self._layered(x)
        return Batch(x, x)

    def _training_block(self, number: int) -> Tensor:
        if self._block is None or self._block[0] != number:
            stream = seeded_generator(self._options.world_seed, "training", self.seed, number)
            self._block = number, draw(self._world, BLOCK, stream).x
        return self._block[1]

    def _held_out_samples(self, n_tokens: int) -> Iterator[Sample]:
        for start in range(0, n_tokens, BLOCK):
            stream = seeded_generator(self._options.world_seed, "held out", start // BLOCK)
            yield _first(draw(self._world, BLOCK, stream), n_tokens - start)


class HeldOutStream(HeldOutPart):
    """Tokens drawn for evaluation alone, without end: no run was trained on any of them."""

    def __init__(self, world: str, seed: int) -> None:
        self._world, self._seed = world, seed

    def record(self) -> dict[str, Any]:
        """Nothing: no later source has a training token among its held-out ones."""
        return {}

    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        """None, whatever world a run was trained on."""
        return Overlap.NONE

    def take_all(self) -> None:
        """It is all there is."""

    def name(self) -> str:
        """The world."""
        return f"the endless held-out stream of {self._world}, world {self._seed}"


def mean_squared_coherence(dictionary: Tensor) -> float:
    """Mean of (d_i . d_j)^2 over i != j; 0 for a single feature."""
    n_features = len(dictionary)
    gram = dictionary.double()
    gram = gram.T @ gram
    return (float(gram.square().sum()) - n_features) / max(n_features * (n_features - 1), 1)


def _first(sample: Sample, tokens: int) -> Sample:
    """The first tokens of a sample."""
    if tokens >= len(sample.x):
        return sample
    codes, end = sample.codes, int(sample.codes.offsets[tokens])
    shorter = SparseCodes(
        codes.indices[:end], codes.values[:end], codes.offsets[: tokens + 1], codes.n_latents
    )
    return Sample(sample.x[:tokens], shorter)


def _rotations(options: SyntheticConfig) -> Tensor:
    """``[L, D, D]``: the identity for layer 0, a random orthogonal matrix for every later one."""
    found = [torch.eye(options.d_model)]
    for layer in range(1, options.layers):
        stream = seeded_generator(options.world_seed, "layer", layer)
        found.append(torch.linalg.qr(torch.randn(options.d_model, options.d_model, generator=stream)).Q)
    return torch.stack(found)
