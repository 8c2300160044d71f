"""The sides of the benchmark ``end-to-end``: qsae's commands, and the peers' own trainers."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from qsae_data_lm import LmConfig

from benchmarks import processes
from benchmarks.peers.run_spec import Run
from benchmarks.peers.training import Spec, write_arrays
from benchmarks.qsae_training import serve
from benchmarks.settings import ROOT, Settings, Sizes
from benchmarks.sides import HUGE_PAGES
from qsae_core.config.settings import TrainConfig

NAME = "end-to-end"
CONTEXT = LmConfig().context
"""Positions of a context, on every side: qsae's default."""
STATISTICS = TrainConfig().statistics_tokens
"""Vectors that ``qsae train`` looks at before it trains: a store holds them too."""
EVALUATED, QUICK_EVALUATED = TrainConfig().eval_tokens, 1024
"""Held-out vectors that ``qsae train`` measures itself on: a store holds no more."""
AS_IT_COMES, AUTOCAST, CUT = "as it comes", "bf16 autocast", "model cut"
TIMEOUT = 6 * 3600
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class Task(NamedTuple):
    """What all sides are given."""

    model: str
    layer: int
    text: pathlib.Path
    held_out: pathlib.Path
    tokens: int
    sizes: Sizes
    settings: Settings

    @property
    def evaluated(self) -> int:
        """Held-out vectors that ``qsae train`` measures itself on."""
        return QUICK_EVALUATED if self.settings.quick else EVALUATED

    @property
    def folder(self) -> pathlib.Path:
        """Takes what the sides leave."""
        return self.settings.folder / NAME


class Side(NamedTuple):
    """One way from the text to a coder."""

    library: str
    kind: str
    run: Callable[[Task], dict[str, Any]]
    """Leaves arrays for ``scored``, and gives ``seconds``, ``ready_seconds`` (until the coder was saved),
    ``peak_bytes``, and of qsae ``commands`` and ``parts`` (seconds of each part of each command), of a peer
    ``stages`` and versions; or ``{"error": reason}``."""
    peer: str | None = None


def sides() -> list[Side]:
    """All of them, qsae's first."""
    return [
        Side("qsae", "from the text", straight),
        Side("qsae", "from a store", through_store),
        _peer("sparsify", AS_IT_COMES, "sparsify_run", "eai-sparsify"),
        _peer("sparsify", f"{AUTOCAST}, {CUT}", "sparsify_run", "eai-sparsify", autocast=True, cut=True),
        _peer("SAELens", AS_IT_COMES, "sae_lens_run", "sae-lens"),
        _peer("SAELens", AUTOCAST, "sae_lens_run", "sae-lens", autocast=True),
    ]


# --- qsae


def straight(task: Task) -> dict[str, Any]:
    """``qsae train`` on the text."""
    return _trained([*_data(task), *_train(task)], "train from the text", task)


def through_store(task: Task) -> dict[str, Any]:
    """``qsae cache``, and ``qsae train`` on what it wrote; times are those of both together, the larger
    peak counts."""
    store = task.folder / "store"
    sizes = ["--tokens", task.tokens + STATISTICS, "--held-out-tokens", task.evaluated]
    fixed = ["--threads", task.settings.threads, "--device", "cpu", "--out", store]
    harvest = _qsae(["cache", *_data(task), *sizes, *fixed], "cache", task)
    if "error" in harvest:
        return harvest
    trained = _trained(["--store", store, *_train(task)], "train from the store", task)
    if "error" in trained:
        return trained
    return trained | {
        "commands": [*harvest["commands"], *trained["commands"]],
        "parts": harvest["parts"] | trained["parts"],
        "seconds": harvest["seconds"] + trained["seconds"],
        "ready_seconds": harvest["seconds"] + trained["ready_seconds"],
        "peak_bytes": max(harvest["peak_bytes"], trained["peak_bytes"]),
    }


def _data(task: Task) -> list[object]:
    return ["--model", task.model, "--layer", task.layer, "--dataset", _shown(task.text)]


def _train(task: Task) -> list[object]:
    sizes = task.sizes
    shape = ["--n-latents", sizes.n_latents, "--k", sizes.k, "--batch-size", sizes.batch_size]
    quick = ["--eval-tokens", task.evaluated] if task.settings.quick else []
    return ["--tokens", task.tokens, *shape, "--seed", task.settings.seed, *quick]


def _trained(arguments: list[object], title: str, task: Task) -> dict[str, Any]:
    results = task.folder / "results"
    fixed = ["--threads", task.settings.threads, "--device", "cpu", "--out", results]
    found = _qsae(["train", "--sae", "topk", *arguments, *fixed], title, task)
    if "error" not in found:
        (metrics,) = results.rglob("metrics.json")
        sizes = task.sizes
        spec = Spec(
            str(out_of(task)), "", str(task.held_out), sizes.batch_size, sizes.n_latents, sizes.k, 0, 0, []
        )
        write_arrays(spec, 0, serve(metrics.parent))
    return found


def _qsae(arguments: list[object], title: str, task: Task) -> dict[str, Any]:
    """A command, what it took, and where that went."""
    words = [str(argument) for argument in arguments]
    spec = {"out": str(out_of(task)), "started": time.time(), "arguments": words}
    command = [sys.executable, "-m", "benchmarks.end_to_end_probe", json.dumps(spec)]
    found = _run(command, f"{NAME} qsae {title}", task)
    if "error" not in found:
        found["parts"] = {words[0]: found["parts"]}
    return {"commands": [" ".join(["qsae", *words]).replace(f"{task.folder}/", "")], **found}


# --- peers


def _peer(library: str, kind: str, script: str, peer: str, **options: Any) -> Side:
    def run(task: Task) -> dict[str, Any]:
        python = task.settings.python(peer)
        if not pathlib.Path(python).exists():
            return {"error": f"no environment {peer}: see benchmarks/README.md"}
        folder = task.folder / "saved"
        folder.mkdir()
        sizes = task.sizes
        spec = Run(
            out=str(out_of(task)),
            started=time.time(),
            folder=str(folder),
            model=task.model,
            layer=task.layer,
            text=str(task.text),
            context=CONTEXT,
            held_out=str(task.held_out),
            tokens=task.tokens,
            batch_size=sizes.batch_size,
            n_latents=sizes.n_latents,
            k=sizes.k,
            seed=task.settings.seed,
            threads=task.settings.threads,
            options=options,
        )
        command = [python, f"benchmarks/peers/{script}.py", json.dumps(spec._asdict())]
        return _run(command, f"{NAME} {library} {kind}", task)

    return Side(library, kind, run, peer)


# --- both


def _run(command: list[str], name: str, task: Task) -> dict[str, Any]:
    """Nothing that was read, tokenized or converted before is there: caches are the side's own."""
    caches = {"HF_DATASETS_CACHE": str(task.folder / "datasets")}
    environment = {**HUGE_PAGES, **OFFLINE, **caches}
    return processes.run_script(command, out_of(task), task.settings, name, environment, timeout=TIMEOUT)


def out_of(task: Task) -> pathlib.Path:
    """File that a side's process writes; ``arrays_file`` has the place of its arrays."""
    return task.folder / "result.json"


def _shown(path: pathlib.Path) -> pathlib.Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
