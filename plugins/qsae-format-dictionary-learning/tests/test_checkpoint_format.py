"""The format ``dictionary-learning`` by hand: small files, their numbers, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from qsae_format_dictionary_learning import DictionaryLearningConfig
from qsae_format_dictionary_learning.checkpoint_format import DictionaryLearningFormat

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError

FORMAT = DictionaryLearningFormat(DictionaryLearningConfig())
# two latents that read and write one dimension
LINEAR = {
    "encoder.weight": torch.tensor([[1.0], [2.0]]),
    "encoder.bias": torch.tensor([0.5, 0.0]),
    "decoder.weight": torch.tensor([[2.0, 3.0]]),
}
TOPK = {
    "b_dec": torch.ones(1),
    "k": torch.tensor(1, dtype=torch.int32),
    "threshold": torch.tensor(-1.0),
} | LINEAR
MATRICES = {
    "W_enc": torch.tensor([[1.0, 2.0]]),
    "b_enc": torch.tensor([0.5, 0.0]),
    "W_dec": torch.tensor([[2.0], [3.0]]),
    "b_dec": torch.ones(1),
}
NESTED = MATRICES | {
    "k": torch.tensor(1),
    "threshold": torch.tensor(3.0),
    "group_sizes": torch.tensor([1, 1]),
}
JUMP = MATRICES | {"threshold": torch.tensor([3.0, -4.0])}
X = torch.tensor([[3.0], [-1.0]])


def saved(path, tensors, **trainer):
    """A folder; without a trainer's settings, no config.json."""
    path.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path / "ae.pt")
    if trainer:
        (path / "config.json").write_text(json.dumps({"trainer": trainer}))
    return path


def test_topk_by_hand(tmp_path):
    read = FORMAT.read(saved(tmp_path, TOPK, dict_class="AutoEncoderTopK", k=1))
    # of x = 3 the pre-activations are 1 * (3 - 1) + 0.5 and 2 * (3 - 1); the larger one stays; 4 * 3 + 1
    # of x = -1 they are -1.5 and -4, so that nothing is left but b_dec
    assert read.dense.encode(X).tolist() == [[0.0, 4.0], [0.0, 0.0]]
    assert read.dense.reconstruct(X).tolist() == [[13.0], [1.0]]
    assert read.settings["ae.pt"]["threshold"] == {"value": -1.0, "dtype": "float32"}


@pytest.mark.parametrize(
    ("threshold", "latents"),
    [
        (3.0, [[0.0, 4.0], [0.0, 0.0]]),  # 2.5 is not above 3
        (2.5, [[0.0, 4.0], [0.0, 0.0]]),  # nor above itself
        (-1.0, [[2.5, 4.0], [0.0, 0.0]]),  # never set: every latent above 0
    ],
)
def test_batchtopk_by_hand(tmp_path, threshold, latents):
    tensors = TOPK | {"threshold": torch.tensor(threshold)}
    read = FORMAT.read(saved(tmp_path / "one", tensors, dict_class="BatchTopKSAE", k=1))
    assert read.dense.encode(X).tolist() == latents
    FORMAT.write(read, tmp_path / "again")
    again = torch.load(tmp_path / "again" / "ae.pt")
    assert list(again) == list(tensors)
    assert all(
        again[key].dtype == tensor.dtype and torch.equal(again[key], tensor)
        for key, tensor in tensors.items()
    )


def test_thresholds_below_0_act_as_0_and_are_written_as_they_were(tmp_path):
    read = FORMAT.read(saved(tmp_path / "one", JUMP))
    # x W_enc + b_enc of 3 is 3.5, 6; of -1 it is -0.5, -2, which is above -4, but the library takes max(z, 0)
    assert read.dense.encode(X).tolist() == [[3.5, 6.0], [0.0, 0.0]]
    assert read.dense.threshold.tolist() == [3.0, 0.0]
    FORMAT.write(read, tmp_path / "again")
    assert torch.load(tmp_path / "again" / "ae.pt")["threshold"].tolist() == [3.0, -4.0]
    assert read.dense.threshold.tolist() == [3.0, 0.0]


def test_groups_are_those_of_the_coder(tmp_path):
    read = FORMAT.read(saved(tmp_path / "one", NESTED))
    assert read.components == {"sae": {"use": "matryoshka", "group_sizes": [1, 1]}}
    FORMAT.write(read, tmp_path / "again")
    again = torch.load(tmp_path / "again" / "ae.pt")
    assert (list(again), again["group_sizes"].tolist(), again["k"].dtype) == (
        list(NESTED),
        [1, 1],
        torch.int64,
    )


def test_without_the_coder_that_has_groups_it_is_a_jumprelu(tmp_path, monkeypatch):
    monkeypatch.setattr("qsae_format_dictionary_learning.groups.NESTED", "not-installed")
    read = FORMAT.read(saved(tmp_path / "one", NESTED))
    assert (read.components, read.dense.activation) == ({}, "jumprelu")
    FORMAT.write(read, tmp_path / "again")
    assert torch.load(tmp_path / "again" / "ae.pt")["group_sizes"].tolist() == [1, 1]


