"""The benchmark that takes over SAEs of other libraries: what is saved where, what is kept, and its page."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks import existing_libraries
from benchmarks.existing_commands import bytes_of
from benchmarks.kept import keep
from benchmarks.pages import existing_saes as page
from benchmarks.peers.training import Spec

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDE = """
import pathlib, sys
sys.path.insert(0, {peers!r})
import torch
from training import Trained, main

def train(spec, attempt):
    if spec.save is not None:
        pathlib.Path(spec.save).mkdir(parents=True)
        pathlib.Path(spec.save, "saved").write_text(str(attempt["lr"]))
    return Trained(lambda x: (x, x), torch.eye(spec.d))

main(train, "torch")
"""


@pytest.mark.parametrize("save", [True, False])
def test_each_attempt_is_saved_in_a_folder_of_its_own(tmp_path: pathlib.Path, save: bool) -> None:
    script, rows, folder = tmp_path / "side.py", tmp_path / "rows.npy", tmp_path / "saved"
    script.write_text(SIDE.format(peers=str(ROOT / "benchmarks" / "peers")))
    np.save(rows, np.ones((4, 3), dtype=np.float32))
    attempts = [{"lr": 0.5}, {"lr": 0.25}]
    where = str(folder) if save else None
    spec = Spec(str(tmp_path / "out.json"), str(rows), str(rows), 2, 3, 1, 0, 1, attempts, save=where)
    subprocess.run([sys.executable, str(script), json.dumps(spec._asdict())], check=True)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("saved")}
    assert found == ({"0/saved": "0.5", "1/saved": "0.25"} if save else {})


def test_a_record_is_measured_again_where_what_it_is_of_is_gone(tmp_path: pathlib.Path) -> None:
    numbers = iter(range(9))

    def measure() -> dict[str, Any]:
        return {"number": next(numbers)}

    assert keep(tmp_path, "a", measure) == keep(tmp_path, "a", measure) == {"number": 0}
    assert keep(tmp_path, "b", measure) == {"number": 1}
    assert keep(tmp_path, "a", measure, again=True) == keep(tmp_path, "a", measure) == {"number": 2}
    assert keep(tmp_path, "c", lambda: {"error": "no memory"}) == {"error": "no memory"}
    assert keep(tmp_path, "c", measure) == {"number": 3}


def test_bytes_are_those_of_all_files_of_a_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "inner" / "b").write_bytes(b"123")
    assert bytes_of(tmp_path) == 8


def test_four_bits_fit_into_an_eighth() -> None:
    """F = 4096, d = 576: weights, a bfloat16 scale per row, a byte per row for `mixed`, 20 kB of all else."""
    four = next(width for width in existing_libraries.WIDTHS if width.bits == 4)
    rows, columns = 4096, 576
    decoder = rows * (columns * four.decoder_bits / 8 + 2 + 1)
    encoder = rows * (columns * four.encoder_bits / 8 + 2)
    biases = 4 * (rows + columns)
    assert decoder + encoder + biases + 20_000 < (2 * 4 * rows * columns + biases) / 8


# --- the page


def evaluations(**values: dict[str, float]) -> dict[str, Any]:
    return {"evaluations": {"evaluations": {name.replace("_", "-"): v for name, v in values.items()}}}


def call(command: str, output: str = "") -> dict[str, Any]:
    return {"command": command, "output": output, "notes": []}


def width(bits: int, fvu: float, delta: float, survived: float) -> dict[str, Any]:
    measured = evaluations(
        loss_recovered={"delta_ce": delta}, quantization_error={"survived_share": survived}
    )
    return {
        "bits": bits,
        "quantizer": "mixed",
        "decoder_bits": bits,
        "encoder_bits": bits,
        "bytes": 100 * bits,
        "fvu": {"news": fvu, "code": 2 * fvu},
        "by_saelens": {**call("qsae export four"), "bytes": 90 * bits, "fvu": {"news": fvu + 0.0001}},
        "evaluate": "qsae evaluate four",
        **call(f"qsae quantize --n-bits {bits}", "artifact: results/x\n"),
        **measured,
    }


RECORD = {
    "library": "sparsify",
    "form": "sparsify",
    "fvu": {"news": 0.2, "code": 0.41},
    "imported": {
        **call("qsae import eai-sparsify/0", "topk: 4,096 latents\n"),
        "export": call("qsae export imported"),
        "files": {"cfg.json": 200, "sae.safetensors": 3000},
        "same_bytes": {"cfg.json": False, "sae.safetensors": True},
        "bytes": 3200,
    },
    "original": {
        "fvu": {"news": 0.200001, "code": 0.41},
        **evaluations(loss_recovered={"delta_ce": 0.25, "n_tokens": 4000, "ce_clean": 2.5}),
    },
    "widths": [width(8, 0.2, 0.25, 1.0), width(4, 0.2020, 0.26, 0.875)],
}
RESULT = {
    "d": 576,
    "n_latents": 4096,
    "k": 32,
    "batch_size": 1024,
    "steps": 100,
    "held_out": 16_384,
    "model": "small",
    "layer": 9,
    "contenders": [RECORD, {"library": "SAELens", "error": "no environment sae-lens"}],
}


def test_the_imported_coder_stands_beside_the_library_s_own() -> None:
    """0.202 - 0.200001 is 0.1999 points, and 400 of 3200 bytes are an eighth; SAELens reads 360 of them."""
    text = page._summary(RESULT)
    assert (
        "| sparsify | 0.200000 | 0.200001 | 1.0e-06 | 0.2020 | +0.20 | 0.1250 | 0.2021 | +0.21 | 0.1125 |"
        in text
    )
    assert "102,400 hidden states of small, layer 9" in text


def test_every_width_has_a_row_and_a_library_that_failed_its_reason() -> None:
    text = page._tables(RESULT)
    assert "| as its library has it | 3,200 | 1.00 | 0.2000 |  | 0.4100 |  |  |  |" in text
    assert "| imported | 3,200 | 1.00 | 0.2000 |  | 0.4100 |  | +0.2500 |  |" in text
    assert "| 4 bits | 400 | 8.00 | 0.2020 | +0.20 | 0.4040 | -0.60 | +0.2600 | 87.5% |" in text
    assert "Not driven: no environment sae-lens" in text


def test_files_that_come_back_otherwise_are_named() -> None:
    text = page._commands(RESULT)
    assert "* sparsify: `sae.safetensors`; not `cfg.json`" in text
    assert "$ qsae import eai-sparsify/0\ntopk: 4,096 latents\n" in text
    assert "$ qsae quantize --n-bits 4\nartifact: results/x\n" in text
    assert "packed as it is (360 bytes)" in text
