"""The page of the benchmark ``evaluation``, and what an environment is installed from."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from benchmarks import install_peers
from benchmarks.pages import evaluation as page

OURS = {
    "loss-recovered": {
        "ce_clean": 2.5,
        "ce_sae": 2.75,
        "ce_zero": 9.0,
        "ce_recovered": 0.96154,
        "kl": 0.2,
        "kl_zero": 6.0,
    },
    "reconstruction": {
        "l0": 32.0,
        "cosine": 0.95,
        "l2_ratio": 0.96,
        "relative_reconstruction_bias": 1.01,
        "explained_variance": 0.875,
    },
}
THEIRS = {there: OURS[name][here] for there, name, here in page.SAME} | {"explained_variance": 1.5}


def result(theirs: dict[str, Any]) -> dict[str, Any]:
    ours = [{"seconds": s, "values": OURS, "peak_bytes": 2e9} for s in (10.0, 11.0, 30.0)]
    rounds = [{"qsae": own, "SAEBench": theirs | {"seconds": 4 * own["seconds"]}} for own in ours]
    if "error" in theirs:
        rounds = [{"qsae": own, "SAEBench": theirs} for own in ours]
    sizes = {"n_latents": 16384, "k": 32, "tokens": 65536, "spliced_tokens": 16384}
    return {**sizes, "models": [{"model": "small", "layer": 9, "contexts": 256, "rounds": rounds}]}


def test_medians_and_both_numbers_are_shown() -> None:
    text = page._text(result({"values": THEIRS, "peak_bytes": 5e9, "version": "0.6.0"}))
    assert "| qsae | 11.0 |  | 2.0 GB |" in text
    assert "| SAEBench 0.6.0 | 44.0 | 4.0 times as long | 5.0 GB |" in text
    assert "| explained_variance | 0.875 | 1.5 |" in text
    assert "| ce_clean (ce_loss_without_sae) | 2.5 | 2.5 |" in text


def test_a_side_that_failed_is_named_with_its_reason() -> None:
    text = page._text(result({"error": "no environment sae-bench"}))
    assert "* SAEBench: failed: no environment sae-bench" in text
    assert "times as long" not in text


def test_what_stands_behind_no_deps_is_installed_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(install_peers.subprocess, "run", lambda command, check: calls.append(command[3:]))
    monkeypatch.setattr(install_peers.venv, "create", lambda folder, **_: folder.mkdir())
    install_peers._install(tmp_path / "sae-bench", "sae-bench")
    assert calls[0] == ["install", "-qq", "torch==2.13.0"]
    assert "sae-bench==0.6.0" not in calls[1]
    assert calls[2] == ["install", "-qq", "--no-deps", "sae-bench==0.6.0"]
