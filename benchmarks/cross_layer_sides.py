"""The step of a cross-layer transcoder, its products, and as many transcoders, timed by turns in one process.

Options: ``layers``, ``kernels``, ``screen``. Shapes: B tokens, L layers, D width, F latents of a layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.cross_layer_step import KINDS
from benchmarks.peers.stopwatch import Spec, peak_bytes, read_rows, read_spec, write
from qsae_core.coders.linear import LinearCoder
from qsae_core.compose.compose import compose_coder
from qsae_core.compose.kernels import activate_kernels
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.kernels import decode, encode
from qsae_core.plugins.records import load_plugins
from qsae_core.registry import Registry
from qsae_core.training.memory import memory_kept
from qsae_core.training.trainer import Trainer

BATCHES = 2


def main() -> None:
    spec = read_spec()
    registry = load_plugins().registry
    activate_kernels(spec.options["kernels"], registry)
    batches = read_batches(spec)
    sides: dict[str, Callable[[Batch], None]] = {
        "step": cross_layer(spec, registry, batches[0]),
        "products": Products(spec, registry, batches[0]),
        "transcoders": one_for_each_layer(spec, registry, batches[0]),
    }
    assert tuple(sides) == KINDS
    found: dict[str, Any] = {kind: [] for kind in KINDS}
    with memory_kept():  # as in a run
        for number in range(spec.warm_up + spec.steps):
            for kind, side in sides.items():
                started = time.perf_counter()
                side(batches[number % len(batches)])
                if number >= spec.warm_up:
                    found[kind].append(time.perf_counter() - started)
    write(spec, found | {"peak_bytes": peak_bytes(), "torch": torch.__version__})


def read_batches(spec: Spec) -> list[Batch]:
    """Sources and targets ``[B, L, D]``: the same rows, each layer's in an order of its own."""
    rows = read_rows(spec, BATCHES * spec.batch_size)
    generator = torch.Generator().manual_seed(spec.seed)

    def layers() -> Tensor:
        order = [torch.randperm(len(rows), generator=generator) for _ in range(spec.options["layers"])]
        return torch.stack([rows[of_layer] for of_layer in order], dim=1)

    whole = Batch(layers(), layers())
    return [whole.rows(slice(i, i + spec.batch_size)) for i in range(0, len(rows), spec.batch_size)]


def cross_layer(spec: Spec, registry: Registry, sample: Batch) -> Callable[[Batch], None]:
    """A whole step of the cross-layer transcoder."""
    n = spec.options["layers"]
    shape = CoderShape(spec.d, spec.d, n, n)
    return stepping(trainer(spec, registry, "cross-layer-transcoder", shape, n * spec.n_latents, sample))


def one_for_each_layer(spec: Spec, registry: Registry, sample: Batch) -> Callable[[Batch], None]:
    """Whole steps of transcoders of one layer, each for all outputs from its layer on."""
    n = spec.options["layers"]
    steps = []
    for layer in range(n):
        shape = CoderShape(spec.d, (n - layer) * spec.d)
        made = trainer(spec, registry, "transcoder", shape, spec.n_latents, of_layer(sample, layer))
        steps.append(stepping(made))

    def step(batch: Batch) -> None:
        for layer, one in enumerate(steps):
            one(of_layer(batch, layer))

    return step


def of_layer(batch: Batch, layer: int) -> Batch:
    return Batch(batch.x[:, layer].contiguous(), batch.y[:, layer:].flatten(1))


def stepping(made: Trainer) -> Callable[[Batch], None]:
    """Its next step, at each call."""
    numbers = iter(range(made.steps))
    return lambda batch: made.step(batch, next(numbers))


def trainer(
    spec: Spec, registry: Registry, use: str, shape: CoderShape, n_latents: int, sample: Batch
) -> Trainer:
    """In a run so long that no latent counts as dead while it is timed."""
    tree: dict[str, Any] = {
        "transcoder": {"use": use, "n_latents": n_latents},
        "sparsity": {"use": "topk", "k": spec.k},
        "data": {"use": "tensors", "path": spec.data},
        "train": {"steps": 20_000, "batch_size": spec.batch_size, "screen": spec.options["screen"]},
        "run": {"seed": spec.seed, "threads": spec.threads, "kernels": spec.options["kernels"]},
        "metrics": [],
        "evaluate": [],
    }
    config = resolve([Layer(tree, "benchmark")], registry)
    coder = compose_coder(config, registry, shape)
    coder.initialize(sample)
    return Trainer(coder, config.train, "coder")


class Products:
    """Encoder product and choice, decode, and their gradients, layer after layer; nothing else of a step."""

    def __init__(self, spec: Spec, registry: Registry, sample: Batch) -> None:
        n = spec.options["layers"]
        one = Batch(sample.x[:, 0], sample.y[:, 0])
        made = trainer(spec, registry, "transcoder", CoderShape(spec.d, spec.d), spec.n_latents, one)
        coder = cast(LinearCoder, made.coder)
        self.activation, self.rule, self.screen = coder.activation, coder.sparsity, coder.screen
        self.sources = [sample.x[:, layer].contiguous() for layer in range(n)]
        self.W_enc = [_rows(spec.n_latents, spec.d) for _ in range(n)]
        self.W_dec = [_rows(spec.n_latents, (n - layer) * spec.d) for layer in range(n)]
        self.b_enc = torch.zeros(spec.n_latents, requires_grad=True)
        self.upstream = [torch.randn(spec.batch_size, matrix.shape[1]) for matrix in self.W_dec]

    def __call__(self, batch: Batch) -> None:
        """Of the first batch, whose rows lie layer by layer."""
        del batch
        for x, W_enc, W_dec, gradient in zip(
            self.sources, self.W_enc, self.W_dec, self.upstream, strict=True
        ):
            codes = encode(x, W_enc, self.b_enc, self.activation, self.rule, screen=self.screen)
            decode(codes, W_dec).backward(gradient)
            W_enc.grad = W_dec.grad = self.b_enc.grad = None


def _rows(n_rows: int, width: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n_rows, width), dim=1).requires_grad_()


if __name__ == "__main__":
    main()
