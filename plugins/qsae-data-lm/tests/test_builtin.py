"""The language model that comes with the plugin, and what the README says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from qsae_data_lm import LmConfig
from qsae_data_lm.places import BUILTIN
from qsae_data_lm.source import LmSource
from torch.nn.functional import cross_entropy

README = Path(__file__).parents[1] / "README.md"
MEASURED = json.loads((BUILTIN / "training.json").read_text())


@pytest.fixture(scope="module")
def source() -> LmSource:
    return LmSource(LmConfig(buffer_tokens=2048))


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in BUILTIN.iterdir()) <= 10_000_000


@torch.no_grad()
def test_it_predicts_held_out_text_as_its_card_says_and_far_better_than_the_bigram(source: LmSource) -> None:
    total = count = 0.0
    for batch, _ in source.held_out_contexts(20_000, 4096):
        logits = source.language_model().logits(batch)[:, :-1]
        counted = batch.counted[:, 1:]
        total += float(cross_entropy(logits[counted], batch.ids[:, 1:][counted], reduction="sum"))
        count += int(counted.sum())
    nats = MEASURED["nats_per_token"]
    assert total / count == pytest.approx(nats["model"], abs=0.4)  # a seventh of the held-out text
    assert nats["model"] < nats["bigram"] - 1


def test_the_defaults_read_its_middle_layer_on_the_standard_library(source: LmSource) -> None:
    assert (source.source_sites, source.d_in, source.model_name) == (((2, "resid_post"),), 256, "builtin")
    batch = source.next_batch(1000)
    assert batch.x.shape == (1000, 256)
    assert source.describe()["held_out_documents"] > 10
    assert {t.ids.shape[1] for t, _ in source.held_out_contexts(300, 512)} == {256}


def test_the_readme_tells_the_measured_numbers() -> None:
    readme = README.read_text()
    for name, label in (("model", "built-in model"), ("bigram", "bigram")):
        row = re.search(rf"\| {label} \| ([0-9.]+) \| ([0-9.]+) \|", readme)
        assert row is not None
        assert float(row[1]) == pytest.approx(MEASURED["nats_per_token"][name], abs=0.005)
        assert float(row[2]) == pytest.approx(MEASURED["nats_per_byte"][name], abs=0.0005)
