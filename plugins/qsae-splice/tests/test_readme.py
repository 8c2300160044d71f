"""The README's code runs, and its tables name everything."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import torch
from qsae_splice.command import splice as command
from qsae_splice.edits import DIRECTION_OPERATIONS, OPERATIONS, UNITS
from qsae_splice.positions import WORDS

from qsae_core.contracts import Batch, TokenBatch

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TABLES = "\n".join(line for line in README.split("\n") if line.startswith("|"))


class Data:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def held_out(self, n_tokens: int, batch_size: int):
        return [Batch(self.x, self.x)]


def test_its_code_runs(builtin, random_coder, tmp_path, monkeypatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    prompt = torch.tensor([[0, 317, 1151, 8]])
    ones = torch.ones_like(prompt, dtype=torch.bool)
    batch = TokenBatch(prompt, prompt != 0, ones)
    clean = builtin.logits(batch)
    found = {
        "model": builtin,
        "hf_model": builtin.model,
        "coder": random_coder(256, 16, seed=0),
        "data": Data(torch.randn(64, 256, generator=torch.Generator().manual_seed(0))),
        "prompt": prompt,
        "batch": batch,
    }
    monkeypatch.chdir(tmp_path)
    np.save("difference_of_means.npy", np.ones(256, dtype=np.float32))
    exec(code, found)
    assert found["steered"].shape == (1, 24)
    assert not torch.equal(found["logits"], clean)
    assert torch.equal(builtin.logits(batch), clean)


def test_its_tables_name_every_word() -> None:
    for word in (*OPERATIONS, *DIRECTION_OPERATIONS, *UNITS, *WORDS):
        assert f"`{word}`" in TABLES
    for option in command.params:
        name = option.opts[0]
        if name.startswith("--") and name not in ("--json", "--device", "--rank"):
            assert f"`{name}`" in TABLES, name
