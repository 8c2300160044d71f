"""A hub on this machine, runs to push there, and the command line; huggingface_hub is pointed at that hub."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

spec = importlib.util.spec_from_file_location("hub_server", pathlib.Path(__file__).with_name("hub_server.py"))
hub_server = sys.modules["hub_server"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)

FEW = (
    "--n-latents 32 --k 4 --data synthetic --preset tiny --steps 4 --batch-size 64 --threads 1 "
    "--eval-tokens 128 --eval-every 0 --statistics-tokens 64 --eval reconstruction"
)


def call(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="session")
def qsae() -> Callable[..., Any]:
    """The command line; its exit code has to be ``code``."""
    return call


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Of a ternary SAE, with its float twin, its masters and a state to resume from."""
    out = tmp_path_factory.mktemp("run")
    more = "--sae ternary --save-float --checkpoint-every 2 --name mine"
    call("train", *more.split(), *FEW.split(), "--out", out)
    return out / "mine" / "synthetic" / "4"


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Of a TopK SAE in full precision."""
    out = tmp_path_factory.mktemp("other")
    call("train", "--sae", "topk", "--name", "other", *FEW.split(), "--out", out)
    return out / "other" / "synthetic" / "4"


@pytest.fixture(scope="session")
def each(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Of a TopK SAE for each of two layers."""
    out = tmp_path_factory.mktemp("each")
    call("train", "--sae", "topk", "--set", "data.layers=2", "--per-layer", *FEW.split(), "--out", out)
    (config,) = out.rglob("config.json")
    return config.parent


@pytest.fixture
def hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty hub, whose owner is logged in, and an empty cache; the working directory is empty too."""
    from huggingface_hub import constants

    with hub_server.running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub_server.OWNER)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield server


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets HF_HUB_OFFLINE, as huggingface_hub has it once it is imported."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def process(hub: Any, tmp_path: pathlib.Path) -> Callable[..., subprocess.Popen[str]]:
    """Python code in a process of its own, which knows the hub by HF_ENDPOINT alone."""

    def started(code: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **own, "OMP_NUM_THREADS": "1", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started
