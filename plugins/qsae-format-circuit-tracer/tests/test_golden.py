"""What circuit-tracer wrote and computed with (``write_golden.py``), and what it loads of ours."""

from __future__ import annotations

import pathlib

import pytest
import torch
from click.testing import CliRunner
from qsae_format_circuit_tracer import CircuitTracerConfig
from qsae_format_circuit_tracer.checkpoint_format import CircuitTracerFormat
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.conformance import check_golden, peer
from qsae_core.contracts import Checkpoint, DenseForm, Provenance

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE / "golden"
NEGATIVE = "negative-thresholds-file"
CASES = [folder.name for folder in sorted(GOLDEN.iterdir())]
FORMAT = CircuitTracerFormat(CircuitTracerConfig())


@pytest.mark.parametrize("case", CASES)
def test_what_circuit_tracer_wrote(case):
    check_golden(GOLDEN / case, "circuit-tracer")


def test_a_folder_of_topk_is_loaded_as_relu_by_circuit_tracer_itself():
    expected = load_file(GOLDEN / "topk-set" / "expected.safetensors")
    asked, as_loaded = (expected[f"0/{name}"] for name in ("latents", "latents_as_loaded"))
    assert (asked != 0).sum(1).tolist() == [5] * 24
    assert (as_loaded != 0).sum(1).double().mean().item() == pytest.approx(19.9, abs=0.1)
    (note,) = FORMAT.read(GOLDEN / "topk-set" / "checkpoint" / "layer_0.safetensors").notes
    assert "computes ReLU in place of the 5 largest" in note


def test_thresholds_below_zero_let_negative_latents_through(tmp_path):
    expected = load_file(GOLDEN / NEGATIVE / "expected.safetensors")
    path = GOLDEN / NEGATIVE / "checkpoint.safetensors"
    checkpoint = FORMAT.read(path)
    assert torch.allclose(checkpoint.dense.encode(expected["x"]), expected["latents"], atol=1e-5)
    assert expected["latents"].min().item() < -0.5
    FORMAT.write(checkpoint, tmp_path / "again")
    again, before = load_file(tmp_path / "again"), load_file(path)
    assert all(torch.equal(again[name], before[name]) for name in before | again)
    coder = qsae_core.read_checkpoint(path)
    codes = coder.encode(expected["x"])
    assert torch.allclose(codes.to_dense(), expected["latents"], atol=1e-5)
    assert torch.equal(codes.to_dense() != 0, expected["latents"] != 0)
    assert torch.allclose(coder.decode(codes), expected["reconstruction"], atol=1e-4)


