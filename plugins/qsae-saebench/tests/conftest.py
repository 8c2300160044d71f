"""A run on the built-in language model and a text of its own, with what its evaluations found."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

FEW = "--steps 6 --batch-size 128 --eval-tokens 512 --eval-every 0 --statistics-tokens 256 --threads 1 --k 4"
EVALUATE = "evaluate=[reconstruction, {use: loss-recovered, tokens: 256}, sparsity, similarity]"


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
    """A run of 64 latents; gives its folder."""
    texts = tmp_path_factory.mktemp("texts")
    for n in range(60):
        text = f"def f{n}(x):\n    return x + {n}\n"
        (texts / f"{n}.py").write_text(text * 12, encoding="utf-8")

    def made(name: str, *arguments: str) -> pathlib.Path:
        folder = tmp_path_factory.mktemp("run")
        data = ["--text", texts, "--context", "32", "--held-out-share", "0.3"]
        call(
            *("train", *arguments, "--n-latents", "64", *FEW.split(), *data),
            *("--name", name, "--out", folder, "--set", EVALUATE),
        )
        return next(folder.rglob("config.json")).parent

    return made


@pytest.fixture(scope="session")
def run(train: Callable[..., pathlib.Path]) -> pathlib.Path:
    """Of a ternary SAE, with its float twin."""
    return train("mine", "--sae", "ternary", "--layer", "1")


def put(folder: pathlib.Path, values: dict[str, Any], tables: dict[str, str], **options: Any) -> None:
    """What an evaluation stores, by hand."""
    folder.mkdir(parents=True)
    about = {"evaluation": folder.name, "version": 1, "options": options, "plugin": {}, "model": "builtin"}
    about |= {"measured": {"what": "a text", "warning": None}}
    scalars: dict[str, Any] = {"values": values, "chance": {}, "baseline": {}, "uncertainty": {}}
    names = {"per_latent": [], "tables": sorted(tables), "files": []}
    (folder / "result.json").write_text(json.dumps({**about, **scalars, **names}))
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)


@pytest.fixture
def stored() -> Callable[..., None]:
    """``put``."""
    return put
