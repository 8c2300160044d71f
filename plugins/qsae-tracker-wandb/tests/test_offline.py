"""A real run with ``--tracker wandb``: its files lie in the run's folder, and nothing is sent anywhere."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import threading

from qsae_core import Run

WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = arguments[1] if event == "socket.connect" else arguments[0]
        with open(os.environ["PLACES"], "a") as places:
            places.write(f"{place!r}\\n")

sys.addaudithook(watch)
"""
"""As ``sitecustomize``: every place that a Python process looks up or connects to."""
TRAIN = """
train --sae topk --data synthetic --preset tiny --n-latents 64 --steps 4 --batch-size 16 --log-every 2
--statistics-tokens 64 --eval-tokens 64 --eval-every 0 --threads 1 --name mine --tracker wandb
"""


class Proxy(threading.Thread):
    """What wandb's own service, a program that is not Python, would have to go through; counts who comes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.came: list[bytes] = []

    def run(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                connection.settimeout(5)
                self.came.append(connection.recv(4096))


def test_a_run_stays_in_its_folder_and_opens_no_connection(tmp_path, written):
    proxy = Proxy()
    proxy.start()
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    here = tmp_path / "here"
    here.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"PYTHONPATH": str(tmp_path), "PLACES": str(tmp_path / "places.txt"), "OMP_NUM_THREADS": "1"}
    env |= {f"WANDB_{kind}_DIR": str(tmp_path / "wandb-own") for kind in ("CACHE", "CONFIG", "DATA")}
    env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy.url)
    code = "from qsae_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *TRAIN.split()],
        cwd=here,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in here.iterdir()] == ["results"]

    (theirs,) = written(Run(here / "results" / "mine" / "synthetic" / "4"))
    assert list(theirs.steps) == [2, 4]
    assert theirs.steps[4]["loss"] > 0
    assert theirs.summary["final/reconstruction/fvu"] > 0
    assert theirs.config["sae"]["n_latents"] == 64
    assert theirs.exit_code == 0

    places = [ast.literal_eval(line) for line in (tmp_path / "places.txt").read_text().splitlines()]
    assert places, "wandb's own service is reached by a socket"
    assert [place for place in places if not str(place).startswith(("/", "b'/"))] == []
    assert proxy.came == []
