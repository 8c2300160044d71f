"""Which Pythons this machine has, and a torch for them without CUDA."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

from distributions import ROOT

MINORS = range(10, 14)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NEED_TORCH = ("accelerate", "bitsandbytes", "datasets", "gguf", "transformers")
"""Without torch these are of no use, or would bring their own."""


def interpreters() -> dict[int, str | None]:
    """Minor version -> a working interpreter or None, without the one that runs this."""
    found: dict[int, str | None] = {}
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    for minor in MINORS:
        on_path = shutil.which(f"python3.{minor}")
        places = [on_path, *map(str, sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python")))]
        code = "import sys, venv, ensurepip; print(sys.version_info[1])"
        found[minor] = None
        for place in filter(None, places):
            done = subprocess.run([place, "-c", code], capture_output=True, text=True, check=False)
            if done.stdout.strip() == str(minor):
                found[minor] = place
                break
    found.pop(sys.version_info[1], None)
    return found


def cpu_torch(minor: int, requirement: str) -> list[str] | None:
    """pip's arguments for a torch without CUDA on that Python; None where pip finds none. Downloads none."""
    for index in ([], ["--index-url", CPU_INDEX]):
        asked = [requirement, "--no-deps", *index]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--python-version", f"3.{minor}", "--only-binary=:all:", "--target", "unused"]
        command += ["--retries", "1", "--timeout", "30", "--report", "-", *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        text = done.stdout[done.stdout.find("{") :]
        urls = (
            [i["download_info"]["url"] for i in json.loads(text)["install"]] if done.returncode == 0 else []
        )
        if urls and (sys.platform != "linux" or "cpu" in urls[0].rsplit("/", 1)[-1].split("-")[1]):
            return [requirement, *index]
    return None


def newest_torch() -> str:
    """The torch that `make setup` installs."""
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").strip()
