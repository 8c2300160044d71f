"""Folders of several coders, and which vectors they are for."""

from __future__ import annotations

import json

import pytest
import torch
from qsae_format_dictionary_learning import DictionaryLearningConfig
from qsae_format_dictionary_learning.checkpoint_format import DictionaryLearningFormat

import qsae_core
from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.runs import load_plugins

FORMAT = DictionaryLearningFormat(DictionaryLearningConfig())
TENSORS = {
    "bias": torch.ones(2),
    "encoder.weight": torch.ones(4, 2),
    "encoder.bias": torch.ones(4),
    "decoder.weight": torch.ones(2, 4),
}
PYTHIA = {"lm_name": "EleutherAI/pythia-70m-deduped"}
FORM = DenseForm(*(torch.ones(size) for size in ((4, 2), (4,), (4, 2), (2,))), subtracts_b_dec=True)


def saved(path, **config):
    path.mkdir(parents=True)
    torch.save(TENSORS, path / "ae.pt")
    (path / "config.json").write_text(json.dumps(config))


def test_coders_of_different_layers_are_a_set(tmp_path):
    for layer in (11, 2, 3):
        saved(tmp_path / f"resid_post_layer_{layer}" / "trainer_0", trainer={"layer": layer, **PYTHIA})
    assert FORMAT.recognizes(tmp_path)
    found = FORMAT.members(tmp_path)
    assert list(found) == ["2", "3", "11"]
    assert found["11"] == tmp_path / "resid_post_layer_11" / "trainer_0"
    assert FORMAT.members(found["11"]) == {}
    with pytest.raises(ArtifactError, match="there is no such file"):
        FORMAT.read(tmp_path)


def test_a_sweep_is_listed(tmp_path):
    for i, k in enumerate((20, 40, 80)):
        trainer = {"dict_class": "AutoEncoderTopK", "layer": 3, "k": k, "dict_size": 4}
        saved(tmp_path / f"trainer_{i}", trainer=trainer)
    assert FORMAT.recognizes(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        FORMAT.members(tmp_path)
    for i, k in enumerate((20, 40, 80)):
        assert f"trainer_{i} (AutoEncoderTopK, layer 3, dict_size 4, k {k})" in caught.value.what
    assert caught.value.next == f"import one of them: {tmp_path / 'trainer_0'}"


def test_coders_of_unknown_layers_are_no_set(tmp_path):
    saved(tmp_path / "one", trainer={"layer": 1})
    saved(tmp_path / "two", trainer={"layer": "2"})
    with pytest.raises(ArtifactError, match="not each of a layer of its own"):
        FORMAT.members(tmp_path)


@pytest.mark.parametrize(
    ("trainer", "buffer", "known"),
    [
        ({"submodule_name": "resid_post_layer_3"}, {"io": "out"}, Provenance.at(3, "resid_post")),
        ({"submodule_name": "resid_post_layer_3"}, {}, Provenance.at(3, "resid_post")),
        ({"submodule_name": "resid_post_layer_3"}, {"io": "in"}, Provenance()),  # what the layer reads
        ({"submodule_name": "resid_post_layer_4"}, {"io": "out"}, Provenance()),
        ({"submodule_name": "mlp_out_layer_3"}, {"io": "out"}, Provenance()),  # whose output that is, is open
        ({"submodule_name": "3.mlp_in"}, {"io": "out"}, Provenance.at(3, "mlp_in")),
        ({"submodule_name": "3.mlp_in-4.mlp_out"}, {}, Provenance(None, ("3.mlp_in",), ("4.mlp_out",))),
        ({"submodule_name": None}, {"ctx_len": 128}, Provenance(context=128)),
        ({**PYTHIA}, {"ctx_len": "128"}, Provenance("EleutherAI/pythia-70m-deduped")),
        ({"lm_name": ["a"], "submodule_name": 3}, {"ctx_len": True}, Provenance()),
    ],
)
def test_where_the_vectors_are_from(tmp_path, trainer, buffer, known):
    saved(tmp_path / "one", trainer={"layer": 3, **trainer}, buffer=buffer)
    assert FORMAT.read(tmp_path / "one").provenance == known


@pytest.mark.parametrize(
    "at",
    [
        Provenance.at(3, "resid_post", model="m"),
        Provenance.at(3, "mlp_out", model="m", context=64),
        Provenance.at(3, "mlp_in", "mlp_out"),
    ],
)
def test_every_place_comes_back(tmp_path, at):
    kind = "sae" if at.sources == at.targets else "transcoder"
    FORMAT.write(Checkpoint(FORM, kind, at), tmp_path / "out")
    read = FORMAT.read(tmp_path / "out")
    assert (read.kind, read.provenance) == (kind, at)


def test_a_set_is_written_as_training_writes_it(tmp_path):
    coders = {
        str(layer): Checkpoint(FORM, provenance=Provenance.at(layer, "resid_post")) for layer in (3, 11)
    }
    FORMAT.write_set(coders, tmp_path / "out")
    assert [path.name for path in FORMAT.members(tmp_path / "out").values()] == ["trainer_0", "trainer_0"]
    assert (tmp_path / "out" / "resid_post_layer_11" / "trainer_0" / "ae.pt").is_file()
    with pytest.raises(ArtifactError, match="not known of which layer it is") as caught:
        FORMAT.write_set({"a": Checkpoint(FORM)}, tmp_path / "none")
    assert caught.value.where == f"{tmp_path / 'none'}: a"
    assert not (tmp_path / "none").exists()
    with pytest.raises(ArtifactError, match="would be in one folder"):
        FORMAT.write_set({"3": coders["3"], "4": coders["3"]}, tmp_path / "twice")


@pytest.mark.parametrize(
    ("trainer", "fault"),
    [
        ({"k": -3, "dict_class": "AutoEncoderTopK"}, "k is -3"),
        ({"k": "5"}, "k is '5'"),
        ({"k": True}, "k is True"),
        ({"dict_size": 10**12}, "trainer.dict_size is 1000000000000, and the tensors' is 4"),
        ({"activation_dim": 3}, "trainer.activation_dim is 3, and the tensors' is 2"),
        ({"dict_class": "CrossCoder"}, "its class is CrossCoder, which is not read here"),
        ({"dict_class": "../../AutoEncoder"}, "which is not read here"),
    ],
)
def test_lying_settings_are_refused(tmp_path, trainer, fault):
    saved(tmp_path / "one", trainer=trainer)
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.read(tmp_path / "one")


@pytest.mark.parametrize("config", [{"trainer": []}, {"trainer": {}, "buffer": 3}])
def test_sections_that_are_none_are_refused(tmp_path, config):
    saved(tmp_path / "one", **config)
    with pytest.raises(ArtifactError, match="not a mapping"):
        FORMAT.read(tmp_path / "one")


MATRICES = {
    "W_enc": torch.ones(2, 4),
    "b_enc": torch.ones(4),
    "W_dec": torch.ones(4, 2),
    "b_dec": torch.ones(2),
}
NUMBERS = {"k": torch.tensor(1), "threshold": torch.tensor(1.0)}


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        (MATRICES | NUMBERS | {"group_sizes": torch.tensor([5, -1])}, "are not those of 4 latents"),
        (MATRICES | NUMBERS | {"group_sizes": torch.tensor([2, 1])}, "are not those of 4 latents"),
        (MATRICES | NUMBERS | {"group_sizes": torch.ones(10**6)}, "are not those of 4 latents"),
        (MATRICES | NUMBERS | {"group_sizes": torch.tensor([2.0, 2.0])}, "are not those of 4 latents"),
        (MATRICES | {"threshold": torch.tensor(float("nan"))}, r"threshold has shape"),
        (TENSORS | {"encoder.weight": torch.ones(4)}, "is no matrix"),
        (TENSORS | {"encoder.weight": torch.ones(2, 4, 2)}, "is no matrix"),
        (TENSORS | {"bias": torch.ones(3)}, "b_dec has shape"),
        (TENSORS | {"bias": torch.tensor([1.0, float("inf")])}, "NaN or infinite"),
        (TENSORS | {"bias": torch.ones(2, dtype=torch.float64)}, "b_dec is torch.float64"),
        ({"unknown": torch.ones(2)}, "its tensors are those of no class: unknown"),
        (TENSORS | {"more": torch.ones(2)}, "its tensors are those of no class"),
        (
            MATRICES | NUMBERS | {"threshold": torch.tensor(float("inf")), "group_sizes": torch.tensor([4])},
            "one number",
        ),
    ],
)
def test_tensors_that_are_not_the_class_s_are_refused(tmp_path, tensors, fault):
    torch.save(tensors, tmp_path / "ae.pt")
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.read(tmp_path / "ae.pt")


