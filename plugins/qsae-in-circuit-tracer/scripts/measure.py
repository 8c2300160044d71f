"""What transcoders hold and how long they take in circuit-tracer: packed, and as it loads its own.

    python measure.py HOW STORED FLOATS MODEL

in an environment with circuit-tracer and qsae, one process for each HOW: ``packed`` reads STORED, a run or a
folder of coders; ``lazy``, ``default`` and ``eager`` read FLOATS, the same coders exported, as circuit-tracer
does with both lazy flags, with ``lazy_decoder`` (which it does unless told otherwise) and with none. MODEL is
a language model's folder. Prints a line of JSON; times are the least of several.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from circuit_tracer import ReplacementModel, attribute
from circuit_tracer.utils.caching import load_transcoders_from_cache
from qsae_in_circuit_tracer import packed_transcoders
from safetensors import safe_open
from torch import Tensor

from qsae_core.runs import member_folders, set_folder

CPU = torch.device("cpu")
LAZY = {"lazy": (True, True), "default": (False, True), "eager": (False, False)}
PROMPT = "The capital of the state containing Dallas is"
TOKENS = 64
ROUNDS = 5


def tensors(transcoders: Any) -> Iterator[Tensor]:
    """What is held: parameters, and what a stored coder has."""
    yield from (*transcoders.parameters(), *transcoders.buffers())
    for coder in [one.coder for one in transcoders if hasattr(one, "coder")]:
        yield from (*coder.parameters(), *coder.buffers())
        for matrix in coder.matrices().values():
            yield from matrix.pack().tensors.values()


def held_mb(transcoders: Any) -> float:
    """Megabytes, memory that several share counted once."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(transcoders)}
    return sum(sizes.values()) / 1e6


def peak_mb() -> float:
    """The most memory that the process has had, mapped files included."""
    status = pathlib.Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1e3


def least(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of the fastest call."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def vectors(stored: pathlib.Path) -> Tensor:
    """``[L, TOKENS, D]``, with mean and scale of what coders were trained on; none is loaded for it."""
    folder, random, found = set_folder(stored), torch.Generator().manual_seed(0), []
    assert folder is not None, f"{stored} has no transcoder for each layer"
    for place in member_folders(folder).values():
        with safe_open(place / "coder.safetensors", framework="pt") as file:
            mean_D, scale = file.get_tensor("norm_in.mean"), file.get_tensor("norm_in.scale")
        found.append(torch.randn(TOKENS, len(mean_D), generator=random) * scale + mean_D)
    return torch.stack(found)


def main() -> None:
    """Measure one of them."""
    how, stored, floats, model = sys.argv[1:]
    x = vectors(pathlib.Path(stored))
    before, start = peak_mb(), time.perf_counter()
    if how == "packed":
        transcoders = packed_transcoders(stored, CPU)
    else:
        encoder, decoder = LAZY[how]
        lazy = {"lazy_encoder": encoder, "lazy_decoder": decoder}
        transcoders, _ = load_transcoders_from_cache(floats, device=CPU, dtype=torch.float32, **lazy)
    found = {"how": how, "load_s": time.perf_counter() - start, "held_mb": held_mb(transcoders)}
    with torch.no_grad():
        found["components_s"] = least(lambda: transcoders.compute_attribution_components(x))
    found["components_peak_mb"] = peak_mb() - before
    replacement = ReplacementModel.from_pretrained_and_transcoders(
        model, transcoders, backend="nnsight", device=CPU, dtype=torch.float32
    )
    settings = {"max_n_logits": 3, "batch_size": 32, "max_feature_nodes": 256}
    found["attribute_s"] = least(lambda: attribute(PROMPT, replacement, **settings), 2)
    print(json.dumps({name: value if name == "how" else round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
