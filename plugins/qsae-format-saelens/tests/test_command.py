"""The README's worked example: out of a run, into another folder, and out again."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from qsae_cli.main import cli

TRAIN = (
    "train --sae topk --k 16 --n-latents 256 --steps 4 --batch-size 128 --eval-tokens 512 --eval-every 0 "
    "--statistics-tokens 256 --threads 1 --no-compare-float --eval reconstruction --name mine"
)


GOLDEN = pathlib.Path(__file__).parent / "golden"


def qsae(line):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def fvu(path):
    line = f"evaluate {path} --eval reconstruction --tokens 2048 --json"
    return json.loads(qsae(line))["evaluations"]["reconstruction"]["fvu"]


def test_the_worked_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qsae(TRAIN)
    qsae("export results/mine/2/4 --format saelens --out mine_saelens")
    qsae("import mine_saelens --out mine_again")
    assert fvu("mine_again") == pytest.approx(fvu("results/mine/2/4"), rel=1e-4)
    qsae("export mine_again --format saelens --out mine_once_more")
    for name in ("cfg.json", "sae_weights.safetensors"):
        once_more = (tmp_path / "mine_once_more" / name).read_bytes()
        assert (tmp_path / "mine_saelens" / name).read_bytes() == once_more


@pytest.fixture(scope="module")
def placeless(tmp_path_factory):
    """An SAE of the built-in model's vectors, whose files say nothing of it."""
    folder = tmp_path_factory.mktemp("placeless")
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(64, 256, generator=generator), dim=1)
    tensors = {
        "W_enc": W_dec.T.contiguous(),
        "W_dec": W_dec,
        "b_enc": torch.zeros(64),
        "b_dec": torch.zeros(256),
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    cfg = {"architecture": "topk", "d_in": 256, "d_sae": 64, "k": 4, "dtype": "float32"}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


def test_a_place_that_is_chosen_is_recorded_and_stays(placeless, tmp_path, monkeypatch):
    """Through quantizing on saved vectors too, and what is found of an imported coder is kept beside it."""
    monkeypatch.chdir(tmp_path)
    said = qsae(f"import {placeless} --out ours --model builtin --layer 2").splitlines()
    assert said[2] == "vectors: of the model builtin, layer 2, site resid_post"
    assert "kept in ours/evaluations" in qsae("evaluate ours --eval sparsity --tokens 512")
    assert (tmp_path / "ours" / "evaluations" / "sparsity" / "result.json").is_file()
    x = torch.randn(600, 256, generator=torch.Generator().manual_seed(1))
    save_file({"x": x}, tmp_path / "x.safetensors")
    few = "--tokens 128 --eval-tokens 16"
    qsae(f"quantize ours --quantizer rtn --n-bits 4 {few} --name it --data-path x.safetensors")
    (run,) = (tmp_path / "results" / "it").glob("*/*")
    source = json.loads((run / "checkpoints" / "final" / "coder.json").read_text())["source"]
    assert (source["model"], source["source_sites"]) == ("builtin", ["2.resid_post"])
    metrics = json.loads((run / "metrics.json").read_text())["coders"]["coder"]
    assert metrics["evaluations"]["reconstruction"]["n_tokens"] == 16
    refused = CliRunner().invoke(cli, ["samples", str(run)])
    assert "--model builtin --layer 2 --site resid_post --text FOLDER" in refused.output


def test_how_data_is_read_alone_chooses_none(placeless, tmp_path):
    result = CliRunner().invoke(cli, f"import {placeless} --out {tmp_path}/ours --dtype bf16".split())
    assert result.exit_code == 0, result.output
    assert "no data was chosen for it" in result.output
    assert "vectors: its files name no model, layer or site, and none is chosen" in result.output


# --- what qsae import says of what SAELens wrote


def test_an_import_says_what_was_read(tmp_path):
    cfg = json.loads((GOLDEN / "topk" / "checkpoint" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["d_sae"], cfg["d_in"], cfg["k"]) == ("topk", 24, 8, 4)
    assert qsae(f"import {GOLDEN}/topk/checkpoint --out {tmp_path}/ours").splitlines() == [
        "topk: 24 latents, d=8, activation relu, sparsity topk (k = 4)",
        "format: saelens, weights in float32",
        "vectors: of the model gpt2, layer 5, site resid_pre",
        f"artifact: {tmp_path}/ours",
    ]


def test_it_says_which_weights_have_which_type_and_that_no_place_is_named(tmp_path):
    shutil.copytree(GOLDEN / "standard" / "checkpoint", tmp_path / "theirs")
    tensors = load_file(tmp_path / "theirs" / "sae_weights.safetensors")
    tensors["W_dec"] = tensors["W_dec"].bfloat16()
    save_file(tensors, tmp_path / "theirs" / "sae_weights.safetensors")
    cfg = json.loads((tmp_path / "theirs" / "cfg.json").read_text())
    del cfg["metadata"]
    (tmp_path / "theirs" / "cfg.json").write_text(json.dumps(cfg))
    said = qsae(f"import {tmp_path}/theirs --out {tmp_path}/ours").splitlines()
    assert said[1].startswith("format: saelens, weights in ")
    assert "bfloat16 (W_dec)" in said[1]
    assert said[2] == "vectors: its files name no model, layer or site, and none is chosen"


def test_of_a_folder_of_several_it_says_how_many_there_are_of_which_layers(tmp_path):
    said = qsae(f"import {GOLDEN}/several/checkpoint --out {tmp_path}/ours").splitlines()
    assert said[0].startswith(
        "2 coders, one for each of the layers sae_9, sae_10; of each, vanilla: 24 latents"
    )
    assert said[2] == "vectors: of the model gpt2, layers 9, 10, site resid_post"


def test_of_packed_weights_it_says_the_format_and_the_quantizer(tmp_path, monkeypatch):
    """Also where the coder that was packed had been imported before, from files of another format."""
    monkeypatch.chdir(tmp_path)
    qsae(f"import {GOLDEN}/topk/checkpoint --out ours")
    qsae("export ours --format saelens-packed --out packed")
    said = qsae("import packed --out again").splitlines()
    assert said[1] == "format: saelens-packed, weights as qsae packs them (quantizer none)"
    assert said[2] == "vectors: of the model gpt2, layer 5, site resid_pre"
