"""Coders that were trained and packed here, evaluated by SAEBench in an environment of its own."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
import qsae_data_lm

from qsae_core.conformance import peer

pytestmark = pytest.mark.peer
HERE = pathlib.Path(__file__).parent
SWITCHES = {"HF_HUB_OFFLINE": "1", "JAXTYPING_DISABLE": "1"}
"""No network is asked; and SAEBench 0.6.0's checks of its own types are off, of which one fails in its
``sparse_probing`` with newer releases of beartype, whatever the SAE is."""
MODEL = pathlib.Path(qsae_data_lm.__file__).with_name("builtin")
PROBES_BY = ("sklearn", "joblib", "threadpoolctl")
"""What SAEBench's sparse probing needs, and the benchmarks' environment may lack."""
TRAIN = (
    "--steps 30 --batch-size 512 --eval-tokens 256 --eval-every 0 --statistics-tokens 512 --threads 1 "
    "--eval reconstruction --no-compare-float --n-latents 512"
)
CODERS = {
    "ternary": "--sae ternary --quantizer ste --k 16",  # a TopK, which SAELens cannot fold in floats
    "batchtopk": "--sae batchtopk --k 16 --quantizer ste --n-bits 4",
    "levels": "--sae residual-quantized",  # without a matrix of an encoder
    "transcoder": "--transcoder transcoder --source-layer 2 --target-layer 2",
}
IN_FLOATS = ("ternary", "batchtopk")
ALIKE = {
    "reconstruction_quality.cossim": "reconstruction.cosine",
    "shrinkage.l2_norm_in": "reconstruction.l2_norm_in",
    "shrinkage.l2_norm_out": "reconstruction.l2_norm_out",
    "shrinkage.l2_ratio": "reconstruction.l2_ratio",
    "sparsity.l0": "sparsity.l0",
    "sparsity.l1": "sparsity.l1",
    "misc_metrics.freq_over_1_percent": "sparsity.density_over_1pct",
    "misc_metrics.freq_over_10_percent": "sparsity.density_over_10pct",
    "misc_metrics.normalized_freq_over_1_percent": "sparsity.normalized_density_over_1pct",
    "misc_metrics.normalized_freq_over_10_percent": "sparsity.normalized_density_over_10pct",
    "misc_metrics.average_max_decoder_cosine_sim": "similarity.average_max_decoder_cosine_sim",
}
"""What ``core`` measures -> what is the same here; l1 because latents are those of atoms of norm 1."""


@pytest.fixture
def saebench(finding_qsae):
    """Peer with SAEBench, and with what its probes need."""
    found = peer("sae-bench")
    lacking = [module for module in PROBES_BY if found.lacks(module)]
    if lacking and not found.runs_what_is_compiled_here():
        pytest.skip(
            f"the environment sae-bench lacks {' and '.join(lacking)}: pip install scikit-learn there"
        )
    return finding_qsae("sae-bench", lacking)


def test_saebench_evaluates_packed_coders(saebench, qsae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, options in CODERS.items():
        qsae(*f"train {options} {TRAIN} --name {name}".split())
        (run,) = (tmp_path / "results" / name).glob("*/*")
        case = tmp_path / "cases" / name
        shutil.copytree(run / "checkpoints" / "final", case / "stored")
        qsae("export", run, "--format", "saelens-packed", "--out", case / "packed")
        if name in IN_FLOATS:
            qsae("export", run, "--format", "saelens", "--out", case / "floats")
    here = tmp_path / "saebench"
    here.mkdir()
    said = saebench.run(HERE / "in_saebench.py", tmp_path / "cases", MODEL, cwd=here, variables=SWITCHES)
    assert {line.partition(":")[0] for line in said.splitlines()} >= set(CODERS)
    for name in IN_FLOATS:
        stored = tmp_path / "cases" / name / "stored"
        data = f"--data tensors --data-path {here / name}.safetensors"
        evaluations = "--eval reconstruction --eval sparsity --eval similarity --json"
        found = json.loads(qsae(*f"evaluate {stored} {data} {evaluations}".split()))["evaluations"]
        (file,) = (here / "core").glob(f"{name}_custom_sae_eval_results.json")
        theirs = json.loads(file.read_text())["eval_result_metrics"]
        for asked, here_called in ALIKE.items():
            assert at(theirs, asked) == pytest.approx(at(found, here_called), rel=1e-5), asked
        assert theirs["misc_metrics"]["frac_alive"] == pytest.approx(1 - found["sparsity"]["dead_fraction"])


def at(values, name):
    group, _, key = name.partition(".")
    return values[group][key]