def test_topk_and_batchtopk_are_told_apart_by_the_configuration_alone(tmp_path):
    path = saved(tmp_path, TOPK)
    assert FORMAT.recognizes(path)
    with pytest.raises(ArtifactError, match="AutoEncoderTopK and of BatchTopKSAE") as caught:
        FORMAT.read(path)
    assert '{"trainer": {"dict_class": "AutoEncoderTopK"}}' in caught.value.next
    (path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoderTopK"}}')  # what it says to do
    assert FORMAT.read(path).dense.k == 1
    assert FORMAT.read(path / "ae.pt").dense.k == 1  # the file is looked at with what is beside it
    (path / "checkpoints").mkdir()
    torch.save(TOPK, path / "checkpoints" / "ae_10.pt")
    assert FORMAT.read(path / "checkpoints" / "ae_10.pt").dense.k == 1


def test_a_topk_without_its_numbers_takes_k_from_the_configuration(tmp_path):
    tensors = {key: TOPK[key] for key in ("b_dec", "encoder.weight", "encoder.bias", "decoder.weight")}
    read = FORMAT.read(saved(tmp_path / "one", tensors, dict_class="AutoEncoderTopK", k=2))
    assert read.dense.k == 2
    FORMAT.write(read, tmp_path / "again")
    assert list(torch.load(tmp_path / "again" / "ae.pt")) == list(tensors)
    with pytest.raises(ArtifactError, match="depends on the other vectors of a batch"):
        FORMAT.read(saved(tmp_path / "two", tensors, dict_class="BatchTopKSAE", k=2))


def test_the_class_is_the_tensors_own(tmp_path):
    # trainers write 'AutoEncoder' whatever class they were given
    tensors = LINEAR | {"decoder.bias": torch.ones(1)}
    read = FORMAT.read(saved(tmp_path / "one", tensors, dict_class="AutoEncoder"))
    assert not read.dense.subtracts_b_dec
    assert read.notes == ("config.json says AutoEncoder, and its tensors are those of AutoEncoderNew",)
    FORMAT.write(read, tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text()) == {
        "trainer": {"dict_class": "AutoEncoder"}
    }
    assert FORMAT.read(saved(tmp_path / "old", NESTED, dict_class="MatroyshkaBatchTopKSAE")).notes == ()


def test_what_the_library_computes_otherwise_is_said(tmp_path):
    (note,) = FORMAT.read(saved(tmp_path / "a", LINEAR | {"bias": torch.ones(1)})).notes
    assert "normalize_decoder=False" in note
    unit = LINEAR | {"bias": torch.ones(1), "decoder.weight": torch.tensor([[1.0, -1.0]])}
    assert FORMAT.read(saved(tmp_path / "b", unit)).notes == ()
    (note,) = FORMAT.read(saved(tmp_path / "c", TOPK, dict_class="BatchTopKSAE")).notes
    assert "never set" in note
    (note,) = FORMAT.read(saved(tmp_path / "d", TOPK, dict_class="AutoEncoderTopK", k=2)).notes
    assert note == "config.json says k = 2, and ae.pt 1; load_dictionary refuses that"


def test_the_biases_of_a_backup_are_those_of_the_model_s_vectors(tmp_path):
    backup = {"step": 7, "ae": TOPK | {"threshold": torch.tensor(1.0)}, "optimizer": {"state": {}, "lr": 0.1}}
    backup |= {"config": {"k": 1}, "norm_factor": 4.0}
    read = FORMAT.read(saved(tmp_path, backup, dict_class="BatchTopKSAE"))
    # b_dec 4, b_enc 2 and 0, threshold 4: of x = 8 the pre-activations are 1 * (8 - 4) + 2 and 2 * (8 - 4)
    assert read.dense.encode(torch.tensor([[8.0], [6.0]])).tolist() == [[6.0, 8.0], [0.0, 0.0]]
    assert read.notes == (
        "it is a backup of step 7, from which training was to go on, biases multiplied by its norm_factor 4",
    )
    never = backup | {"ae": TOPK}
    assert FORMAT.read(saved(tmp_path, never, dict_class="BatchTopKSAE")).dense.activation == "relu"


FORM = DenseForm(*(torch.ones(size) for size in ((4, 2), (4,), (4, 2), (2,))))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"W_skip": torch.ones(2, 2)}, "a skip connection"),
        ({"W_dec": torch.ones(4, 3), "b_dec": torch.ones(3)}, "2 inputs and 3 outputs"),
        ({"activation": "identity", "k": 2}, "signed latents"),
        ({"k": 2, "ranks_by_norm": True}, "the 2 largest latents times the norms of their atoms"),
        (
            {"k": 2, "activation": "jumprelu", "threshold": torch.ones(4)},
            "the 2 largest latents of a jumprelu",
        ),
        ({"layers": 2}, "several layers"),
    ],
)
def test_what_the_library_has_no_class_for_is_refused(tmp_path, change, fault):
    with pytest.raises(ArtifactError, match=f"no place for a coder with {fault}"):
        FORMAT.write(Checkpoint(dataclasses.replace(FORM, **change)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "dict_class"),
    [
        ({}, "AutoEncoderNew"),
        ({"subtracts_b_dec": True}, "AutoEncoder"),
        ({"k": 2}, "AutoEncoderTopK"),
        ({"activation": "jumprelu", "threshold": torch.ones(4)}, "JumpReluAutoEncoder"),
        ({"activation": "gated", "r_mag": torch.ones(4), "b_mag": torch.ones(4)}, "GatedAutoEncoder"),
    ],
)
def test_each_form_has_a_class_and_a_configuration(tmp_path, change, dict_class):
    at = Provenance.at(5, "resid_post", model="EleutherAI/pythia-70m-deduped", context=128)
    FORMAT.write(Checkpoint(dataclasses.replace(FORM, **change), provenance=at), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["trainer"]["dict_class"] == dict_class
    assert (config["trainer"]["layer"], config["trainer"]["submodule_name"]) == (5, "resid_post_layer_5")
    assert config["buffer"] == {"d_submodule": 2, "io": "out", "ctx_len": 128}
    assert FORMAT.read(tmp_path / "out").provenance == at


JUMPRELU = {"activation": "jumprelu", "threshold": torch.full((4,), 0.5)}
BATCHTOPK = {"sparsity": {"use": "batchtopk", "k": 3, "k_share": None}}


@pytest.mark.parametrize(
    ("components", "threshold", "numbers"),
    [
        ({"sae": {"use": "batchtopk"}, **BATCHTOPK}, 0.5, {"k": 3, "threshold": 0.5}),
        (
            {
                "sae": {"use": "matryoshka", "n_latents": 4, "group_sizes": None, "group_ratio": [1, 1]},
                **BATCHTOPK,
            },
            0.5,
            {"k": 3, "threshold": 0.5, "group_sizes": [2, 2]},
        ),
        ({"sae": {"use": "jumprelu"}, "sparsity": {"use": "none"}}, None, None),
        ({"sae": {"use": "batchtopk"}, **BATCHTOPK}, None, None),  # latents of different thresholds
    ],
)
def test_k_on_average_and_groups_are_written_of_what_was_trained_so(tmp_path, components, threshold, numbers):
    form = dataclasses.replace(FORM, **JUMPRELU)
    if threshold is None:
        form = dataclasses.replace(form, threshold=torch.linspace(0.5, 1, 4))
    FORMAT.write(Checkpoint(form, components=components), tmp_path / "out")
    tensors = torch.load(tmp_path / "out" / "ae.pt")
    found = {key: tensors[key].tolist() for key in ("k", "threshold", "group_sizes") if key in tensors}
    assert found == (numbers or {"threshold": form.threshold.tolist()})


def test_a_changed_coder_is_written_as_what_it_is_now(tmp_path):
    read = FORMAT.read(saved(tmp_path / "one", TOPK, dict_class="AutoEncoderTopK", k=1, lr=0.5))
    now = dataclasses.replace(read.dense, k=None)
    FORMAT.write(dataclasses.replace(read, form=now), tmp_path / "relu")
    config = json.loads((tmp_path / "relu" / "config.json").read_text())
    assert config == {"trainer": {"dict_class": "AutoEncoder", "lr": 0.5, "trainer_class": "StandardTrainer"}}
    FORMAT.write(dataclasses.replace(read, form=dataclasses.replace(read.dense, k=2)), tmp_path / "two")
    assert torch.load(tmp_path / "two" / "ae.pt")["k"].tolist() == 2
    assert json.loads((tmp_path / "two" / "config.json").read_text())["trainer"]["k"] == 2


def test_a_file_alone(tmp_path):
    torch.save(LINEAR | {"bias": torch.ones(1)}, tmp_path / "any.pt")
    assert FORMAT.recognizes(tmp_path / "any.pt")
    read = FORMAT.read(tmp_path / "any.pt")
    assert list(read.settings) == ["ae.pt"]
    FORMAT.write(read, tmp_path / "again.pt")
    assert list(torch.load(tmp_path / "again.pt")) == [
        "encoder.weight",
        "encoder.bias",
        "decoder.weight",
        "bias",
    ]
    with pytest.raises(ArtifactError, match="of a AutoEncoderTopK alone do not tell") as caught:
        FORMAT.write(Checkpoint(dataclasses.replace(FORM, k=1)), tmp_path / "topk.pt")
    assert caught.value.next == f"--out {tmp_path / 'topk'}"


def test_a_file_of_another_library_with_the_same_keys_is_known_by_its_name(tmp_path):
    for name, known in (("ae.pt", True), ("ae_500.pt", True), ("DeepSeek-R1-l19.pt", False)):
        torch.save(LINEAR | {"decoder.bias": torch.ones(1)}, tmp_path / name)
        assert FORMAT.recognizes(tmp_path / name) is known