@pytest.mark.parametrize("k", [torch.tensor(-1), torch.tensor(5), torch.tensor(2.0), torch.tensor([1, 2])])
def test_a_lying_k_is_refused(tmp_path, k):
    tensors = {key: value for key, value in TENSORS.items() if key != "bias"}
    tensors |= {"b_dec": torch.ones(2), "k": k, "threshold": torch.tensor(0.0)}
    torch.save(tensors, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoderTopK"}}')
    with pytest.raises(ArtifactError, match=r"^.*: k is "):
        FORMAT.read(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "secret.pt")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "ae.pt").symlink_to(tmp_path / "secret.pt")
    with pytest.raises(ArtifactError, match="a link out of the folder"):
        FORMAT.read(tmp_path / "one")
    assert not FORMAT.recognizes(tmp_path / "one")


def test_a_matryoshka_is_read_with_its_groups(tmp_path):
    torch.save(MATRICES | NUMBERS | {"group_sizes": torch.tensor([1, 3])}, tmp_path / "ae.pt")
    coder = qsae_core.read_checkpoint(tmp_path / "ae.pt", registry=load_plugins().registry)
    assert (coder.component_name, coder.prefixes) == ("matryoshka", (1, 4))
    assert coder.at_level(1).n_latents == 1


def test_the_offset_of_a_transcoder_is_in_its_bias(tmp_path):
    tensors = {
        "bias": torch.tensor([1.0]),
        "encoder.weight": torch.tensor([[1.0], [2.0]]),
        "encoder.bias": torch.tensor([0.5, 0.0]),
        "decoder.weight": torch.tensor([[2.0, 3.0]]),
    }
    torch.save(tensors, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text('{"trainer": {}, "buffer": {"io": "in_and_out"}}')
    coder = qsae_core.read_checkpoint(tmp_path)
    assert (coder.component_name, coder.is_autoencoder) == ("transcoder", False)
    assert coder.b_enc.tolist() == [0.5 - 1.0, 0.0 - 2.0]
    # of x = 3: 1 * (3 - 1) + 0.5 and 2 * (3 - 1); 2.5 * 2 + 4 * 3 + 1
    assert coder(torch.tensor([[3.0]])).tolist() == [[18.0]]
