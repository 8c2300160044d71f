"""How fast a coder encodes and decodes, beside the same coder in float32 through plain torch.

Shapes: B tokens, D width, F latents, K entries a token.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qsae_core.coders import LinearCoder, MatrixCoder, by_rows
from qsae_core.contracts import Batch, CoderShape, SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.kernels import Arithmetic, Kind, candidates_for
from qsae_core.runs import compose_coder, serve_with

if TYPE_CHECKING:
    from qsae_core import RunConfig
    from qsae_core.runs import Registry

LEAST_SECONDS = 0.02
"""Calls are repeated until a sample is at least so long, so that the clock's own noise does not count."""


class PlainCoder:
    """A linear coder with k entries a token in plain torch: one float32 product, topk, embedding_bag.

    Normalisation and rotation are folded into the weights, so nothing is left that would slow it down.
    """

    def __init__(self, coder: LinearCoder) -> None:
        norm_in, norm_out = (copy.deepcopy(norm).double() for norm in (coder.norm_in, coder.norm_out))
        self.k = coder.sparsity.fixed_k or 0
        read = (lambda rows: norm_in.unrotated(rows) / norm_in.scale) if norm_in.changes else None
        written = norm_out.inverse_direction if norm_out.changes else None
        # a few rows at a time: beside what is measured there is one float32 copy of it, and no second one
        self.W_enc, self.W_dec = by_rows(read, coder.W_enc).float(), by_rows(written, coder.W_dec).float()
        self.b_dec = norm_out.inverse(coder.b_dec.double()).float()
        self.b_enc = coder.b_enc - self.W_enc @ (self.b_dec if coder.subtract_b_dec else norm_in.mean.float())
        self.norms = None if coder.unit_norm_rows else self.W_dec.norm(dim=1)
        self.W_skip = None
        if coder.has_skip:
            form = coder.dense()
            self.b_dec, self.W_skip = form.b_dec, form.W_skip

    def encode(self, x_BD: Tensor) -> SparseCodes:
        """The k largest of ``relu(x W_enc^T + b_enc)``, times the norms of atoms where these differ."""
        latents_BF = torch.relu_(F.linear(x_BD, self.W_enc, self.b_enc))
        if self.norms is None:
            values_BK, indices_BK = torch.topk(latents_BF, self.k, dim=1, sorted=False)
        else:
            indices_BK = torch.topk(latents_BF * self.norms, self.k, dim=1, sorted=False).indices
            values_BK = latents_BF.gather(1, indices_BK)
        codes = SparseCodes.from_top_k(indices_BK, values_BK, latents_BF.shape[1])
        return codes if self.W_skip is None else replace(codes, inputs=x_BD)

    def decode(self, codes: SparseCodes) -> Tensor:
        """``f W_dec + b_dec [+ W_skip x]``."""
        indices_BK, values_BK = codes.indices.view(-1, self.k), codes.values.view(-1, self.k)
        summed = F.embedding_bag(indices_BK, self.W_dec, mode="sum", per_sample_weights=values_BK)
        if self.W_skip is None or codes.inputs is None:
            return summed + self.b_dec
        return summed + F.linear(codes.inputs, self.W_skip, self.b_dec)

    def reconstruct(self, x_BD: Tensor) -> Tensor:
        """Both."""
        return self.decode(self.encode(x_BD))


class Rate(NamedTuple):
    """One operation at one batch size."""

    operation: str
    batch_size: int
    tokens_per_second: float
    fp32_tokens_per_second: float
    bytes_per_token: float
    """Bytes of weights that one token makes a call read, a matrix that is read whole divided by the batch."""
    fp32_bytes_per_token: float

    @property
    def times(self) -> float:
        """How many times as fast as float32."""
        return self.tokens_per_second / self.fp32_tokens_per_second


@torch.no_grad()
def measure(coder: LinearCoder, batch_sizes: Sequence[int], repeats: int, seed: int = 0) -> dict[str, Any]:
    """Rates of encode, decode and both, and how far the codes and reconstructions agree.

    Inputs are those of ``sample_inputs``. The two sides alternate; medians.

    Returns:
        ``rates``: list of ``Rate``; ``same_entries``: share of float32's active entries that the codes
        have; ``relative_difference``: of the reconstructions, for the largest batch.
    """
    if coder.sparsity.fixed_k is None:
        raise ConfigError(
            "speed is compared for coders with a fixed number of latents per token",
            where="sparsity",
            allowed="a rule such as topk",
        )
    plain = PlainCoder(coder)
    x_BD = sample_inputs(coder, max(batch_sizes), seed)
    parts = [x_BD[:batch_size].contiguous() for batch_size in batch_sizes]
    rates = [rate for x in parts for rate in _rates(coder, plain, x, repeats)]
    return {"rates": rates, **_agreement(coder, plain, x_BD)}


