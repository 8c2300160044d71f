"""The data source ``synthetic``: an endless stream of tokens, drawn in numbered blocks."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Batch, DataSource, HeldOutPart, Overlap, SparseCodes, concatenate
from qsae_core.errors import ConfigError
from qsae_data_synthetic import SyntheticConfig
from qsae_data_synthetic.sampling import Sample, draw
from qsae_data_synthetic.targets import Targets, build_targets
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
    for_targets = "--d-target 48"

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        self._options = cast(SyntheticConfig, config)
        self._world = build_world(self._options)
        self._targets = build_targets(self._options)
        self.d_in = self.d_out = self._options.d_model
        if self._options.d_target is not None:
            self.d_out = self._options.d_target
        self.layers_in = self.layers_out = self._options.layers
        self._rotations = _rotations(self._options, self.d_in, "layer")
        self._target_rotations = _rotations(self._options, self.d_out, "target layer")
        self.model_name = f"synthetic-{self._options.preset}"
        self._taken = 0
        self._block: tuple[int, Batch] | None = None

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Small worlds with and without hierarchy, correlation and noise."""
        from qsae_core.conformance import Case

        small: dict[str, Any] = {"d_model": 12, "n_features": 40}
        return [
            Case(),
            Case({**small, "n_roots": 0, "shared_variance": 0.0, "noise_std": 0.0}),
            Case({**small, "n_roots": 0, "layers": 3}),
            Case({**small, "n_roots": 2, "d_target": 9, "target_share": 0.5, "target_threshold": 2.0}),
            Case({**small, "n_roots": 0, "layers": 3, "d_target": 9}),
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
            part = self._training_block(number).rows(slice(start, start + size))
            parts.append(part)
            size -= len(part)
            self._taken += len(part)
        return self._layered(_joined(parts))

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """``n_tokens`` tokens of a stream of their own, which no training stream meets."""
        waiting: list[Batch] = []
        for number, (sample, count) in enumerate(self._held_out_blocks(n_tokens)):
            waiting.append(self._pairs(sample, "held out", number).rows(slice(count)))
            while sum(map(len, waiting)) >= batch_size:
                tokens = _joined(waiting)
                yield self._layered(tokens.rows(slice(batch_size)))
                waiting = [tokens.rows(slice(batch_size, None))]
        if sum(map(len, waiting)):
            yield self._layered(_joined(waiting))

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
        targets = {"target_features": self._options.n_target_features} if self._targets else {}
        return targets | {
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
        return _turned(self._world.dictionary.clone(), self._rotations)

    def target_dictionary(self) -> Tensor:
        """float32 ``[n_features, d_target]`` (``[n_features, L, d_target]``): what each feature adds to a
        target, unit rows; zeros for the features that targets are not made of.

        Raises:
            ConfigError: without ``d_target``.
        """
        return _turned(self._known_targets().dictionary.clone(), self._target_rotations)

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
        return concatenate([_first(*block).codes for block in self._held_out_blocks(n_tokens)])

    def held_out_target_features(self, n_tokens: int) -> SparseCodes:
        """The same as they count in the targets: ``decode`` of them with ``target_dictionary()`` is the
        target without bias and noise. Features that do not count have the value 0.

        Raises:
            ConfigError: without ``d_target``.
        """
        return self._known_targets().features(self.held_out_features(n_tokens))

    def _known_targets(self) -> Targets:
        if self._targets is None:
            raise ConfigError("vectors are their own targets", where="data.d_target", next=self.for_targets)
        return self._targets

    def _layered(self, batch: Batch) -> Batch:
        """``[N, D]``, or ``[N, L, D]``: what the layers make of it, on both sides."""
        x = _turned(batch.x, self._rotations)
        return Batch(x, x if batch.y is batch.x else _turned(batch.y, self._target_rotations))

    def _pairs(self, sample: Sample, *stream: int | str) -> Batch:
        """Tokens with their targets, whose noise is of a stream of its own."""
        if self._targets is None:
            return Batch(sample.x, sample.x)
        noise = seeded_generator(self._options.world_seed, "target noise", *stream)
        return Batch(sample.x, self._targets.draw(sample.codes, noise))

    def _training_block(self, number: int) -> Batch:
        if self._block is None or self._block[0] != number:
            stream = "training", self.seed, number
            sample = draw(self._world, BLOCK, seeded_generator(self._options.world_seed, *stream))
            self._block = number, self._pairs(sample, *stream)
        return self._block[1]

    def _held_out_blocks(self, n_tokens: int) -> Iterator[tuple[Sample, int]]:
        """Whole blocks, so that no token hangs on ``n_tokens``, and how many of their first tokens count."""
        for start in range(0, n_tokens, BLOCK):
            stream = seeded_generator(self._options.world_seed, "held out", start // BLOCK)
            yield draw(self._world, BLOCK, stream), min(BLOCK, n_tokens - start)


class HeldOutStream(HeldOutPart):
    """Tokens drawn for evaluation alone, without end: no run was trained on any of them."""

    is_endless = True

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


def _rotations(options: SyntheticConfig, width: int, side: str) -> Tensor:
    """``[L, D, D]``: the identity for layer 0, a random orthogonal matrix for every later one."""
    found = [torch.eye(width)]
    for layer in range(1, options.layers):
        stream = seeded_generator(options.world_seed, side, layer)
        found.append(torch.linalg.qr(torch.randn(width, width, generator=stream)).Q)
    return torch.stack(found)


def _turned(vectors_ND: Tensor, rotations_LDD: Tensor) -> Tensor:
    """``[N, D]`` of one layer as it is; ``[N, L, D]`` of several."""
    if len(rotations_LDD) == 1:
        return vectors_ND
    return torch.stack([vectors_ND @ rotation for rotation in rotations_LDD], dim=1)


def _joined(batches: list[Batch]) -> Batch:
    """One behind the other; ``y is x`` stays so."""
    x = torch.cat([batch.x for batch in batches])
    own = all(batch.y is batch.x for batch in batches)
    return Batch(x, x if own else torch.cat([batch.y for batch in batches]))
