"""Coders that were trained and packed here, served by SAELens in an environment of its own."""

from __future__ import annotations

import pathlib
import shutil

import pytest

pytestmark = pytest.mark.peer
HERE = pathlib.Path(__file__).parent
TRAIN = (
    "--steps 4 --batch-size 128 --eval-tokens 256 --eval-every 0 --statistics-tokens 256 --threads 1 "
    "--eval reconstruction --no-compare-float --n-latents 256"
)
CODERS = {
    "ternary": "--sae ternary --quantizer ste --k 8",
    "four-bits": "--sae topk --k 8 --quantizer ste --quantizer.n-bits 4 --encoder-quantizer ste "
    "--encoder-quantizer.n-bits 4",
    "gated": "--sae gated --quantizer ste --n-bits 4",
    "batchtopk": "--sae batchtopk --k 8 --quantizer ste --n-bits 3",
    "levels": "--sae residual-quantized",  # no form in floats
    "skip": "--transcoder transcoder --skip --source-layer 2 --target-layer 2 --quantizer ste --n-bits 4",
}


def test_saelens_serves_packed_coders(finding_qsae, qsae, tmp_path, monkeypatch):
    saelens = finding_qsae("sae-lens")
    monkeypatch.chdir(tmp_path)
    for name, options in CODERS.items():
        qsae(*f"train {options} {TRAIN} --name {name}".split())
        (run,) = (tmp_path / "results" / name).glob("*/*")
        shutil.copytree(run / "checkpoints" / "final", tmp_path / "cases" / name / "stored")
        qsae("export", run, "--format", "saelens-packed", "--out", tmp_path / "cases" / name / "packed")
    said = saelens.run(HERE / "in_saelens.py", tmp_path / "cases")
    assert len(said.splitlines()) == len(CODERS)
