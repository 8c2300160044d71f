"""SAEDashboard in an environment of its own: its classes read what is written, and its runner, on the same
SAE and the same tokens, says the same."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import pytest
import qsae_data_lm
from qsae_samples import Samples
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from agreement import Agreement

pytestmark = pytest.mark.peer
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
MODEL = pathlib.Path(qsae_data_lm.__file__).with_name("builtin")
SAES = {
    "relu": ("saelens", "--sae", "vanilla"),
    "jumprelu": ("saelens", "--sae", "batchtopk", "--k", "6"),
    "packed": ("saelens-packed", "--sae", "topk", "--k", "6", "--quantizer", "ste", "--n-bits", "4"),
}


@pytest.fixture(scope="session")
def peer(tmp_path_factory):
    """Runs the script by the Python of an environment with sae-dashboard, which finds qsae, its plugins and
    qsae-in-saelens here, as if pip had installed them."""
    folder = pathlib.Path(os.environ.get("QSAE_BENCH_PEERS", "no folder"))
    python = folder / "sae-dashboard" / "bin" / "python"
    if not python.exists():
        pytest.skip("QSAE_BENCH_PEERS names no folder with an environment sae-dashboard")
    site, sources = tmp_path_factory.mktemp("site"), [ROOT, *sorted(ROOT.glob("plugins/qsae-*"))]
    for found in importlib.metadata.distributions():
        if found.name == "qsae" or (ROOT / "plugins" / found.name).is_dir():
            record = site / f"{found.name.replace('-', '_')}-{found.version}.dist-info"
            record.mkdir(exist_ok=True)
            (record / "METADATA").write_text(found.read_text("METADATA") or found.read_text("PKG-INFO"))
            (record / "entry_points.txt").write_text(found.read_text("entry_points.txt") or "")
    pluggy = pathlib.Path(importlib.util.find_spec("pluggy").origin).parent  # sae-lens brings the rest
    shutil.copytree(pluggy, site / "pluggy")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [site, *sources]))}

    def run(*arguments, cwd):
        command = [str(python), str(HERE / "in_sae_dashboard.py"), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.parametrize("kind", SAES)
def test_its_runner_says_the_same(peer, sampled, qsae, tmp_path, kind):
    form, *options = SAES[kind]
    run, ids, documents = sampled(kind, *options, "--layer", "2")
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "ours", "--latents-per-file", "40")
    read = peer("read", tmp_path / "ours", cwd=tmp_path)
    assert read.splitlines() == [f"batch-{number}.json 32" for number in range(3)]
    qsae("export", run, "--format", form, "--out", tmp_path / "sae")
    save_file({"tokens": ids}, tmp_path / "tokens.safetensors")
    (tmp_path / "theirs").mkdir()
    peer("run", tmp_path / "sae", MODEL, tmp_path / "tokens.safetensors", tmp_path / "theirs", cwd=tmp_path)
    names = json.loads((tmp_path / "theirs" / "vocabulary.json").read_text(encoding="utf-8"))
    vocabulary = {int(token): name for token, name in names.items()}
    found = Agreement(tmp_path / "ours", tmp_path / "theirs", Samples.load(run), ids, documents, vocabulary)
    found.check()
    assert min(found.seen.values()) > 150, found.seen
    assert statistics.median(found.apart) < 0.06  # few magnitudes, in a text that repeats itself
