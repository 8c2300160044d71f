"""Checkpoints of another library, with a plugin as ``qsae new-plugin format`` writes it."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shlex
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_cli.new_plugin import write_plugin
from qsae_core.plugins.records import load_plugins

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from test_new_plugin import install

TRAIN = (
    "train --n-latents 128 --data synthetic --preset tiny --steps 120 --batch-size 256 --eval-tokens 2048 "
    "--eval-every 0 --statistics-tokens 512 --threads 1 --eval reconstruction --no-compare-float"
)
DATA = "--data synthetic --preset tiny --set evaluate=[reconstruction]"


@pytest.fixture
def site(tmp_path, plugin_site, monkeypatch):
    """The installed plugins, and a format `theirs`."""
    write_plugin("format", "theirs", tmp_path / "qsae-format-theirs")
    install(tmp_path / "qsae-format-theirs", plugin_site.path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    load_plugins.cache_clear()
    yield plugin_site
    load_plugins.cache_clear()


def qsae(site, line):
    done = site.qsae(*shlex.split(line))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(site, line):
    done = site.qsae(*shlex.split(line))
    assert done.returncode == 2, done.stdout
    return done.stderr


def trained(site, more):
    qsae(site, f"{TRAIN} {more} --name coder")
    return "results/coder/synthetic/120"


def values(site, line):
    return json.loads(qsae(site, f"evaluate --json --tokens 2048 {line}"))["evaluations"]["reconstruction"]


@pytest.mark.parametrize(
    ("more", "sae", "architecture"),
    [
        ("--sae topk --k 4", "topk", "topk"),
        ("--sae topk --k 4 --quantizer ste --quantizer.n-bits 4 --encoder-quantizer rtn", "topk", "topk"),
        ("--sae jumprelu --target-l0 4", "jumprelu", "jumprelu"),
        ("--sae batchtopk --k 4", "jumprelu", "jumprelu"),
        ("--sae vanilla", "vanilla", "standard"),
        ("--sae gated", "jumprelu", "jumprelu"),
    ],
)
def test_a_coder_comes_back_as_it_was(site, more, sae, architecture):
    run = trained(site, more)
    assert qsae(site, f"export {run} --format theirs --out written").startswith("wrote written: ")
    assert json.loads(pathlib.Path("written/cfg.json").read_text())["architecture"] == architecture
    assert load_file("written/sae_weights.safetensors")["W_enc"].shape == (64, 128)
    done = site.qsae(*shlex.split(f"import written --out imported {DATA}"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "artifact: imported" in done.stdout
    before, after = values(site, run), values(site, "imported")
    for name in ("fvu", "l0", "cosine"):
        assert after[name] == pytest.approx(before[name], rel=1e-4), name
    coder = qsae_core.load("imported")
    assert (coder.config.normalize, bool(coder.norm_in.rotated)) == ("none", False)
    assert json.loads(pathlib.Path("imported/coder.json").read_text())["config"]["sae"]["use"] == sae


@pytest.mark.parametrize("more", ["--sae topk --k 4", "--sae jumprelu --target-l0 4"])
def test_what_was_imported_is_quantized_fine_tuned_compared_and_written_again(site, more):
    run = trained(site, more)
    qsae(site, f"export {run} --format theirs --out written")
    qsae(site, f"import written --out imported {DATA}")
    fvus = [values(site, "imported")["fvu"]]
    for name, tuning in (("plain", ""), ("tuned", "--finetune encoder --finetune-steps 60")):
        line = f"quantize imported --quantizer rtn --n-bits 2 --tokens 2048 --name {name} {tuning}"
        qsae(site, line)
        (quantized,) = pathlib.Path("results", name).glob("*/*")
        fvus.append(values(site, quantized)["fvu"])
    assert fvus[0] < fvus[2] < fvus[1] < fvus[0] + 0.4
    rows = json.loads(qsae(site, f"compare --json imported {quantized} --evaluate --tokens 2048"))
    assert [row["mean"]["fvu"] for row in rows] == pytest.approx([fvus[0], fvus[2]], rel=1e-4)
    qsae(site, f"export {quantized} --format theirs --out again")
    qsae(site, f"import again --out second {DATA}")
    assert values(site, "second")["fvu"] == pytest.approx(fvus[2], rel=1e-4)


def test_what_is_measured_follows_what_it_was_trained_on(site):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(8, 32, generator=generator)
    pathlib.Path("theirs").mkdir()
    tensors = {"W_enc": rows.T.contiguous(), "b_enc": torch.zeros(8), "W_dec": rows, "b_dec": torch.zeros(32)}
    save_file(tensors, "theirs/sae_weights.safetensors")
    settings = {"format": "qsae-format-theirs", "architecture": "topk", "k": 2, "hook": "blocks.3"}
    pathlib.Path("theirs/cfg.json").write_text(json.dumps(settings))
    save_file({"x": torch.randn(1000, 32, generator=generator)}, "states.safetensors")
    on = ("--data-path", "states.safetensors")
    for name, given in (("unknown", ()), ("elsewhere", ("--trained-on", "elsewhere"))):
        site.qsae("import", "theirs", "--out", name, *given)
    unknown = site.qsae("evaluate", "unknown", *on, "--tokens", "1000")
    assert "what this coder was trained on is not recorded" in unknown.stderr
    assert "1,000 held-out" not in unknown.stdout
    refused = site.qsae("import", "theirs", "--out", "these", "--trained-on", "data")
    assert "no data is chosen that it was trained on" in refused.stderr
    save_file({"x": torch.randn(50, 31, generator=generator)}, "narrow.safetensors")
    narrow = site.qsae(
        "import", "theirs", "--out", "these", "--trained-on", "data", "--data-path", "narrow.safetensors"
    )
    assert "the data does not fit the coder" in narrow.stderr
    assert not pathlib.Path("these").exists()
    site.qsae("import", "theirs", "--out", "these", "--trained-on", "data", *on)
    these = site.qsae("evaluate", "these", "--tokens", "1000")
    assert "this coder was trained on some of what is measured" in these.stderr
    save_file({"x": torch.randn(700, 32, generator=generator)}, "others.safetensors")
    others = site.qsae("evaluate", "these", "--data-path", "others.safetensors")
    assert "warning" not in others.stderr
    assert "measured on 700 vectors of all 700 rows of others.safetensors" in others.stdout
    elsewhere = site.qsae("evaluate", "elsewhere", *on, "--tokens", "1000")
    assert "warning" not in elsewhere.stderr
    assert "measured on 1,000 vectors of all 1,000 rows of states.safetensors" in elsewhere.stdout
    quantized = ("quantize", "elsewhere", *on, "--quantizer", "rtn", "--tokens", "512", "--name", "small")
    site.qsae(*quantized)  # which calibrates: from then on what is held out is measured
    after = site.qsae("evaluate", "results/small/tensors/0", *on, "--tokens", "1000")
    assert "warning" not in after.stderr
    assert "measured on 49 vectors of the 49 held-out of the 1,000 rows" in after.stdout


def test_atoms_of_any_norm_keep_it_and_do_not_change_the_ranks(site):
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn(32, 8, generator=generator)
    W_dec = torch.randn(8, 32, generator=generator) * torch.arange(1, 9)[:, None]
    tensors = {"W_enc": W_enc, "b_enc": torch.zeros(8), "W_dec": W_dec, "b_dec": torch.ones(32)}
    pathlib.Path("theirs").mkdir()
    save_file(tensors, "theirs/sae_weights.safetensors")
    settings = {"format": "qsae-format-theirs", "architecture": "topk", "k": 2, "hook": "blocks.3"}
    pathlib.Path("theirs/cfg.json").write_text(json.dumps(settings))
    noted = site.qsae("import", "theirs", "--out", "ours").stderr
    assert "no data was chosen for it: evaluate and quantize it with --model, --layer and --site" in noted
    for command in ("evaluate ours", "quantize ours --quantizer rtn", "compare ours --evaluate"):
        refused = site.qsae(*command.split())  # not measured on what happens to be the default
        assert refused.returncode == 2, refused.stdout
        assert "what vectors it is for is not recorded" in refused.stderr
        assert "--data-path FILE" in refused.stderr
    for coder in (
        qsae_core.load("ours"),
        qsae_core.read_checkpoint("theirs", registry=load_plugins().registry),
    ):
        assert torch.equal(coder.dictionary(), W_dec)
        x = torch.randn(50, 32, generator=generator)
        latents = ((x - 1) @ W_enc).relu()
        codes = coder.encode(x).to_dense()
        # the two largest of each token as they are, whatever the norms of their atoms
        assert torch.equal(codes > 0, (latents >= latents.topk(2, dim=1).values[:, 1:]) & (latents > 0))
        assert torch.allclose(codes[codes > 0], latents[codes > 0], rtol=1e-5)
        assert torch.allclose(coder(x), codes @ W_dec + 1, rtol=1e-5, atol=1e-4)
    source = json.loads(pathlib.Path("ours/coder.json").read_text())["source"]
    files = {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
        for file in pathlib.Path("theirs").iterdir()
    }
    imported = {
        "path": "theirs",
        "format": "theirs",
        "files": files,
        "dtypes": dict.fromkeys(tensors, "float32"),
        "settings": settings,
    }
    assert source == {"imported_from": imported, "no_data": True}
