"""SAEDashboard in an environment of its own: its classes read what is written, and its runner, on the same
SAE and the same tokens, says the same."""

from __future__ import annotations

import json
import pathlib
import statistics
import sys

import pytest
import qsae_data_lm
from qsae_samples import Samples
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from agreement import Agreement

from qsae_core.conformance import peer

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
def run_there(tmp_path_factory):
    """Runs the script by the Python of an environment with sae-dashboard, which finds qsae, its plugins and
    qsae-in-saelens here, as if pip had installed them."""
    found = peer("sae-dashboard")
    there = found.finding(tmp_path_factory.mktemp("site"), paths=[ROOT / "plugins" / "qsae-in-saelens"])
    return lambda *arguments, cwd: there.run(HERE / "in_sae_dashboard.py", *arguments, cwd=cwd)


@pytest.mark.parametrize("kind", SAES)
def test_its_runner_says_the_same(run_there, sampled, qsae, tmp_path, kind):
    form, *options = SAES[kind]
    run, ids, documents = sampled(kind, *options, "--layer", "2")
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "ours", "--latents-per-file", "40")
    read = run_there("read", tmp_path / "ours", cwd=tmp_path)
    assert read.splitlines() == [f"batch-{number}.json 32" for number in range(3)]
    qsae("export", run, "--format", form, "--out", tmp_path / "sae")
    save_file({"tokens": ids}, tmp_path / "tokens.safetensors")
    (tmp_path / "theirs").mkdir()
    run_there(
        "run", tmp_path / "sae", MODEL, tmp_path / "tokens.safetensors", tmp_path / "theirs", cwd=tmp_path
    )
    names = json.loads((tmp_path / "theirs" / "vocabulary.json").read_text(encoding="utf-8"))
    vocabulary = {int(token): name for token, name in names.items()}
    found = Agreement(tmp_path / "ours", tmp_path / "theirs", Samples.load(run), ids, documents, vocabulary)
    found.check()
    assert min(found.seen.values()) > 150, found.seen
    assert statistics.median(found.apart) < 0.06  # few magnitudes, in a text that repeats itself
