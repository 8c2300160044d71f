"""Runs of several processes that a test starts, and of one, and how they compare."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.plugins.records import load_plugins
from qsae_core.results.run import Run
from qsae_core.training.run import train
from qsae_core.training.watcher import Unwatched

ROOT = pathlib.Path(__file__).parents[1]
WORKER = ROOT / "tests" / "process_worker.py"
SYNTHETIC = {"use": "synthetic"}


def tree(out: pathlib.Path, name: str, **sections) -> dict:
    """16 steps of 96 tokens, with restarts at each of them, or AuxK at every eighth."""
    whole = {
        "data": SYNTHETIC,
        "train": {"steps": 16, "batch_size": 96, "statistics_tokens": 500, "lr": 3e-3, "log_every": 1},
        "run": {"out": str(out), "name": name, "device": "cpu", "threads": 1, "compare_float": False},
        "metrics": ["reconstruction"],
        "evaluate": ["reconstruction"],
    }
    whole["train"] |= {"eval_tokens": 96, "eval_every": 10} | sections.pop("train", {})
    whole["run"] |= sections.pop("run", {})
    return whole | sections


def start(world: int, jobs: pathlib.Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(jobs)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(world)
    ]


def carry_out(world: int, folder: pathlib.Path, jobs: list[dict]) -> list[list[dict]]:
    """How each job ended in each process."""
    file = folder / f"jobs-{world}.json"
    file.write_text(json.dumps(jobs))
    for process in start(world, file):
        process.wait(timeout=300)
    return [json.loads(file.with_suffix(f".{rank}").read_text()) for rank in range(world)]


def alone(config: dict) -> Run:
    plugins = load_plugins()
    return train(resolve([checked_layer(config, "test")], plugins.registry), plugins, Unwatched())


def log_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics" / "log.jsonl").read_text().splitlines()]


def assert_alike(run: Run, single: Run) -> None:
    lines, expected = log_of(run), log_of(single)
    assert len(lines) == len(expected)
    for line, other in zip(lines, expected, strict=True):
        for timed in (line, other):
            timed.pop("tokens_per_second")
        assert line == pytest.approx(other, rel=2e-4, abs=1e-6), f"step {line['step']}"
    files = sorted(file.relative_to(single.final) for file in single.final.rglob("coder.safetensors"))
    assert files
    for file in files:
        own, theirs = load_file(run.final / file), load_file(single.final / file)
        assert own.keys() == theirs.keys()
        for name, tensor in own.items():
            if tensor.is_floating_point():
                # each process's own smallest entry of a batch is close to that of all, but not the same
                close = (1e-5, 1e-6) if name.endswith("threshold") else (2e-3, 2e-4)
                torch.testing.assert_close(
                    tensor, theirs[name], rtol=close[0], atol=close[1], msg=f"{file} {name}"
                )
