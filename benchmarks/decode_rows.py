"""Decoding k of F rows from packed codes beside torch's ``embedding_bag`` in float32, in one process.

Sides alternate; medians of samples of at least 20 ms. Indices are drawn evenly or by Zipf's law, another set
for each call. ``exact`` and ``compiled`` give the bits of ``embedding_bag`` with the unpacked matrix;
``fast`` is torch's byte bag.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.sides import COMPILED
from qsae_core import kernels
from qsae_core.compose.kernels import activate_kernels
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.quantizer import Quantizer
from qsae_core.kernels.packed_rows import PackedRows
from qsae_core.plugins.records import load_plugins
from qsae_core.registry import Registry

SETS = 8
LEAST_SECONDS = 0.02
GRIDS: dict[str, dict[str, Any]] = {
    "1 bit": {"grid": "binary"},
    "ternary": {"grid": "ternary"},
    "4 bits": {"n_bits": 4},
    "8 bits": {"n_bits": 8},
}
Decode = Callable[[SparseCodes], Tensor]


def make_quantizer(registry: Registry, options: dict[str, Any], shape: tuple[int, int]) -> Quantizer:
    """The quantizer ``ste`` with these options."""
    spec = registry.get("quantizer", "ste")
    quantizer: Quantizer = registry.load_target(spec)(spec.config(**options), shape)
    return quantizer.eval()


def sides(registry: Registry, options: dict[str, Any], matrix_FD: Tensor) -> dict[str, Decode]:
    """Name -> decode: float32 with the unpacked matrix, and from packed codes in three ways."""
    quantizer = make_quantizer(registry, options, (matrix_FD.shape[0], matrix_FD.shape[1]))
    packed = quantizer.pack(matrix_FD)
    unpacked = quantizer.unpack(packed)

    def bag(codes: SparseCodes) -> Tensor:
        k = codes.k or 1
        values_BK = codes.values.view(-1, k)
        return F.embedding_bag(codes.indices.view(-1, k), unpacked, per_sample_weights=values_BK, mode="sum")

    with kernels.torch_only():
        exact, fast = (PackedRows(packed, quantizer, how) for how in ("exact", "fast"))
    compiled = PackedRows(packed, quantizer, "exact")

    def without_kernels(rows: PackedRows) -> Decode:
        def decode(codes: SparseCodes) -> Tensor:
            with kernels.torch_only():
                return rows.product(codes, codes.values)

        return decode

    return {
        "fp32": bag,
        "compiled": lambda codes: compiled.product(codes, codes.values),
        "torch, fast": without_kernels(fast),
        "torch, exact": without_kernels(exact),
    }


def draw_codes(batch: int, n_latents: int, k: int, law: str, generator: torch.Generator) -> list[SparseCodes]:
    """Sets of codes; a latent may occur twice in a token, which changes nothing for a decode."""
    weights = torch.ones(n_latents)
    if law == "zipf":
        weights = 1 / torch.arange(1, n_latents + 1)
        weights = weights[torch.randperm(n_latents, generator=generator)]
    drawn = torch.multinomial(weights, SETS * batch * k, replacement=True, generator=generator)
    values = torch.rand(SETS, batch, k, generator=generator)
    sets = zip(drawn.view(SETS, batch, k), values, strict=True)
    return [SparseCodes.from_top_k(indices, value, n_latents) for indices, value in sets]


def time_side(decode: Decode, sets: list[SparseCodes], calls: int) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    for number in range(calls):
        decode(sets[number % SETS])
    return (time.perf_counter() - started) / calls


def measure(decoders: dict[str, Decode], sets: list[SparseCodes], repeats: int) -> dict[str, float]:
    """Name -> median seconds of a call."""
    calls = {
        name: max(1, round(LEAST_SECONDS / (time_side(d, sets, 1) and time_side(d, sets, 2))))
        for name, d in decoders.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(repeats):
        for name, decode in decoders.items():
            samples[name].append(time_side(decode, sets, calls[name]))
    return {name: statistics.median(taken) for name, taken in samples.items()}


@torch.no_grad()
def main() -> None:
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    registry = load_plugins().registry
    activate_kernels(COMPILED, registry)
    generator = torch.Generator().manual_seed(spec["seed"])
    matrix = F.normalize(torch.randn(spec["n_latents"], spec["d"], generator=generator), dim=1)
    rows = []
    for name, options in GRIDS.items():
        decoders = sides(registry, options, matrix)
        for batch in spec["batches"]:
            for law in ("even", "zipf"):
                sets = draw_codes(batch, spec["n_latents"], spec["k"], law, generator)
                seconds = measure(decoders, sets, spec["repeats"])
                rows.append({"weights": name, "batch_size": batch, "law": law, "seconds": seconds})
    pathlib.Path(spec["out"]).write_text(json.dumps({**spec, "rows": rows}))


if __name__ == "__main__":
    main()
