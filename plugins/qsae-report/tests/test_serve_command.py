"""``qsae report --serve`` as a user runs it: what it prints, how it ends, what keeps it from beginning."""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from qsae_report import serve
from qsae_report.serve.serving import Server

from qsae_cli.main import cli
from qsae_core.errors import ConfigError

TRAINED = """train --sae topk --n-latents 64 --k 8 --steps 20 --batch-size 256 --eval-tokens 256 --threads 1
    --eval reconstruction --name x"""
OF_TEXT = "--data lm --model builtin --context 64 --buffer-tokens 1024 --layer 1"
OF_NO_TEXT = "--data synthetic --preset tiny"


def train(folder: Path, data: str) -> Path:
    result = CliRunner().invoke(cli, [*TRAINED.split(), *data.split(), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    (run,) = folder.glob("x/*/*")
    return run


def interruptible() -> None:
    """So that Ctrl-C reaches it, also where the tests run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_it_is_served_until_it_is_interrupted(tmp_path) -> None:
    run = train(tmp_path, OF_TEXT)
    command = ["report", str(run), "--without-samples", "--serve", "--device", "cpu"]
    started = subprocess.Popen(
        [sys.executable, "-c", "from qsae_cli.main import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    assert started.stdout is not None
    line = started.stdout.readline()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends it\)\n", line)
    assert found is not None, line + started.communicate()[1]
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    assert "connect-src 'self'" in page
    assert 'data-view="try"' in page
    body = json.dumps({"prompt": "def", "max_new_tokens": 3})
    connection.request("POST", "/api/steer", body, {"Content-Type": "application/json"})
    assert json.loads(connection.getresponse().read())["steered"]
    started.send_signal(signal.SIGINT)
    out, error = started.communicate(timeout=60)
    said = "making the page ...\nloading the coder and its language model ...\n"
    assert (started.returncode, out, error) == (0, "ended\n", said)


def test_a_port_that_is_in_use(tmp_path) -> None:
    with Server(0) as server, pytest.raises(ConfigError) as caught:
        serve.run(tmp_path, lambda: "", port=server.server_port)
    assert f"port {server.server_port} cannot be had: Address already in use" in str(caught.value)
    assert caught.value.next == "--port 0"


def test_a_port_that_is_none(tmp_path) -> None:
    with pytest.raises(ConfigError, match="port 70000 cannot be had"):
        serve.run(tmp_path, lambda: "", port=70000)


def test_what_is_not_installed_is_named(tmp_path, monkeypatch) -> None:
    there = importlib.util.find_spec("json")
    found = {"qsae_splice": None, "qsae_data_lm": there}
    monkeypatch.setattr(importlib.util, "find_spec", found.get)
    with pytest.raises(ConfigError, match="qsae-splice must be installed") as caught:
        serve.run(tmp_path, lambda: "", port=0)
    assert caught.value.next == "pip install 'qsae-report[serve]'"


def test_a_coder_without_a_language_model(tmp_path) -> None:
    run = train(tmp_path, OF_NO_TEXT)
    result = CliRunner().invoke(cli, ["report", str(run), "--without-samples", "--serve"])
    assert result.exit_code == 2
    assert "there is no language model behind the data" in result.output
    assert "without --serve" in result.output
