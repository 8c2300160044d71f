"""Benchmark ``end-to-end``: from a text to a trained SAE of a language model, as a user waits for it.

Every side is one process (qsae's store: two, one behind the other) that reads the same text with the same
model, trains a TopK SAE of one shape on equally many tokens, and leaves it on disk. Its time goes from the
start of the process to its end; that of a peer to the saved SAE. All SAEs are measured on the same states of
other documents, outside of that time.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np

from benchmarks import texts
from benchmarks.end_to_end_sides import CONTEXT, NAME, Task, out_of, sides
from benchmarks.peers.training import arrays_file
from benchmarks.quality import held_out_states
from benchmarks.results import progress
from benchmarks.scores import score
from benchmarks.settings import Settings, Sizes

KIND = "code"
"""Of text: the one that needs no download."""
TOKENS = 200_000
SIZES = Sizes(batch_size=2048, n_latents=16_384, k=32, steps=0, held_out=60_000)
QUICK_TOKENS = 4096
QUICK = Sizes(batch_size=512, n_latents=512, k=16, steps=0, held_out=1024)


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, "contenders": [{library, kind, seconds, scores}]}``, in the order in which they ran."""
    if settings.model is None:
        raise SystemExit(f"{NAME} needs --model DIR")
    layer = middle(settings.model) if settings.layer is None else settings.layer
    task = make_task(settings, settings.model, layer)
    records = []
    for side in sides():
        if side.peer is None or side.peer in settings.peers:
            shutil.rmtree(task.folder, ignore_errors=True)
            task.folder.mkdir(parents=True)
            found = scored(side.run(task), task)
            records.append({"library": side.library, "kind": side.kind, **found})
            progress(f"{NAME}: {side.library}, {side.kind}: {_short(found)}")
    shutil.rmtree(task.folder, ignore_errors=True)
    held_out = np.load(task.held_out, mmap_mode="r").shape
    return {
        **task.sizes._asdict(),
        "held_out": held_out[0],
        "d": held_out[1],
        "tokens": task.tokens,
        "evaluated": task.evaluated,
        "context": CONTEXT,
        "model": pathlib.Path(task.model).name,
        "layer": task.layer,
        "kind": KIND,
        "contenders": records,
    }


def middle(model: str) -> int:
    """The layer that qsae reads where none is given, of a model in a directory."""
    layers: int = json.loads((pathlib.Path(model) / "config.json").read_text())["num_hidden_layers"]
    return layers // 2


def make_task(settings: Settings, model: str, layer: int) -> Task:
    """Tokens are rounded up to whole batches, as ``qsae train`` does."""
    sizes, tokens = (QUICK, QUICK_TOKENS) if settings.quick else (SIZES, TOKENS)
    steps = -(-(settings.tokens or tokens) // sizes.batch_size)
    sizes = sizes._replace(n_latents=settings.n_latents or sizes.n_latents, steps=steps)
    text, _ = texts.files(settings.data / "texts", KIND)
    held_out = held_out_states(KIND, model, layer, sizes.held_out, settings)
    return Task(model, layer, text, held_out, steps * sizes.batch_size, sizes, settings)


def scored(result: dict[str, Any], task: Task) -> dict[str, Any]:
    """With ``fvu``, ``l0`` and ``dead`` of what a side left."""
    if "error" in result:
        return result
    with np.load(arrays_file(out_of(task), 0)) as arrays:
        return result | score(np.load(task.held_out), arrays, None)


def _short(found: dict[str, Any]) -> str:
    return found.get("error") or f"{found['seconds']:.1f} s, FVU {found['fvu']:.4f}"
