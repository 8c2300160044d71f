"""SAELens itself, in an environment of its own: each reads what the other wrote, and computes the same."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib

import pytest
import torch
from click.testing import CliRunner
from qsae_format_saelens import SaeLensConfig
from qsae_format_saelens.checkpoint_format import SaeLensFormat
from qsae_format_saelens.understood import migrated
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.conformance import peer
from qsae_core.conformance.golden import Computed, check_golden, expect_computes
from qsae_core.conformance.toy_forms import PROVENANCE, forms, vectors
from qsae_core.contracts import Checkpoint
from qsae_core.errors import ArtifactError

pytestmark = pytest.mark.peer
HERE = pathlib.Path(__file__).parent
_spec = importlib.util.spec_from_file_location("golden_tests", HERE / "test_golden.py")
golden_tests = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_tests)
FORMAT = SaeLensFormat(SaeLensConfig())
TRAIN = (
    "--steps 4 --batch-size 128 --eval-tokens 256 --eval-every 0 --statistics-tokens 256 --threads 1 "
    "--eval reconstruction --no-compare-float --n-latents 256"
)
TRAINED = {
    "ternary": "--sae ternary --quantizer ste --k 8",
    "topk": "--sae topk --k 8 --quantizer ste --quantizer.n-bits 4 --encoder-quantizer rtn",
    "gated": "--sae gated",
    "batchtopk": "--sae batchtopk --k 8",
    "transcoder": "--transcoder transcoder --sparsity topk --k 8 --source-layer 2 --target-layer 2",
    "skip": "--transcoder transcoder --sparsity none --skip --source-layer 2 --target-layer 2",
}


@pytest.fixture(scope="session")
def run_there():
    """Runs a script by the Python of an environment with sae-lens."""
    found = peer("sae-lens")
    return lambda script, *arguments, given="": found.run(HERE / script, *arguments, given=given)


def test_what_it_saves_with_other_weights_is_read(run_there, tmp_path):
    run_there("write_golden.py", tmp_path / "golden", "--seed", "7")
    cases = sorted(path.name for path in (tmp_path / "golden").iterdir())
    assert cases == sorted(path.name for path in golden_tests.GOLDEN.iterdir())
    for case in cases:
        folder = tmp_path / "golden" / case
        if case.startswith("refused-"):
            with pytest.raises(ArtifactError, match=rf"'{case.removeprefix('refused-')}'"):
                FORMAT.read(folder / "checkpoint")
        elif case == golden_tests.RESCALED:
            check_golden(golden_tests.unscaled(folder, tmp_path / "unscaled"), "saelens", ties=0.05)
        else:
            check_golden(folder, "saelens", ties=0.05)


def test_it_loads_every_form_that_is_written_and_computes_the_same(run_there, tmp_path):
    written = {}
    for number, (name, form) in enumerate(forms().items()):
        kind = "transcoder" if "transcoder" in name else "sae"
        try:
            FORMAT.write(Checkpoint(form, kind, PROVENANCE), tmp_path / str(number) / "checkpoint")
        except ArtifactError:
            continue
        save_file({"x": vectors(form).float()}, tmp_path / str(number) / "x.safetensors")
        written[number] = name, form
    assert len(written) >= 12
    run_there("write_golden.py", tmp_path, "--compute")
    for number, (name, form) in written.items():
        found, x = load_file(tmp_path / str(number) / "expected.safetensors"), vectors(form)
        latents = found.get("unscaled", found["latents"]).double()
        torch.testing.assert_close(latents, form.encode(x), rtol=1e-4, atol=1e-4, msg=name)
        reconstruction = form.reconstruct(x).float()
        torch.testing.assert_close(found["reconstruction"], reconstruction, rtol=1e-4, atol=1e-3, msg=name)


def with_atoms_of_zeros():
    """As an allocation of bits leaves them."""
    form = forms()["TopK SAE that ranks by norm"]
    W_dec = form.W_dec.clone()
    W_dec[::3] = 0
    return dataclasses.replace(form, W_dec=W_dec)


def test_atoms_of_zeros_are_written_as_latents_that_never_fire(tmp_path):
    form = with_atoms_of_zeros()
    FORMAT.write(Checkpoint(form, "sae", PROVENANCE), tmp_path / "it")
    read, x = FORMAT.read(tmp_path / "it").form, vectors(form)
    assert (read.W_dec.norm(dim=1) > 0).all()
    assert bool(form.encode(x).any())
    torch.testing.assert_close(read.encode(x), form.encode(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(read.reconstruct(x), form.reconstruct(x), rtol=1e-6, atol=1e-6)


def test_atoms_of_zeros_are_nothing_that_it_divides_by(run_there, tmp_path):
    form = with_atoms_of_zeros()
    FORMAT.write(Checkpoint(form, "sae", PROVENANCE), tmp_path / "it" / "checkpoint")
    x = vectors(form)
    save_file({"x": x.float()}, tmp_path / "it" / "x.safetensors")
    run_there("write_golden.py", tmp_path, "--compute")
    found = load_file(tmp_path / "it" / "expected.safetensors")
    torch.testing.assert_close(found["reconstruction"], form.reconstruct(x).float(), rtol=1e-4, atol=1e-3)


def test_it_loads_coders_that_were_trained_here(run_there, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coders = {}
    for name, options in TRAINED.items():
        run, out = tmp_path / "results" / name, tmp_path / "out" / name
        line = f"train {options} {TRAIN} --name {name}"
        called(*line.split())
        (folder,) = run.glob("*/*")
        called("export", folder, "--format", "saelens", "--out", out / "checkpoint")
        coders[name] = qsae_core.load(folder)
        x = torch.randn(64, coders[name].shape.d_in, generator=torch.Generator().manual_seed(1))
        save_file({"x": x}, out / "x.safetensors")
    run_there("write_golden.py", tmp_path / "out", "--compute")
    for name, coder in coders.items():
        found = load_file(tmp_path / "out" / name / "expected.safetensors")
        expect_computes(coder, Computed(*(found[key] for key in Computed._fields)), name, ties=0.1)
    metadata = json.loads((tmp_path / "out" / "skip" / "checkpoint" / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.2.mlp.hook_in"
    assert metadata["hook_name_out"] == "blocks.2.hook_mlp_out"
    assert metadata["context_size"] == 256


def called(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


def test_settings_are_migrated_as_it_migrates_them(run_there):
    base = {"d_in": 8, "d_sae": 32, "dtype": "torch.float32"}
    changes = [
        {},
        {"hook_point": "blocks.1.hook_resid_pre", "hook_point_head_index": 3, "activation_fn_str": "relu"},
        {"hook_point": "blocks.1.attn.hook_z", "normalize_activations": True},
        {"hook_name": "blocks.1.attn.hook_z", "reshape_activations": "none", "normalize_activations": None},
        {"normalize_activations": False, "prepend_bos": False, "apply_b_dec_to_input": False},
        {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}},
        {"activation_fn": "topk", "activation_fn_kwargs": {"k": 7}, "architecture": "topk", "k": 3},
        {"architecture": "topk", "k": 3},
        {"architecture": "gated", "sae_lens_version": "5.9.1", "context_size": 128, "dataset_path": "a/b"},
        {"architecture": "jumprelu", "metadata": {"model_name": "lost"}, "model_name": "gpt2-small"},
        {"architecture": "transcoder", "apply_b_dec_to_input": False, "d_out": 5, "hook_name_out": "x"},
        {"normalize_activations": "layer_norm", "l1_coefficient": 1.0, "model_from_pretrained_kwargs": {}},
    ]
    asked = [base | change for change in changes]
    answer = json.loads(run_there("migrate.py", given=json.dumps(asked)))
    for cfg, theirs in zip(asked, answer["migrated"], strict=True):
        ours = migrated(cfg, "cfg.json")
        assert {name: ours.get(name) for name in theirs if name != "device"} == {
            name: value for name, value in theirs.items() if name != "device"
        }


def test_models_are_called_as_transformer_lens_calls_them(run_there):
    theirs = json.loads(run_there("migrate.py", given="[]"))["names"]
    file = pathlib.Path(importlib.util.find_spec("qsae_format_saelens").origin).with_name("model_names.json")
    ours = json.loads(file.read_text(encoding="utf-8"))
    assert len(ours) > 180
    assert ours == {name: theirs[name] for name in ours}