def _rates(coder: LinearCoder, plain: PlainCoder, x: Tensor, repeats: int) -> Iterator[Rate]:
    """Of encode, decode and both, for one batch."""
    n = len(x)
    codes, plain_codes = coder.encode(x), plain.encode(x)
    sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "encode": (partial(coder.encode, x), partial(plain.encode, x)),
        "decode": (partial(coder.decode, codes), partial(plain.decode, plain_codes)),
        "both": (partial(coder, x), partial(plain.reconstruct, x)),
    }
    ours, theirs = _weight_bytes(coder, n), _plain_bytes(plain, n)
    for name, (one, other) in sides.items():
        seconds, fp32_seconds = _alternate(one, other, repeats)
        yield Rate(name, n, n / seconds, n / fp32_seconds, ours[name], theirs[name])


def sample_inputs(coder: LinearCoder, n_tokens: int, seed: int) -> Tensor:
    """``[B, d_in]`` in the data's space: sums of random atoms, as many as the code keeps, and noise; for a
    transcoder, whose atoms are elsewhere, noise with the inputs' mean and scale."""
    generator = torch.Generator().manual_seed(seed)
    if not coder.is_autoencoder:
        return coder.norm_in.inverse(torch.randn(n_tokens, coder.shape.d_in, generator=generator))
    k = coder.sparsity.fixed_k or 1
    indices_BK = torch.stack(
        [torch.randperm(coder.n_latents, generator=generator)[:k] for _ in range(n_tokens)]
    )
    values_BK = torch.rand(n_tokens, k, generator=generator) + 0.5
    clean = coder.decode(SparseCodes.from_top_k(indices_BK, values_BK, coder.n_latents))
    return clean + 0.1 * clean.std() * torch.randn(clean.shape, generator=generator)


def _alternate(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of a call of each side."""
    calls = [_calls_per_sample(one), _calls_per_sample(other)]
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, function in enumerate((one, other)):
            started = time.perf_counter()
            for _ in range(calls[side]):
                function()
            samples[side].append((time.perf_counter() - started) / calls[side])
    return statistics.median(samples[0]), statistics.median(samples[1])


def _calls_per_sample(function: Callable[[], Any]) -> int:
    function()
    started = time.perf_counter()
    function()
    return max(1, round(LEAST_SECONDS / max(time.perf_counter() - started, 1e-9)))


def _weight_bytes(coder: LinearCoder, batch_size: int) -> dict[str, float]:
    encoder, decoder = coder.W_enc.rows(), coder.W_dec.rows()
    k = coder.sparsity.fixed_k or 0
    weights = encoder.shape[0] * encoder.shape[1]
    searched = {"none": 4, "bf16": 2, "int8": 1}[coder.screen] * weights
    exact = k if coder.screen == "none" else candidates_for(coder.screen, k)
    encode = searched / batch_size + exact * encoder.row_bytes
    decode = k * decoder.row_bytes
    return {"encode": encode, "decode": decode, "both": encode + decode}


def _plain_bytes(plain: PlainCoder, batch_size: int) -> dict[str, float]:
    encode = 4 * plain.W_enc.numel() / batch_size
    decode = 4.0 * plain.k * plain.W_dec.shape[1]
    return {"encode": encode, "decode": decode, "both": encode + decode}


def _agreement(coder: LinearCoder, plain: PlainCoder, x_BD: Tensor) -> dict[str, float]:
    ours, theirs = coder.encode(x_BD), plain.encode(x_BD)
    size = ours.batch_size * ours.n_latents
    has = torch.zeros(size, dtype=torch.bool)
    has[ours.rows * ours.n_latents + ours.indices] = True
    wanted = (theirs.rows * theirs.n_latents + theirs.indices)[theirs.active]
    expected = plain.decode(theirs)
    difference = (coder.decode(ours) - expected).norm() / expected.norm()
    return {
        "same_entries": has[wanted].double().mean().item(),
        "relative_difference": difference.item(),
    }


def untrained(
    config: RunConfig, registry: Registry, width: int, *, screen: Kind, arithmetic: Arithmetic
) -> MatrixCoder:
    """A coder of the config with random unit rows, packed and restored as if it had been loaded."""
    shape = CoderShape(width, width)
    trained, coder = (compose_coder(config, registry, shape) for _ in range(2))
    sample = torch.randn(1024, width, generator=torch.Generator().manual_seed(0))
    trained.initialize(Batch(sample, sample))
    coder.restore(trained.eval().export())
    serve_with(coder, screen, arithmetic, where=config.coder.use)
    return coder.eval()
