"""Published layouts by hand, and damaged, lying and malicious files."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from qsae_core.contracts import Checkpoint, Provenance
from qsae_core.errors import ArtifactError, QsaeError
from qsae_core.runs import load_plugins

GOLDEN = pathlib.Path(__file__).parent / "golden"
FORMATS = ("qwen-scope", "llama-scope", "llama-scope-r1", "goodfire", "deepseek-r1", "openai", "ckkissane")
E = torch.tensor([[1.0, 2.0], [0.0, -1.0], [1.0, 0.0]])  # [F, D]
e = torch.tensor([0.5, 0.0, -1.0])
D = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])  # [D, F]: atoms (1, 0), (0, 3), (2, 0)
d = torch.tensor([10.0, 20.0])
X = torch.tensor([[1.0, -1.0]])
OFFSET = torch.tensor([1.0, -2.0])
LINEAR = {"encoder.weight": E, "encoder.bias": e, "decoder.weight": D, "decoder.bias": d}


def form(name):
    registry = load_plugins().registry
    spec = registry.get("format", name)
    return registry.load_target(spec)(spec.config())


def computed(read):
    dense = read.dense
    return dense.encode(X).tolist()[0], dense.reconstruct(X).tolist()[0]


def test_qwen_scope_by_hand(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "topk_sae", "k": 2, "d_sae": 3}))
    torch.save({"W_enc": E, "b_enc": e, "W_dec": D, "b_dec": d}, tmp_path / "layer9.sae.pt")
    # z = (1 - 2 + 0.5, 1, 1 - 1) = (-0.5, 1, 0): the two largest are 1 and 0; of three all stay, signs too
    assert computed(form("qwen-scope").read(tmp_path / "layer9.sae.pt")) == ([0, 1, 0], [10, 23])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "topk_sae", "k": 3}))
    assert computed(form("qwen-scope").read(tmp_path / "layer9.sae.pt")) == ([-0.5, 1, 0], [9.5, 23])


@pytest.mark.parametrize(
    ("name", "file", "state"),
    [
        ("goodfire", "Llama-3.3-70B-Instruct-SAE-l50.pt", "_linear"),
        ("deepseek-r1", "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", ""),
    ],
)
def test_two_linear_layers_by_hand(tmp_path, name, file, state):
    torch.save({key.replace("coder", f"coder{state}"): t for key, t in LINEAR.items()}, tmp_path / file)
    for path in (tmp_path, tmp_path / file):
        assert form(name).recognizes(path)
        assert computed(form(name).read(path)) == ([0, 1, 0], [10, 23])
    assert form(name).read(tmp_path).provenance.sources == (f"{50 if state else 19}.resid_post",)
    shutil.copy(tmp_path / file, tmp_path / "second.pt")
    assert not form(name).recognizes(tmp_path)
    with pytest.raises(ArtifactError, match=r"has 2 files \.pt or \.pth"):
        form(name).read(tmp_path)


def test_dictionary_learning_has_the_same_names_and_is_another_format(tmp_path):
    torch.save(LINEAR, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderNew"}}))
    assert not form("deepseek-r1").recognizes(tmp_path)
    assert not form("deepseek-r1").recognizes(tmp_path / "ae.pt")


def test_openai_by_hand(tmp_path):
    path = tmp_path / "gpt2-small" / "resid_delta_mlp_v4" / "autoencoders" / "5.pt"
    path.parent.mkdir(parents=True)
    torch.save({"pre_bias": OFFSET, "latent_bias": e, "encoder.weight": E, "decoder.weight": D}, path)
    read = form("openai").read(path)
    # x - b = (0, 1): z = (2.5, -1, -1)
    assert computed(read) == ([2.5, 0, 0], [3.5, -2])
    assert read.provenance == Provenance.at(5, "mlp_out", model="gpt2")


def test_ckkissane_by_hand(tmp_path):
    state = {"W_enc": E.T.contiguous(), "b_enc": e, "W_dec": D.T.contiguous(), "b_dec": OFFSET}
    torch.save(state, tmp_path / "a.pt")
    cfg = {"act_name": "blocks.4.attn.hook_z", "act_size": 2, "dict_size": 3, "layer": 4, "site": "z"}
    (tmp_path / "a_cfg.json").write_text(json.dumps(cfg))
    assert form("ckkissane").members(tmp_path) == {"4": tmp_path / "a.pt"}
    read = form("ckkissane").read(tmp_path / "a.pt")
    assert computed(read) == ([2.5, 0, 0], [3.5, -2])
    assert "value biases are folded" in read.notes[0]


def test_a_crosscoder_by_hand(tmp_path):
    state = {
        "W_enc": torch.tensor([[[1.0, 0.0]], [[2.0, -1.0]]]),  # [2, D = 1, F = 2]
        "b_enc": torch.tensor([0.0, 0.5]),
        "W_dec": torch.tensor([[[1.0], [10.0]], [[2.0], [20.0]]]),  # [F, 2, D]
        "b_dec": torch.tensor([[100.0], [200.0]]),
    }
    torch.save(state, tmp_path / "cc_weights.pt")
    (tmp_path / "cfg.json").write_text(json.dumps({"hook_point": "blocks.14.hook_resid_pre", "d_in": 1}))
    assert form("ckkissane").recognizes(tmp_path)
    read = form("ckkissane").read(tmp_path)
    # x = (1, -1) of the two models: z = (1 - 2, 1 + 0.5)
    assert computed(read) == ([0, 1.5], [103, 230])
    assert read.dense.layers == 2
    assert "scaled to an average norm" in read.notes[0]


def llama_scope(path, **more):
    settings = {
        "hook_point_in": "blocks.7.hook_attn_out",
        "hook_point_out": "blocks.7.hook_attn_out",
        "apply_decoder_bias_to_pre_encoder": False,
        "d_model": 4,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 1.0,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 4.0, "out": 1.0},  # s_in = 1/2, s_out = 2
        **more,
    }
    (path / "checkpoints").mkdir(parents=True)
    (path / "hyperparams.json").write_text(json.dumps(settings))
    tensors = {
        "encoder.weight": torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]),
        "encoder.bias": torch.tensor([1.0, 1.0]),
        "decoder.weight": torch.tensor([[8.0, 0], [0, 4], [0, 0], [0, 0]]),
        "decoder.bias": torch.full((4,), 6.0),
    }
    save_file(tensors, path / "checkpoints" / "final.safetensors")
    return path


def test_llama_scope_by_hand(tmp_path):
    read = form("llama-scope").read(llama_scope(tmp_path / "L7A"))
    x = torch.tensor([[1.0, -1.2, 0, 0]])
    # atoms * s_in / s_out are 2 and 1 long; e / s_in = 2; z = (2 (1 + 2), -1.2 + 2) = (6, 0.8), and 6 > 1
    assert read.dense.encode(x).tolist() == [[6.0, 0.0]]
    # an atom of length 1 in direction 1; d / s_out = 3
    assert read.dense.reconstruct(x).tolist() == [[9.0, 3.0, 3.0, 3.0]]
    assert read.provenance == Provenance.at(7, "attn_out")


def test_llama_scope_r1_by_hand(tmp_path):
    hook = "blocks.7.hook_resid_pre"
    settings = {"hook_point_in": hook, "norm_activation": "dataset-wise", "d_model": 4}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    tensors = load_file(llama_scope(tmp_path / "other") / "checkpoints" / "final.safetensors")
    more = {
        "log_jumprelu_threshold": torch.tensor([12.0, 2.5]).log(),
        f"dataset_average_activation_norm.{hook}": torch.tensor(4.0),
    }
    save_file(tensors | more, tmp_path / "sae_weights.safetensors")
    read = form("llama-scope-r1").read(tmp_path)
    x = torch.tensor([[2.0, -1.0, 0, 0]])
    # z = x / 2 + 1 = (2, 0.5); times the norms 8 and 4: 16 is above 12, 2 is not above 2.5
    assert read.dense.encode(x).tolist() == [[2.0, 0.0]]
    # (2 * 8 + 6, 6, 6, 6) * 2
    assert read.dense.reconstruct(x).tolist() == [[44.0, 12.0, 12.0, 12.0]]
    assert read.provenance == Provenance.at(7, "resid_pre")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"norm_activation": "token-wise"}, "'token-wise': each token or batch is scaled by its own norm"),
        ({"norm_activation": None}, "norm_activation is None"),
        ({"use_glu_encoder": True}, "latents are products of two encoders"),
        ({"use_glu_encoder": "no"}, "use_glu_encoder is 'no'"),
        ({"act_fn": "batchtopk"}, "act_fn is 'batchtopk'"),
        ({"act_fn": "topk", "jump_relu_threshold": 0, "top_k": -3}, "top_k is -3"),
        ({"act_fn": "topk", "jump_relu_threshold": 0, "top_k": 3}, "k is 3, with 2 latents"),
        ({"jump_relu_threshold": "1"}, "jump_relu_threshold is '1'"),
        ({"dataset_average_activation_norm": None}, "the average norm of the vectors is None"),
        ({"dataset_average_activation_norm": {"in": 0, "out": 1.0}}, "the average norm of the vectors is 0"),
        (
            {"dataset_average_activation_norm": {"in": 1, "out": True}},
            "the average norm of the vectors is",
        ),
        ({"d_model": 10**12}, r"d_model is 1000000000000, and the tensors say 4"),
        ({"d_sae": 10**12}, r"d_sae is 1000000000000, and the tensors say 2"),
    ],
)
def test_settings_of_llama_scope_that_are_refused(tmp_path, change, fault):
    with pytest.raises(ArtifactError, match=fault):
        form("llama-scope").read(llama_scope(tmp_path / "L7A", **change))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"k": -1}, "k is -1"),
        ({"k": "50"}, "k is '50'"),
        ({"k": None}, "k is None"),
        ({"k": 10**9}, "k is 1000000000, with 32 latents"),
        ({"d_sae": 65536}, "d_sae is 65536, and the tensors say 32"),
        ({"d_model": "16"}, "d_model is '16', and the tensors say 16"),
    ],
)
def test_settings_of_qwen_scope_that_are_refused(tmp_path, change, fault):
    path = shutil.copytree(GOLDEN / "qwen-scope" / "checkpoint", tmp_path / "qwen")
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(ArtifactError, match=fault):
        form("qwen-scope").read(path / "layer0.sae.pt")


def test_norms_that_were_never_set_are_refused(tmp_path):
    path = shutil.copytree(GOLDEN / "llama-scope-r1" / "checkpoint", tmp_path / "r1")
    weights = path / "sae_weights.safetensors"
    tensors = load_file(weights)
    (norm,) = (name for name in tensors if name.startswith("dataset_average"))
    for value in (float("nan"), -1.0, 0.0, float("inf")):
        save_file(tensors | {norm: torch.tensor(value)}, weights)
        with pytest.raises(ArtifactError, match="the average norm of the vectors is"):
            form("llama-scope-r1").read(path)
    save_file({name: t for name, t in tensors.items() if name != norm}, weights)
    with pytest.raises(ArtifactError, match="the average norm of the vectors is None"):
        form("llama-scope-r1").read(path)


def golden():
    for folder in sorted(GOLDEN.iterdir()):
        name = folder.name.partition("_")[0]
        yield name, next(folder.glob("checkpoint*"))


def coders(name, path):
    return list(form(name).members(path).values()) or [path]


def test_each_is_recognized_by_one_format():
    for name, path in golden():
        for place in (path, *coders(name, path)):
            assert [own for own in FORMATS if form(own).recognizes(place)] == [name], place


def read_all(name, path):
    for place in coders(name, path):
        form(name).read(place)


def test_damaged_files_are_refused_and_nothing_is_unpickled(tmp_path):
    class Touch:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "unpickled",)

    torch.save({"W_enc": Touch()}, tmp_path / "trap")
    trap = (tmp_path / "trap").read_bytes()
    for name, original in golden():
        path = tmp_path / original.parent.name / original.name
        (shutil.copytree if original.is_dir() else shutil.copy2)(original, _below(path))
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            whole = file.read_bytes()
            for data in (whole[: len(whole) // 2], b"", b"\xff" * len(whole), trap):
                file.write_bytes(data)
                assert form(name).recognizes(path) in (True, False)
                with pytest.raises(QsaeError):
                    read_all(name, path)
            file.write_bytes(whole)
    assert not (tmp_path / "unpickled").exists()


def _below(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("name", ["goodfire", "deepseek-r1", "openai"])
def test_other_shapes_are_refused(tmp_path, name):
    (original,) = (file for file in (GOLDEN / name).rglob("*.pt*") if file.is_file())
    state = torch.load(original, weights_only=True)
    for key in [key for key in state if key.endswith(("weight", "bias"))]:
        torch.save({**state, key: torch.ones(3, 3, 3)}, tmp_path / "a.pt")
        assert not form(name).recognizes(tmp_path)
        with pytest.raises(ArtifactError, match="its tensors are"):
            form(name).read(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_written(tmp_path, name):
    (path,) = [path for own, path in golden() if own == name][:1]
    read = form(name).read(coders(name, path)[0])
    with pytest.raises(ArtifactError, match="are read, and not written") as caught:
        form(name).write(Checkpoint(read.form), tmp_path / "new")
    with pytest.raises(ArtifactError, match="are read, and not written"):
        form(name).write_set({"0": Checkpoint(read.form)}, tmp_path / "new")
    assert "format" in caught.value.allowed or "saelens" in caught.value.allowed
    assert not (tmp_path / "new").exists()
