"""A third party's transcoder, written by ``qsae new-plugin``, from training to quantization."""

from __future__ import annotations

import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from flit_core import buildapi

import qsae_core

SMALL = ["--n-latents=64", "--batch-size=128", "--statistics-tokens=512", "--eval-every=0", "--threads=1"]
LM = ["--data=lm", "--context=64", "--buffer-tokens=2048", "--eval=reconstruction", "--eval=loss-recovered"]
ROUND = ["quantize", "--quantizer=rtn", "--n-bits=4", "--tokens=1024"]


@pytest.fixture
def qsae(plugin_site: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command, with the plugin's wheel installed."""

    def run(*arguments: object) -> Any:
        done = plugin_site.qsae(*map(str, arguments))
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run("new-plugin", "transcoder", "toy", "--dir", tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new" / "qsae-transcoder-toy")
    wheel = plugin_site.path / buildapi.build_wheel(str(plugin_site.path))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(plugin_site.path)
    wheel.unlink()
    monkeypatch.chdir(tmp_path)
    return run


def only_run(out: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    (metrics,) = out.rglob("metrics.json")
    return metrics.parent, json.loads(metrics.read_text())["coders"]["coder"]["evaluations"]


def loaded(run: pathlib.Path) -> Any:
    return qsae_core.load(run)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("sparsity", [["--sparsity=topk", "--k=8"], ["--sparsity=none"]])
def test_between_widths_of_files(qsae: Any, tmp_path: pathlib.Path, skip: bool, sparsity: list[str]) -> None:
    """From 16 dimensions to 12, of which a skip connection has the linear part for itself."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4000, 16)).astype(np.float32) + 2
    y = x @ generator.normal(size=(16, 12)) + np.maximum(x @ generator.normal(size=(16, 12)), 0)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y.astype(np.float32))
    data = ["--data=tensors", f"--data-path={tmp_path / 'x.npy'}", f"--target-path={tmp_path / 'y.npy'}"]
    flag = "--skip" if skip else "--no-skip"
    more = ["--steps=150", "--lr=0.01", "--eval=reconstruction"]
    qsae("train", "--transcoder=toy", flag, *sparsity, *data, *SMALL, *more, f"--out={tmp_path / 'float'}")
    run, values = only_run(tmp_path / "float")
    assert values["reconstruction"]["fvu"] < (0.35 if skip else 0.9)

    coder = loaded(run)
    inputs = torch.from_numpy(x[:100])
    codes = coder.encode(inputs)
    assert coder.has_skip is skip
    assert (codes.inputs is not None) is skip
    assert torch.equal(coder.decode(codes), coder(inputs))
    assert coder(inputs).shape == (100, 12)
    if "--k=8" in sparsity:
        speed = json.loads(qsae("bench", "--quick", "--screen=none", "--json", run).stdout)
        assert speed["same_entries"] > 0.999
        assert speed["relative_difference"] < 1e-4
    again = json.loads(qsae("evaluate", "--json", run).stdout)["evaluations"]
    assert again["reconstruction"]["fvu"] == pytest.approx(values["reconstruction"]["fvu"], rel=1e-5)

    qsae(*ROUND, "--out", tmp_path / "rounded", run)
    small, rounded = only_run(tmp_path / "rounded")
    # 4 bits of a decoder are at most a few hundredths; a target that kept the skip's part would be lost
    assert rounded["reconstruction"]["fvu"] < values["reconstruction"]["fvu"] + 0.1
    assert loaded(small).is_quantized
    assert loaded(small).has_skip is skip
    qsae(
        *ROUND,
        "--finetune=encoder",
        "--finetune-steps=20",
        "--out",
        tmp_path / "tuned",
        run,
    )
    assert only_run(tmp_path / "tuned")[1]["reconstruction"]["fvu"] < values["reconstruction"]["fvu"] + 0.1


@pytest.mark.parametrize("skip", [False, True])
def test_in_a_language_model(qsae: Any, tmp_path: pathlib.Path, skip: bool) -> None:
    flag = "--skip" if skip else "--no-skip"
    sizes = [
        *SMALL,
        "--steps=100",
        "--lr=0.003",
        "--eval-tokens=512",
        "--source-layer=2",
        f"--out={tmp_path / 'out'}",
    ]
    qsae("train", "--transcoder=toy", flag, *LM, *sizes)
    run, values = only_run(tmp_path / "out")
    assert run.parent.name == "2-2"
    assert run.parents[1].name == "toy-builtin"
    assert values["reconstruction"]["fvu"] < 1
    spliced = values["loss-recovered"]
    assert spliced["ce_clean"] < spliced["ce_sae"] < spliced["ce_zero"] + 0.5
    assert spliced["ce_recovered"] == pytest.approx(
        (spliced["ce_zero"] - spliced["ce_sae"]) / (spliced["ce_zero"] - spliced["ce_clean"])
    )
    again = json.loads(qsae("evaluate", "--json", run).stdout)["evaluations"]
    assert again["loss-recovered"]["ce_sae"] == pytest.approx(spliced["ce_sae"], rel=1e-4)
    qsae(*ROUND, "--out", tmp_path / "rounded", run)
    assert only_run(tmp_path / "rounded")[1]["loss-recovered"]["ce_sae"] > spliced["ce_clean"]


def test_data_without_targets_is_refused(qsae: Any, plugin_site: Any, tmp_path: pathlib.Path) -> None:
    """A transcoder that predicts what it reads would be an autoencoder under another name."""
    for places in ([], ["--layers=1,2", "--per-layer"]):
        done = plugin_site.qsae(
            "train", "--transcoder=toy", *LM, *SMALL, "--steps=2", *places, f"--out={tmp_path / 'no'}"
        )
        assert done.returncode == 2
        assert "the data has no targets" in done.stderr
        assert "--source-layer N --target-layer N" in done.stderr
    assert not list((tmp_path / "no").glob("*"))


def test_one_for_each_layer(qsae: Any, tmp_path: pathlib.Path) -> None:
    """Each takes the place of its own layer's MLP; all at once cost more than any alone."""
    places = ["--layers=1,2", "--source-site=mlp_in", "--target-site=mlp_out", "--per-layer"]
    sizes = [*SMALL, "--steps=100", "--lr=0.003", "--eval-tokens=512", f"--out={tmp_path / 'out'}"]
    qsae("train", "--transcoder=toy", "--skip", *LM, *sizes, *places)
    (metrics,) = (tmp_path / "out").rglob("metrics.json")
    run, entry = metrics.parent, json.loads(metrics.read_text())["coders"]["coder"]
    assert run.parent.name == "1-2-mlp_in-mlp_out"
    alone = [layer["evaluations"]["loss-recovered"]["ce_sae"] for layer in entry["layers"].values()]
    values = entry["evaluations"]["loss-recovered"]
    assert values["ce_clean"] < min(alone) < max(alone) < values["ce_sae"] < values["ce_zero"]
    coders = qsae_core.load_set(run)
    x = torch.randn(20, 2, coders.shape.d_in)
    assert coders.has_skip
    assert not coders.is_autoencoder
    assert torch.equal(coders.decode(coders.encode(x)), coders(x))
    again = json.loads(qsae("evaluate", "--json", run).stdout)["evaluations"]
    assert again["loss-recovered"]["ce_sae"] == pytest.approx(values["ce_sae"], rel=1e-4)
    qsae(*ROUND, "--out", tmp_path / "rounded", run)
    (rounded,) = (tmp_path / "rounded").rglob("metrics.json")
    small = qsae_core.load_set(rounded.parent)
    assert all(coder.is_quantized for coder in small.by_layer())
    # the layer's own transcoder, trained alone, is the same one
    one = ["--source-layer=2", f"--out={tmp_path / 'one'}", *SMALL, "--steps=100", "--lr=0.003"]
    qsae("train", "--transcoder=toy", "--skip", *LM, *one, "--eval-tokens=512")
    single = loaded(only_run(tmp_path / "one")[0])
    assert torch.equal(single.atoms(), coders["2"].atoms())