def qsae(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def test_layers_of_which_some_have_thresholds_below_zero(tmp_path):
    """They are one set, and stored and written as they were."""
    for layer, case in enumerate(("jumprelu-skip-file", NEGATIVE)):
        tensors = load_file(GOLDEN / case / "checkpoint.safetensors")
        tensors.setdefault("W_skip", torch.zeros(16, 16))
        (tmp_path / "theirs").mkdir(exist_ok=True)
        save_file(tensors, tmp_path / "theirs" / f"layer_{layer}.safetensors")
    qsae("import", tmp_path / "theirs", "--out", tmp_path / "coders")
    qsae("export", tmp_path / "coders", "--format", "circuit-tracer", "--out", tmp_path / "again")
    for name in ("layer_0.safetensors", "layer_1.safetensors"):
        before, after = (load_file(tmp_path / folder / name) for folder in ("theirs", "again"))
        assert before.keys() == after.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("other", [{}, {"k": torch.tensor(3)}, {"k": torch.tensor(7)}])
def test_layers_of_different_rules_are_not_stored_as_those_of_the_first(tmp_path, other):
    layer = load_file(GOLDEN / "relu-half-file" / "checkpoint.safetensors")
    (tmp_path / "theirs").mkdir()
    save_file(layer | {"k": torch.tensor(5)}, tmp_path / "theirs" / "layer_0.safetensors")
    save_file(layer | other, tmp_path / "theirs" / "layer_1.safetensors")
    said = qsae("import", tmp_path / "theirs", "--out", tmp_path / "coders", code=2)
    assert "and that of 0" in said
    assert not (tmp_path / "coders").exists()


def test_places_are_those_of_the_same_vectors():
    read = {
        case: FORMAT.read(GOLDEN / case / "checkpoint" / "layer_1.safetensors")
        for case in CASES
        if "set" in case
    }
    assert read["relu-set"].provenance == Provenance("Qwen/Qwen3-0.6B", ("1.mlp_in",), ("1.mlp_out",))
    # ln2.hook_normalized lies before the layer norm's weights
    assert read["jumprelu-set"].provenance == Provenance("google/gemma-2-2b", (), ("1.mlp_out",))
    assert read["relu-skip-set"].provenance == Provenance()
    assert read["relu-skip-set"].settings == {"d_feature": {"value": 40}, "d_model": {"value": 16}}


# --- with circuit-tracer itself


def circuit_tracer(*arguments):
    peer("circuit-tracer").run(HERE / "write_golden.py", *arguments)


@pytest.mark.peer
def test_other_seeds(tmp_path):
    circuit_tracer(tmp_path, "--seed", 7)
    cases = [folder for folder in sorted(tmp_path.iterdir()) if folder.name in CASES]
    for folder in cases:
        check_golden(folder, "circuit-tracer")
    assert len(cases) == len(CASES)


def form(seed, **more):
    random = torch.Generator().manual_seed(seed)
    sizes = (24, 8), (24,), (24, 8), (8,)
    W_enc, b_enc, W_dec, b_dec = (torch.randn(size, generator=random) for size in sizes)
    return DenseForm(W_enc, b_enc, W_dec, b_dec, **more)


RULES = {
    "relu": {},
    "jumprelu": {"activation": "jumprelu", "threshold": torch.linspace(0, 1, 24)},
    "topk": {"activation": "identity", "k": 4},
    "gated": {"activation": "gated", "r_mag": torch.linspace(-1, 1, 24), "b_mag": torch.linspace(1, -1, 24)},
    "subtracting": {"subtracts_b_dec": True},
    "skip": {"W_skip": torch.randn(8, 8, generator=torch.Generator().manual_seed(5))},
}


@pytest.mark.peer
def test_circuit_tracer_computes_the_same_with_what_is_written(tmp_path):
    forms = {name: [form(seed, **rule) for seed in range(2)] for name, rule in RULES.items()}
    x = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(3))
    for name, (first, second) in forms.items():
        for folder in (tmp_path / f"{name}-file", tmp_path / f"{name}-set"):
            folder.mkdir()
        FORMAT.write(Checkpoint(first, "transcoder"), tmp_path / f"{name}-file" / "checkpoint.safetensors")
        save_file({"x": x[0].contiguous()}, tmp_path / f"{name}-file" / "x.safetensors")
        places = [Provenance.at(i, "mlp_in", "mlp_out", model="gpt2") for i in range(2)]
        several = {
            f"{i}": Checkpoint(dense, "transcoder", places[i]) for i, dense in enumerate((first, second))
        }
        FORMAT.write_set(several, tmp_path / f"{name}-set" / "checkpoint")
        save_file({"x": x}, tmp_path / f"{name}-set" / "x.safetensors")
    circuit_tracer(tmp_path, "--compute")
    for name, dense in forms.items():
        file, folder = (
            load_file(tmp_path / f"{name}-{kind}" / "expected.safetensors") for kind in ("file", "set")
        )
        for i, found in enumerate(
            (file, {key[2:]: tensor for key, tensor in folder.items() if key[0] == "1"})
        ):
            assert torch.allclose(found["latents"], dense[i].encode(x[i]), atol=1e-4), name
            assert torch.allclose(found["reconstruction"], dense[i].reconstruct(x[i]), atol=1e-3), name
