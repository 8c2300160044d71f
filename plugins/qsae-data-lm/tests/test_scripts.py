"""The scripts that train and measure the built-in language model."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from qsae_data_lm import LmConfig
from qsae_data_lm.source import LmSource

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bigram_by_hand() -> None:
    # Training stream: BOS 1 2 1. Unigram with one added: u(1) = 3/5, u(2) = 2/5.
    # Each of BOS, 1, 2 is seen once before one token, so p(b | a) = (c(a, b) + u(b)) / 2.
    train = [np.array([1, 2, 1], dtype=np.int32)]
    contexts_CT = np.array([[0, 1, 1, 0, 2]], dtype=np.int32)
    expected = [(1 + 3 / 5) / 2, (3 / 5) / 2, (2 / 5) / 2]  # 1 after BOS, 1 after 1, 2 after BOS
    found = script("measure_builtin").bigram_nats(train, contexts_CT, bos=0, vocab=3)
    assert found == pytest.approx(-sum(map(math.log, expected)))


def test_the_bigram_is_a_distribution() -> None:
    rng = np.random.default_rng(0)
    train = [rng.integers(1, 6, size=50).astype(np.int32) for _ in range(3)]
    contexts = [np.array([[4, after]], dtype=np.int32) for after in range(1, 6)]
    nats = [script("measure_builtin").bigram_nats(train, c, bos=0, vocab=6) for c in contexts]
    assert sum(math.exp(-n) for n in nats) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (2, 8, 8)])
def test_muon_orthogonalizes(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = script("muon").orthogonalize(matrices, steps=10)
    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    assert (found * (u @ v)).sum() / (found.norm() * (u @ v).norm()) > 0.95


@pytest.mark.slow
def test_training_writes_a_model_that_the_source_reads(tmp_path: Path, text: Path) -> None:
    out = tmp_path / "builtin"
    options = ["--steps", "2", "--batch", "2", "--vocab-size", "300", "--out", str(out)]
    command = [sys.executable, str(SCRIPTS / "train_builtin.py"), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads((out / "training.json").read_text())
    assert json.loads(printed[printed.index("{") :]) == report
    assert [run["steps"] for run in report["runs"]] == [2]
    assert report["nats_per_token"]["model"] == pytest.approx(math.log(300), abs=0.5)  # nothing learnt yet
    assert [path.name for path in tmp_path.iterdir()] == ["builtin"]
    source = LmSource(LmConfig(model=str(out), text=str(text), buffer_tokens=1024))
    assert source.next_batch(100).x.shape == (100, 256)


@pytest.mark.slow
def test_measuring_gives_the_numbers_of_the_card() -> None:
    command = [sys.executable, str(SCRIPTS / "measure_builtin.py")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    card = json.loads((SCRIPTS.parent / "qsae_data_lm" / "builtin" / "training.json").read_text())
    for unit in ("nats_per_token", "nats_per_byte"):
        for name, value in card[unit].items():
            assert found[unit][name] == pytest.approx(value, rel=0.05), (unit, name)  # another Python's text
