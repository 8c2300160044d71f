"""Files of circuit-tracer by hand, and what is refused with the reason."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
import yaml
from qsae_format_circuit_tracer import CircuitTracerConfig
from qsae_format_circuit_tracer.checkpoint_format import CircuitTracerFormat
from safetensors.torch import load_file, save_file

from qsae_core.contracts import Checkpoint, CrossLayerForm, DenseForm, LayerForm, Provenance
from qsae_core.errors import ArtifactError

FORMAT = CircuitTracerFormat(CircuitTracerConfig())
LAYER = {
    "W_enc": torch.tensor([[1.0, 2.0], [0.0, -1.0], [1.0, 0.0]]),  # [F, D]
    "W_dec": torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]),  # [F, D]
    "b_enc": torch.tensor([0.5, 0.0, -1.0]),
    "b_dec": torch.tensor([10.0, 20.0]),
}
THRESHOLD = {"activation_function.threshold": torch.tensor([1.0, 0.0, 0.5])}
SKIP = {"W_skip": torch.tensor([[0.0, 100.0], [0.0, 0.0]])}  # [D out, D in]
CONFIG = {
    "model_name": "google/gemma-2-2b",
    "model_kind": "transcoder_set",
    "feature_input_hook": "hook_resid_mid",
    "feature_output_hook": "hook_mlp_out",
}
X = torch.tensor([[1.0, -1.0]])  # z = (1 - 2 + 0.5, 1, 1 - 1) = (-0.5, 1, 0)


def folder(path, *layers, config=None, name="config.yaml"):
    path.mkdir()
    for number, tensors in enumerate(layers):
        save_file(tensors, path / f"layer_{number}.safetensors")
    if config is not None:
        (path / name).write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    ("more", "latents", "output"),
    [
        ({}, [0, 1, 0], [10, 23]),
        (THRESHOLD, [0, 1, 0], [10, 23]),
        (SKIP, [0, 1, 0], [10 - 100, 23]),
        ({"k": torch.tensor(2)}, [0, 1, 0], [10, 23]),  # z of 0 is the second largest
        ({"k": torch.tensor(3)}, [-0.5, 1, 0], [9.5, 23]),  # signs stay
    ],
)
def test_a_layer_by_hand(tmp_path, more, latents, output):
    save_file(LAYER | more, tmp_path / "layer_3.safetensors")
    assert FORMAT.recognizes(tmp_path / "layer_3.safetensors")
    read = FORMAT.read(tmp_path / "layer_3.safetensors")
    assert (read.kind, read.settings) == ("transcoder", {})
    assert read.dense.encode(X).tolist() == [latents]
    assert read.dense.reconstruct(X).tolist() == [output]


def test_a_folder_by_hand(tmp_path):
    path = folder(tmp_path / "set", LAYER, LAYER | THRESHOLD, config={**CONFIG, "scan": "gemma"})
    assert FORMAT.recognizes(path)
    assert FORMAT.members(path) == {str(i): path / f"layer_{i}.safetensors" for i in range(2)}
    read = [FORMAT.read(file) for file in FORMAT.members(path).values()]
    assert [one.dense.activation for one in read] == ["relu", "jumprelu"]
    assert read[1].provenance == Provenance("google/gemma-2-2b", ("1.resid_mid",), ("1.mlp_out",))
    assert read[1].settings == {**CONFIG, "scan": "gemma"}
    assert [file.name for file in read[1].files] == ["layer_1.safetensors", "config.yaml"]
    with pytest.raises(ArtifactError, match="a transcoder for each of the layers 0, 1"):
        FORMAT.read(path)


@pytest.mark.parametrize(
    ("model", "hook", "site"),
    [
        ("Qwen/Qwen3-4B", "mlp.hook_out", "mlp_out"),
        ("google/gemma-2-2b", "mlp.hook_out", None),  # before the norm behind the MLP
        ("google/gemma-2-2b", "hook_mlp_out", "mlp_out"),
        ("google/gemma-2-2b", "hook_somewhere", None),
    ],
)
def test_a_hook_is_a_site_where_it_has_the_same_vectors(tmp_path, model, hook, site):
    path = folder(
        tmp_path / "set", LAYER, config={**CONFIG, "model_name": model, "feature_output_hook": hook}
    )
    targets = FORMAT.read(path / "layer_0.safetensors").provenance.targets
    assert targets == ((f"0.{site}",) if site else ())


@pytest.mark.parametrize(
    ("tensors", "config", "fault"),
    [
        (LAYER | {"log_thresholds": torch.ones(3)}, None, "log_thresholds.* are not those of a layer"),
        ({**LAYER, "W_enc": LAYER["W_enc"].T.contiguous()}, None, "are not those of a layer"),
        ({name: LAYER[name] for name in ("W_enc", "W_dec", "b_enc")}, None, "are not those of a layer"),
        (LAYER | {"k": torch.tensor(2.0)}, None, "the tensor k is no whole number"),
        (LAYER | {"k": torch.tensor([2])}, None, "the tensor k is no whole number"),
        (LAYER | {"k": torch.tensor(0)}, None, "k is 0, with 3 latents"),
        (LAYER | {"k": torch.tensor(-(2**62))}, None, "k is -4611686018427387904, with 3 latents"),
        (LAYER | THRESHOLD | {"k": torch.tensor(2)}, None, "the activation is topk, and the tensors are"),
        (LAYER | {"b_enc": torch.tensor([0.5, float("nan"), 0])}, None, "b_enc has NaN"),
        (LAYER | {"W_skip": torch.ones(3, 2)}, None, r"W_skip has shape \[3, 2\]"),
        (LAYER, {"activation": "topk"}, "the activation is topk, and k is None"),
        (LAYER, {"activation": "topk", "k": "5"}, "the activation is topk, and k is '5'"),
        (LAYER, {"activation": "topk", "k": True}, "the activation is topk, and k is True"),
        (LAYER, {"activation": "topk", "k": 4}, "k is 4, with 3 latents"),
        (LAYER | {"k": torch.tensor(1)}, {"activation": "topk", "k": 2}, "k is 1 in the file, and 2 in"),
        (LAYER, {"activation": "gelu"}, "activation is 'gelu', which is not read here"),
        (LAYER, {"activation": ["relu"]}, r"activation is \['relu'\], which is not read here"),
        (LAYER | THRESHOLD, {"activation": "relu"}, "the activation is relu, and the tensors are"),
        (LAYER, {"activation": "jumprelu"}, "the activation is jumprelu, and the tensors are"),
        (LAYER, {"model_name": 7}, "model_name is 7"),
        (LAYER, {"model_kind": "crosscoder"}, "model_kind is 'crosscoder', which is not read here"),
    ],
)
def test_what_is_wrong_in_a_layer_is_said(tmp_path, tensors, config, fault):
    path = folder(tmp_path / "set", tensors, config=config and {**CONFIG, **config})
    with pytest.raises(ArtifactError, match=fault) as caught:
        FORMAT.read(path / "layer_0.safetensors")
    assert str(path) in caught.value.where


def test_other_files_are_not_looked_for(tmp_path):
    listed = {
        **CONFIG,
        "transcoders": ["hf://google/gemma-scope-2-1b-pt/transcoder/layer_0/params.safetensors"],
    }
    path = folder(tmp_path / "listed", config=listed)
    assert FORMAT.recognizes(path)
    for own in (listed, {**CONFIG, "transcoders": ["../layer_0.safetensors"]}, {**CONFIG, "transcoders": 3}):
        (path / "config.yaml").write_text(yaml.safe_dump(own))
        with pytest.raises(ArtifactError, match="lists files that are not here"):
            FORMAT.members(path)
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(ArtifactError, match=r"has no layer_0\.safetensors"):
        FORMAT.members(path)
    save_file(LAYER, tmp_path / "outside.safetensors")
    os.symlink(tmp_path / "outside.safetensors", path / "layer_0.safetensors")
    with pytest.raises(ArtifactError, match="a link out of the folder"):
        FORMAT.members(path)


def test_a_folder_that_says_nothing_of_itself(tmp_path):
    path = folder(tmp_path / "set", LAYER, config={"d_model": {"value": 2}}, name="wanb-config.yaml")
    assert FORMAT.recognizes(path)
    read = FORMAT.read(path / "layer_0.safetensors")
    assert (read.settings, read.provenance) == ({"d_model": {"value": 2}}, Provenance())
    FORMAT.write_set({"0": read}, tmp_path / "again")
    assert [file.name for file in sorted((tmp_path / "again").iterdir())] == [
        "layer_0.safetensors",
        "wandb-config.yaml",
    ]
    (path / "wanb-config.yaml").unlink()
    FORMAT.write_set({"0": FORMAT.read(path / "layer_0.safetensors")}, tmp_path / "alone")
    assert [file.name for file in (tmp_path / "alone").iterdir()] == ["layer_0.safetensors"]


# --- written


FORM = DenseForm(LAYER["W_enc"], LAYER["b_enc"], LAYER["W_dec"], LAYER["b_dec"])
TOPK = dataclasses.replace(FORM, activation="identity", k=2)
JUMP = dataclasses.replace(FORM, activation="jumprelu", threshold=THRESHOLD["activation_function.threshold"])


def at(layer, dense=FORM, model="google/gemma-2-2b", **more):
    return Checkpoint(dense, "transcoder", Provenance.at(layer, "mlp_in", "mlp_out", model=model), **more)


@pytest.mark.parametrize(
    ("dense", "kind", "fault"),
    [
        (FORM, "sae", "an SAE: its coders stand in place of MLPs"),
        (dataclasses.replace(FORM, k=2), "transcoder", "activation relu of which the 2 largest stay"),
        (
            dataclasses.replace(TOPK, ranks_by_norm=True),
            "transcoder",
            "identity of which the 2 largest by norm",
        ),
        (dataclasses.replace(FORM, activation="identity"), "transcoder", "activation identity"),
        (
            dataclasses.replace(FORM, W_dec=torch.ones(3, 1), b_dec=torch.ones(1)),
            "transcoder",
            "from 2 to 1: both sides have one width",
        ),
    ],
)
def test_a_transcoder_that_circuit_tracer_does_not_have_is_refused(tmp_path, dense, kind, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.write(Checkpoint(dense, kind), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_new_config(tmp_path):
    FORMAT.write_set({"0": at(0, TOPK), "1": at(1, TOPK)}, tmp_path / "topk")
    written = yaml.safe_load((tmp_path / "topk" / "config.yaml").read_text())
    assert written == CONFIG | {"feature_input_hook": "mlp.hook_in", "activation": "topk", "k": 2}
    assert "k" not in load_file(tmp_path / "topk" / "layer_1.safetensors")  # its loader takes no such tensor
    FORMAT.write(at(1, TOPK), tmp_path / "layer_1.safetensors")
    assert load_file(tmp_path / "layer_1.safetensors")["k"].item() == 2
    FORMAT.write_set({"0": at(0, JUMP, model="Qwen/Qwen3-4B")}, tmp_path / "qwen")
    written = yaml.safe_load((tmp_path / "qwen" / "config.yaml").read_text())
    # of Qwen both hooks are the same vectors, and circuit-tracer's nnsight side knows this one alone
    assert written["feature_output_hook"] == "mlp.hook_out"


def test_what_a_config_says_follows_the_coder_and_the_rest_stays(tmp_path):
    settings = {**CONFIG, "activation": "topk", "k": 5, "scan": "gemma", "feature_input_hook": "other"}
    for name, dense, change in (
        ("same", dataclasses.replace(TOPK, k=2), {"k": 2}),
        ("relu", FORM, {"activation": None, "k": None}),
    ):
        FORMAT.write_set({"0": at(0, dense, settings=settings)}, tmp_path / name)
        written = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert written == {key: v for key, v in {**settings, **change}.items() if v is not None}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"3": at(3)}, r"a transcoder for every layer, and these are of \[3\]"),
        ({"0": at(0), "2": at(2)}, r"these are of \[0, 2\]"),
        ({"a": Checkpoint(FORM, "transcoder")}, "of one layer each, and one is of a"),
        (
            {"0": Checkpoint(FORM, "transcoder", Provenance(None, ("0.mlp_in",), ("1.mlp_out",)))},
            "one is of 0.mlp_in, 1.mlp_out",
        ),
        (
            {"0": at(0), "1": at(1, dataclasses.replace(FORM, W_skip=torch.ones(2, 2)))},
            "layers that are alike",
        ),
        ({"0": at(0, TOPK), "1": at(1)}, "layers that are alike"),
        ({"0": Checkpoint(TOPK, "transcoder")}, "it is not known where the vectors are from"),
        (
            {"0": Checkpoint(FORM, "transcoder", Provenance.at(0, "resid_pre", "mlp_out"))},
            "no feature_input_hook for 0.resid_pre",
        ),
        (
            {"0": Checkpoint(FORM, "transcoder", Provenance(None, ("0.mlp_in",)))},
            "no feature_output_hook for places that are not known",
        ),
    ],
)
def test_a_set_that_circuit_tracer_does_not_have_is_refused(tmp_path, given, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.write_set(given, tmp_path / "new")
    assert not list(tmp_path.iterdir())


# --- cross-layer


def cross_layer(**more):
    first = LayerForm(torch.eye(2), torch.zeros(2), torch.ones(2, 2, 2), torch.tensor([1.0, 2.0]), **more)
    second = LayerForm(torch.eye(2), torch.ones(2), torch.full((2, 1, 2), 3.0), torch.zeros(2), **more)
    return CrossLayerForm((first, second), "jumprelu" if "threshold" in more else "relu")


PLACES = Provenance("gpt2", ("0.mlp_in", "1.mlp_in"), ("0.mlp_out", "1.mlp_out"))


def test_a_cross_layer_transcoder_by_hand(tmp_path):
    FORMAT.write(Checkpoint(cross_layer(), "transcoder", PLACES), tmp_path / "clt")
    assert sorted(load_file(tmp_path / "clt" / "W_enc_1.safetensors")) == ["W_enc_1", "b_dec_1", "b_enc_1"]
    assert load_file(tmp_path / "clt" / "W_dec_0.safetensors")["W_dec_0"].shape == (2, 2, 2)
    assert FORMAT.recognizes(tmp_path / "clt")
    assert FORMAT.members(tmp_path / "clt") == {}
    read = FORMAT.read(tmp_path / "clt")
    assert read.provenance == PLACES
    assert read.settings["model_kind"] == "cross_layer_transcoder"
    x = torch.tensor([[[1.0, -1.0], [0.0, 1.0]]])
    assert read.form.encode(x).tolist() == [[1, 0, 1, 2]]
    assert read.form.reconstruct(x).tolist() == [[[2, 3], [1 + 9, 1 + 9]]]


@pytest.mark.parametrize(
    ("form", "places", "fault"),
    [
        (dataclasses.replace(cross_layer(), k=1), PLACES, "activation relu of which the 1 largest stay"),
        (cross_layer(W_skip=torch.eye(2)), PLACES, "with skip connections"),
        (cross_layer(), Provenance("gpt2", ("3.mlp_in", "4.mlp_in")), "of the layers 3.mlp_in, 4.mlp_in"),
    ],
)
def test_a_cross_layer_transcoder_that_circuit_tracer_does_not_have_is_refused(tmp_path, form, places, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.write(Checkpoint(form, "transcoder", places), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_in_a_cross_layer_folder_is_said(tmp_path):
    path = tmp_path / "clt"
    FORMAT.write(Checkpoint(cross_layer(threshold=torch.ones(2)), "transcoder"), path)
    encoder, decoder = (load_file(path / f"{name}_1.safetensors") for name in ("W_enc", "W_dec"))
    faults = {
        "the jumprelu of layer 1 has no threshold": {
            k: v for k, v in encoder.items() if "threshold" not in k
        },
        "are not those of layer 1": {k.replace("_1", "_0"): v for k, v in encoder.items()},
        r"W_enc of layer 1 has shape \[3, 2\]": encoder | {"W_enc_1": torch.ones(3, 2)},
        "W_skip_1": encoder | {"W_skip_1": torch.ones(2, 2)},
    }
    for fault, tensors in faults.items():
        save_file(tensors, path / "W_enc_1.safetensors")
        with pytest.raises(ArtifactError, match=fault):
            FORMAT.read(path)
    save_file(encoder, path / "W_enc_1.safetensors")
    for activation in ("topk", "relu"):
        config = {**CONFIG, "model_kind": "cross_layer_transcoder", "activation": activation, "k": 1}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(
            ArtifactError, match=f"activation: {activation}, and the tensors are those of a jump"
        ):
            FORMAT.read(path)
    (path / "config.yaml").unlink()
    save_file({"W_dec_1": decoder["W_dec_1"].expand(2, 2, 2).contiguous()}, path / "W_dec_1.safetensors")
    with pytest.raises(ArtifactError, match=r"W_dec of layer 1 has shape \[2, 2, 2\]"):
        FORMAT.read(path)
    (path / "W_dec_1.safetensors").unlink()
    with pytest.raises(ArtifactError, match="there is no such file"):
        FORMAT.read(path)
    assert FORMAT.recognizes(path)
