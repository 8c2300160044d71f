"""``qsae quantize`` on a small real run."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact.places import artifact_folder
from qsae_core.quantization.calibrated import take_floats
from qsae_core.quantization.spaces import rotate_coder
from qsae_core.results.files import read_json

TRAIN = (
    "train --sae topk --n-latents 128 --k 4 --data synthetic --preset tiny --steps 150 --batch-size 256 "
    "--eval-tokens 4096 --eval-every 0 --statistics-tokens 512 --threads 1 --eval reconstruction --out"
)
INCREASE = r"increase of fvu: (-?[0-9.]+) measured, ([0-9.]+) predicted \(kappa D\)"


def qsae(line, *arguments):
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def refused(line, *arguments):
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, arguments)])
    assert result.exit_code != 0
    return result.output + str(result.exception)


def fvu(summary):
    return summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    qsae(TRAIN, out)
    return next(out.rglob("metrics.json")).parent


@pytest.fixture(scope="module")
def rounded(trained, tmp_path_factory):
    """The run at two bits a weight."""
    out = tmp_path_factory.mktemp("quantized")
    qsae("quantize --quantizer rtn --n-bits 2 --tokens 2048 --out", out, trained)
    return next(out.rglob("metrics.json")).parent


def test_what_it_writes_is_read_like_any_run(trained, rounded):
    before, after = (fvu(read_json(run / "metrics.json")) for run in (trained, rounded))
    assert before < after < before + 0.3
    coder = qsae_core.load(rounded)
    assert coder.is_quantized
    assert bool(coder.norm_in.rotated)
    again = json.loads(qsae("evaluate --json", rounded).stdout)
    assert again["evaluations"]["reconstruction"]["fvu"] == pytest.approx(after)
    listed = json.loads(qsae("runs --json --out", rounded.parents[2]).stdout)
    assert [(entry["status"], entry["quantizer"]) for entry in listed] == [("finished", "rtn")]
    sizes = [sum(f.stat().st_size for f in artifact_folder(run).iterdir()) for run in (trained, rounded)]
    assert sizes[1] < sizes[0]


def test_it_says_what_it_cost(trained, tmp_path):
    text = qsae("quantize --quantizer rtn --n-bits 4 --tokens 1024 --out", tmp_path, trained).output
    before = fvu(read_json(trained / "metrics.json"))
    assert f"fvu: {before:.4f} before" in text
    assert "artifact: " in text
    measured, predicted = map(float, re.search(INCREASE, text).groups())
    values = read_json(next(tmp_path.rglob("metrics.json")))["coders"]["coder"]["evaluations"][
        "reconstruction"
    ]
    assert measured == pytest.approx(values["fvu"] - before, abs=6e-5)
    assert predicted == pytest.approx(values["predicted_delta_fvu"], abs=6e-5)


@pytest.mark.parametrize(
    "slot", ["code-quantizer ste", "encoder-quantizer rtn", "quantizer rtn --quantizer.n-bits 8"]
)
def test_kappa_predicts_only_where_the_decoder_is_rounded(trained, tmp_path, slot):
    text = qsae(f"quantize --{slot} --tokens 256 --out", tmp_path, trained).output
    assert ("predicted" in text) is slot.startswith("quantizer")
    run = next(tmp_path.rglob("metrics.json")).parent
    (row,) = json.loads(qsae("compare --json", run).stdout)
    assert (row["mean"]["predicted_delta_fvu_points"] is not None) is slot.startswith("quantizer")


def test_gptq_and_fine_tuning_give_back_some_of_it(trained, rounded, tmp_path):
    found = [fvu(read_json(rounded / "metrics.json"))]
    for number, more in enumerate(("", "--finetune encoder --finetune-steps 60")):
        out = tmp_path / str(number)
        line = f"quantize --json --quantizer gptq --n-bits 2 --tokens 4096 {more} --out"
        found.append(fvu(json.loads(qsae(line, out, trained).stdout)))
    assert found[1] < found[0]
    assert found[2] < found[1]


def test_rounds_and_quantizers_of_everything(trained, tmp_path):
    """Codes and encoder too, two rounds, unrotated; and the comparison reads it."""
    line = (
        "quantize --quantizer gptq --quantizer.n-bits 4 --encoder-quantizer rtn --encoder-quantizer.n-bits 4 "
        "--code-quantizer ste --code-quantizer.n-bits 6 --no-rotate --alternate 2 --finetune-steps 20 "
        "--tokens 2048 --name all --out"
    )
    qsae(line, tmp_path, trained)
    run = next(tmp_path.rglob("metrics.json")).parent
    assert run.name == "40"
    coder = qsae_core.load(run)
    assert not bool(coder.norm_in.rotated)
    bits = read_json(run / "metrics.json")["coders"]["coder"]["artifact"]["bits_per_weight"]
    assert 4 < bits["W_enc"] < 5
    assert 4 < bits["W_dec"] < 5
    x = torch.randn(50, coder.shape.d_in)
    assert coder.code_levels(coder.encode(x)).max() < 64
    table = json.loads(qsae("compare --json", trained, run).stdout)
    assert len(table["rows"] if isinstance(table, dict) else table) == 2


def test_rotating_a_trained_coder_leaves_what_it_computes(trained):
    source = qsae_core.load(trained)
    turned = type(source)(source.config, source.shape, source.parts)
    take_floats(turned, source)
    x = 3 * torch.randn(200, source.shape.d_in)
    assert torch.equal(turned(x), source(x))
    rotate_coder(turned)
    assert bool(turned.norm_in.rotated)
    torch.testing.assert_close(turned(x), source(x), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(turned.atoms(), source.atoms(), atol=1e-5, rtol=1e-4)


def test_masters_that_were_kept_are_quantized_anew(trained, tmp_path):
    ways = [
        "--quantizer ste --encoder-quantizer ste --quantizer.n-bits 1 --encoder-quantizer.n-bits 4",
        "--quantizer lsq",
    ]
    for number, quantizers in enumerate(ways):
        qsae(f"{TRAIN} {tmp_path}/{number} --save-float --no-compare-float {quantizers}")
        packed = next((tmp_path / str(number)).rglob("metrics.json")).parent
        qsae(
            f"quantize --quantizer rtn --n-bits 8 --tokens 2048 --no-rotate --out {tmp_path}/8bit{number}",
            packed,
        )
        again = next((tmp_path / f"8bit{number}").rglob("metrics.json")).parent
        kept = load_file(artifact_folder(packed) / "masters.safetensors")
        coder = qsae_core.load(again)
        assert torch.equal(coder.W_enc(), kept["W_enc.weight"])
        assert torch.equal(coder.b_enc, kept["b_enc"])
        torch.testing.assert_close(coder.W_dec(), kept["W_dec.weight"], atol=3e-3, rtol=0)


def test_what_is_refused(trained, rounded):
    assert "quantized already" in refused("quantize --quantizer rtn --out x", rounded)
    assert "no quantizer is chosen" in refused("quantize", trained)
    assert "rtm" in refused("quantize --quantizer rtm", trained)
    taken = refused("quantize --quantizer rtn --n-bits 2 --out", rounded.parents[2], trained)
    assert "--overwrite" in taken


def test_data_that_has_moved_is_given_its_new_place(tmp_path):
    torch.manual_seed(0)
    torch.save(torch.randn(2048, 16), tmp_path / "before.pt")
    line = "train --sae topk --n-latents 64 --k 4 --steps 5 --batch-size 64 --eval-every 0 --eval-tokens 128"
    line += " --statistics-tokens 128 --threads 1 --no-compare-float --name float --data-path"
    qsae(line, tmp_path / "before.pt", "--out", tmp_path / "runs")
    run = next((tmp_path / "runs").rglob("metrics.json")).parent
    (tmp_path / "before.pt").rename(tmp_path / "after.pt")
    line = f"quantize --quantizer rtn --tokens 512 --out {tmp_path / 'quantized'}"
    assert "--data-path" in refused(line, run)
    qsae(line, run, "--data-path", tmp_path / "after.pt")
    assert len(list((tmp_path / "quantized").rglob("coder.safetensors"))) == 1
    torch.save(torch.randn(512, 12), tmp_path / "narrow.pt")
    for other in (("--data-path", tmp_path / "narrow.pt"), ("--data", "synthetic")):
        assert "the data does not fit the coder" in refused(line, run, "--overwrite", *other)


def test_an_option_of_the_coder_is_not_offered(trained):
    said = refused("quantize --quantizer rtn --k 3", trained)
    assert "--k is an option of sparsity" in said
    assert "which this command does not change" in said
    assert "add --sparsity" not in said
