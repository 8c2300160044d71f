"""Runs on the built-in language model and a text of its own, with their samples and the contexts of these."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from qsae_samples.firings import Firings

from qsae_cli.main import cli
from qsae_core.contracts import Observation

FEW = "--steps 12 --batch-size 128 --eval-tokens 256 --eval-every 0 --statistics-tokens 256 --threads 1 "
REST = "--eval reconstruction --no-compare-float --context 48 --held-out-share 0.4 --n-latents 96"


def call(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="session")
def qsae() -> Callable[..., Any]:
    """The command line; its exit code has to be ``code``."""
    return call


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pathlib.Path]:
    """A run of 96 latents; gives its folder."""
    texts = tmp_path_factory.mktemp("texts")
    for n in range(40):
        lines = [f"def f{n}_{m}(x):\n    return x + {m * n} * y  # é {'€' * (n % 3)}\n" for m in range(12)]
        (texts / f"{n}.py").write_text("".join(lines), encoding="utf-8")

    def made(name: str, *arguments: object) -> pathlib.Path:
        folder = tmp_path_factory.mktemp("run")
        call(
            *("train", *arguments, *FEW.split(), *REST.split(), "--data.dtype", "fp32", "--text", texts),
            *("--name", name, "--out", folder),
        )
        return next(folder.rglob("config.json")).parent

    return made


@pytest.fixture(scope="session")
def sampled(
    train: Callable[..., pathlib.Path],
) -> Callable[..., tuple[pathlib.Path, torch.Tensor, torch.Tensor]]:
    """A run with samples; gives its folder, and ids and documents of the contexts that were read,
    ``[C, T]``."""

    def made(name: str, *arguments: object) -> tuple[pathlib.Path, torch.Tensor, torch.Tensor]:
        run = train(name, *arguments)
        ids, documents = [], []
        update = Firings.update

        def kept(self: Firings, observation: Observation) -> None:
            assert observation.tokens is not None
            assert observation.tokens.documents is not None
            ids.append(observation.tokens.ids)
            documents.append(observation.tokens.documents)
            update(self, observation)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Firings, "update", kept)
            call("samples", run, "--tokens", "6000", "--threshold", "0")
        return run, torch.cat(ids), torch.cat(documents)

    return made
