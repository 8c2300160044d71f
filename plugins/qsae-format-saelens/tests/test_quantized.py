"""A coder of SAELens, quantized on saved vectors: which vectors it is for stays as its file said."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_cli.main import cli

D, F, K = 8, 32, 4
FEW = "--tokens 256 --data tensors"
FOUR_BITS = "--quantizer rtn --quantizer.n-bits 4"


def called(line):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def quantized(path, vectors, more=FOUR_BITS):
    called(f"quantize {path} {more} --data-path {vectors} {FEW} --name q")
    return next(pathlib.Path("results/q").rglob("metrics.json")).parent


def source(folder):
    return json.loads((folder / "coder.json").read_text())["source"]


def theirs(folder, layer, dtype=torch.float32, width=D):
    """A TopK coder of GPT-2, as SAELens names it."""
    generator = torch.Generator().manual_seed(layer)
    sizes = {"W_enc": (width, F), "b_enc": (F,), "W_dec": (F, width), "b_dec": (width,)}
    tensors = {name: torch.randn(size, generator=generator).to(dtype) for name, size in sizes.items()}
    metadata = {
        "sae_lens_version": "6.54.12",
        "sae_lens_training_version": None,
        "model_name": "gpt2-small",
        "model_from_pretrained_kwargs": {"center_writing_weights": False},
        "hook_name": f"blocks.{layer}.hook_resid_post",
        "context_size": 64,
        "prepend_bos": False,
        "dataset_path": "a/text",
    }
    cfg = {
        "architecture": "topk",
        "d_in": width,
        "d_sae": F,
        "k": K,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": metadata,
    }
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(tensors, folder / "sae_weights.safetensors")
    return cfg


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """cfg.json of a coder in bfloat16, which is imported as ``ours``; ``states.pt`` is beside it."""
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(600, D, generator=torch.Generator().manual_seed(0)), "states.pt")
    cfg = theirs(pathlib.Path("theirs"), 9, torch.bfloat16)
    called("import theirs --out ours --eval reconstruction")
    return cfg


def test_cfg_stays_as_it_was(imported):
    run = quantized("ours", "states.pt")
    before, after = source(pathlib.Path("ours")), source(run / "checkpoints/final")
    assert after == before
    assert (after["model"], after["layer"]) == ("gpt2", "9")
    assert after["source_sites"] == after["target_sites"] == ["9.resid_post"]
    assert (after["context"], after["dataset"]) == (64, "a/text")
    called(f"export {run} --format saelens --out floats")
    called(f"export {run} --format saelens-packed --out packed")
    cfg, packed = (json.loads(pathlib.Path(name, "cfg.json").read_text()) for name in ("floats", "packed"))
    assert cfg == imported | {"dtype": "float32"}  # the steps of 4 bits are no numbers of bfloat16
    assert packed["metadata"] == imported["metadata"]


def test_what_it_was_calibrated_on_is_of_the_run(imported):
    run = quantized("ours", "states.pt")
    record = json.loads((run / "config.json").read_text())
    assert record["data"]["use"] == "tensors"
    assert record["data_record"]["rows"] == 600
    assert "rows" not in source(run / "checkpoints/final")
    summary = json.loads((run / "metrics.json").read_text())
    assert (summary["model"], summary["layer"]) == ("states", "tensors")


@pytest.mark.parametrize("more", ["", "--no-rotate", "--encoder-quantizer rtn --encoder-quantizer.n-bits 4"])
def test_a_coder_from_bfloat16_is_written_as_it_was_rounded(imported, more):
    run = quantized("ours", "states.pt", f"{FOUR_BITS} {more}")
    called(f"export {run} --format saelens --out floats")
    found = load_file("floats/sae_weights.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    coder = qsae_core.load(run)
    if more == "--no-rotate":
        assert torch.equal(found["W_dec"], coder.dictionary())
    x = torch.randn(50, D, generator=torch.Generator().manual_seed(3))
    W_enc, b_enc, W_dec, b_dec = (found[name].double() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    latents = ((x.double() - b_dec) @ W_enc + b_enc).relu()
    kept = latents * (latents >= latents.topk(K, dim=1).values[:, -1:])
    torch.testing.assert_close(coder(x).double(), kept @ W_dec + b_dec, rtol=1e-5, atol=1e-4)
    before = load_file("theirs/sae_weights.safetensors")["W_dec"].float()
    assert not torch.allclose(found["W_dec"], before, atol=1e-3)


def test_each_of_several_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(600, 2, D, generator=torch.Generator().manual_seed(0)), "states.pt")
    cfgs = [theirs(pathlib.Path("theirs", str(number)), layer) for number, layer in enumerate((3, 9))]
    called("import theirs --out ours --eval reconstruction")
    run = quantized("ours", "states.pt", f"{FOUR_BITS} --middle layers")
    for number, layer in enumerate(("3", "9")):
        own = source(run / "checkpoints/final" / str(number))
        assert own == source(pathlib.Path("ours", str(number)))
        assert (own["layer"], own["source_sites"]) == (layer, [f"{layer}.resid_post"])
    called(f"export {run} --format saelens --out floats")
    assert [json.loads(pathlib.Path(f"floats/{n}/cfg.json").read_text()) for n in range(2)] == cfgs


def test_a_model_that_is_named_later_is_read_where_the_files_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = theirs(pathlib.Path("theirs"), 1, width=256)
    del cfg["metadata"]["model_name"]
    pathlib.Path("theirs/cfg.json").write_text(json.dumps(cfg))
    few = "--text . --eval reconstruction --tokens 64"
    pathlib.Path("some.txt").write_text(
        "The house stood by the river, and the river ran by the house.\n" * 60
    )
    assert "whose layer and site it names" in called("import theirs --out ours")
    assert CliRunner().invoke(cli, ["evaluate", "ours"]).exit_code == 2  # of which model nobody has said yet
    found = called(f"evaluate ours --model builtin {few}")
    assert "ours: vectors of builtin, layer 1" in found
    assert "trained on vectors of" not in found
    called("import theirs --out given --model builtin --text .")
    assert json.loads(pathlib.Path("given/coder.json").read_text())["config"]["data"]["layer"] == 1
