"""Resume states: everything from which a run continues bit for bit. Tensors and JSON, nothing pickled."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.artifact.tensor_files import load_tensors, save_tensors
from qsae_core.contracts.data import DataSource
from qsae_core.results.files import atomic_folder, read_json
from qsae_core.results.run import Run
from qsae_core.training.prefetch import BatchReader
from qsae_core.training.trainer import Trainer

TENSORS, STATE = "state.safetensors", "state.json"
KEEP = 2
"""How many resume states stay; older ones are removed once a newer one is complete."""


def save_state(run: Run, step: int, trainers: Mapping[str, Trainer], data: BatchReader) -> pathlib.Path:
    """Write the state after ``step`` steps: weights, moments, counters, generators, the data's position."""
    folder = _folder(run, step)
    state = json.dumps({"step": step, "coders": list(trainers), "data": data.state_dict()})
    tensors: dict[str, Tensor] = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, trainer in trainers.items():
        tensors |= {f"{name}/{key}": value for key, value in trainer.state().items()}
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / TENSORS, _separate(tensors), state)
        (temporary / STATE).write_text(state, encoding="utf-8")
    for old in run.resume_states()[:-KEEP]:
        shutil.rmtree(old)
    return folder


def load_state(folder: pathlib.Path, trainers: Mapping[str, Trainer], data: DataSource) -> int:
    """Put trainers, generators and data where ``save_state`` left them; returns the number of steps done.

    Raises:
        ArtifactError: if the state is truncated or altered.
    """
    state: dict[str, Any] = read_json(folder / STATE)
    tensors = load_tensors(folder / TENSORS, (folder / STATE).read_text(encoding="utf-8"))
    for name, trainer in trainers.items():
        prefix = f"{name}/"
        trainer.load_state({k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)})
    data.load_state_dict(state["data"])
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return int(state["step"])


def remove_state(run: Run, step: int) -> None:
    """Remove the state after the last step: a finished run has nothing to resume."""
    shutil.rmtree(_folder(run, step))


def _folder(run: Run, step: int) -> pathlib.Path:
    return run.checkpoints / f"step_{step:08d}"


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory (safetensors refuses those that do)."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.data_ptr())
        separate[name] = plain
    return separate
