"""qsae's side of the benchmark ``evaluation``: what ``qsae evaluate`` does once model and coder are loaded.

Argument: a JSON object as ``benchmarks.evaluation`` writes it. Where ``"timed"`` is false in it, this writes
what the other side is given: the contexts and the coder's matrices.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.peers.stopwatch import peak_bytes
from qsae_core import load
from qsae_core.contracts import DataSource, SparseCoder
from qsae_core.evaluation.evaluate import WHOLE
from qsae_core.evaluation.run import evaluate_coder
from qsae_core.runs import Layer, artifact_folder, compose_data, load_plugins, recorded_config

EVALUATIONS = ("reconstruction", "loss-recovered", "sparsity", "similarity")
"""Which have the numbers of SAEBench's ``core`` between them."""


def main() -> None:
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    registry = load_plugins().registry
    asked: list[dict[str, Any]] = [{"use": name} for name in EVALUATIONS]
    asked[1]["tokens"] = spec["spliced_tokens"]
    path = pathlib.Path(spec["run"])
    config = recorded_config(artifact_folder(path), registry, Layer({"evaluate": asked}, style="flags"))
    coder = load(path)
    data = compose_data(config, registry, device="cpu")
    if not spec["timed"]:
        result = _given(spec, data, coder)
    else:
        started = time.perf_counter()
        found = evaluate_coder(coder, data, config, registry, n_tokens=spec["tokens"])[WHOLE]
        seconds = time.perf_counter() - started
        values = {name: dict(outcome.result.values) for name, outcome in found.items() if outcome.result}
        result = {"seconds": seconds, "values": values, "peak_bytes": peak_bytes()}
    pathlib.Path(spec["out"]).write_text(json.dumps(result))


def _given(spec: dict[str, Any], data: DataSource, coder: SparseCoder) -> dict[str, Any]:
    """Write the arrays; how many contexts hold so many tokens, whole and spliced."""
    seen, ids = [], []
    for tokens, _ in data.held_out_contexts(spec["tokens"], 4096):
        ids.append(tokens.ids)
        seen.append(tokens.counted.sum(1))
    counted = torch.cat(seen).cumsum(0)
    dense = coder.dense().plain()  # type: ignore[attr-defined] (of a MatrixCoder)
    weights = {name: getattr(dense, name).numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    np.savez(spec["arrays"], ids=torch.cat(ids).numpy(), k=dense.k, **weights)
    model = data.language_model()
    assert model is not None
    spliced = int((counted < spec["spliced_tokens"]).sum()) + 1
    return {"contexts": len(counted), "spliced_contexts": spliced, "special": sorted(model.special_ids)}


if __name__ == "__main__":
    main()
