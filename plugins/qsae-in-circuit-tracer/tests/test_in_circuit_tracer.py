"""Transcoders that were trained and packed here, served to circuit-tracer in an environment of its own."""

from __future__ import annotations

import pathlib
import shutil

import pytest
import qsae_data_lm
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.conformance import peer

pytestmark = [pytest.mark.peer, pytest.mark.slow]
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
BUILTIN = pathlib.Path(qsae_data_lm.__file__).parent / "builtin"
TRAIN = (
    "--steps 8 --context 64 --buffer-tokens 2048 --batch-size 256 --statistics-tokens 512 --eval-tokens 256 "
    "--eval-every 0 --threads 1 --eval reconstruction --no-compare-float"
)
PLACES = "--source-site mlp_in --target-site mlp_out"
PER_LAYER = f"--transcoder transcoder --per-layer --n-latents 128 --layers 0-4 {PLACES}"
ACROSS = f"--transcoder cross-layer-transcoder --n-latents 640 --layers 0-4 {PLACES}"
FOUR_BITS = (
    "--quantizer ste --quantizer.n-bits 4 --encoder-quantizer ste --encoder-quantizer.n-bits 4 "
    "--sparsity batchtopk --k 8"
)
SERVED = {
    "four-bits": f"{PER_LAYER} {FOUR_BITS}",
    "skip": f"{PER_LAYER} {FOUR_BITS} --skip",
    "nested": f"{PER_LAYER} {FOUR_BITS}".replace(
        "--transcoder transcoder", "--transcoder matryoshka-transcoder"
    ),
    "thresholds": f"{PER_LAYER} --activation jumprelu --sparsity l0 --quantizer ste --grid ternary",
    "floats": f"{PER_LAYER} --sparsity batchtopk --k 8",
    "across": f"{ACROSS} {FOUR_BITS}",
    # no files of circuit-tracer's hold these
    "topk": f"{PER_LAYER} --sparsity topk --k 8 --quantizer ste --grid ternary",
    "few-levels": f"{PER_LAYER} {FOUR_BITS} --code-quantizer ste",
    "across-skip": f"{ACROSS} {FOUR_BITS} --skip",
}
IN_FLOATS = ("four-bits", "skip", "nested", "thresholds", "floats", "across")
REFUSED = {
    "sae": ("--sae topk --k 8 --per-layer --n-latents 128 --layers 0-1 --site mlp_in", "it is an SAE"),
    "not-from-the-first": (PER_LAYER.replace("0-4", "1-2"), "are of 1, 2"),
    "several-places": (PER_LAYER.replace("mlp_in", "attn_out").replace("0-4", "0-1"), "feature_input_hook"),
    "a-single-one": (
        "--transcoder transcoder --n-latents 128 --source-layer 2 --target-layer 2 " + PLACES,
        "neither one of each layer nor a cross-layer transcoder",
    ),
    "bits": (f"{PER_LAYER} --activation step --sparsity topk --k 8", "activation 'step'"),
}


@pytest.fixture(scope="session")
def run_there(tmp_path_factory):
    """Runs a script by the Python of an environment with circuit-tracer, which finds qsae and its plugins
    here."""
    there = peer("circuit-tracer").finding(tmp_path_factory.mktemp("site"), paths=[HERE.parent])
    return lambda script, *arguments: there.run(HERE / script, *arguments)


def called(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


def trained(options, case, results):
    """The run's folder; its coders are at CASE/stored."""
    called(*f"train {options} {TRAIN} --name {case.name} --out {results}".split())
    (run,) = (results / case.name).glob("*/*")
    shutil.copytree(run / "checkpoints" / "final", case / "stored")
    return run


def test_circuit_tracer_serves_packed_transcoders(run_there, tmp_path):
    cases, results = tmp_path / "cases", tmp_path / "results"
    for name, options in SERVED.items():
        run = trained(options, cases / "served" / name, results)
        if name in IN_FLOATS:
            out = cases / "served" / name / "floats"
            called("export", run, "--format", "circuit-tracer", "--out", out)
    for name, (options, says) in REFUSED.items():
        trained(options, cases / "refused" / name, results)
        (cases / "refused" / name / "says").write_text(says)
    lines = run_there("in_circuit_tracer.py", cases, BUILTIN).splitlines()
    assert len(lines) == len(SERVED) + len(REFUSED)
