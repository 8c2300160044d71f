"""Folders of runs: a coder of each hookpoint, what the run's configuration says, seeds."""

from __future__ import annotations

import json

import pytest
import torch
from qsae_format_sparsify import SparsifyConfig
from qsae_format_sparsify.checkpoint_format import SparsifyFormat
from safetensors.torch import save_file

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError

FORMAT = SparsifyFormat(SparsifyConfig())
FORM = DenseForm(*(torch.ones(size) for size in ((4, 2), (4,), (4, 2), (2,))), k=2)
SMOL = "HuggingFaceTB/SmolLM2-135M"
RUN = {"sae": {}, "model": SMOL, "dataset": "EleutherAI/SmolLM2-135M-10B", "ctx_len": 2048}
KNOWN = {"model": SMOL, "dataset": RUN["dataset"], "context": 2048}


def saved(path, **cfg):
    path.mkdir(parents=True)
    tensors = {
        "encoder.weight": FORM.W_enc,
        "encoder.bias": FORM.b_enc,
        "W_dec": FORM.W_dec,
        "b_dec": FORM.b_dec,
    }
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path / "sae.safetensors")
    (path / "cfg.json").write_text(json.dumps({"d_in": 2, "num_latents": 4, "k": 2, **cfg}))


def described(path, **changes):
    (path / "config.json").write_text(json.dumps(RUN | changes))


def test_layers_are_members_in_their_order(tmp_path):
    for layer in (10, 9, 2):
        saved(tmp_path / f"layers.{layer}")
    (tmp_path / "best" / "layers.2" / "layers.2").mkdir(parents=True)  # what training keeps besides
    (tmp_path / "state.pt").write_bytes(b"")
    assert FORMAT.recognizes(tmp_path)
    assert list(FORMAT.members(tmp_path)) == ["2", "9", "10"]
    assert FORMAT.members(tmp_path / "layers.2") == {}
    with pytest.raises(ArtifactError, match="there is no such file"):
        FORMAT.read(tmp_path)


def test_several_sites_of_a_layer_have_the_names_of_sites(tmp_path):
    for hookpoint in ("layers.2.mlp", "layers.2.self_attn"):
        saved(tmp_path / hookpoint)
    assert list(FORMAT.members(tmp_path)) == ["layers.2.mlp", "layers.2.self_attn"]  # of which model?
    described(tmp_path)
    assert list(FORMAT.members(tmp_path)) == ["2.mlp_out", "2.attn_out"]


def test_several_seeds_are_listed(tmp_path):
    for seed in (0, 1):
        saved(tmp_path / "layers.2" / f"seed{seed}")
    described(tmp_path, hookpoints=["layers.2"])
    assert FORMAT.recognizes(tmp_path)
    with pytest.raises(ArtifactError, match=r"layers\.2/seed0, layers\.2/seed1") as caught:
        FORMAT.members(tmp_path)
    assert caught.value.next == f"import one of them: {tmp_path / 'layers.2/seed0'}"
    at = FORMAT.read(tmp_path / "layers.2" / "seed1").provenance
    assert at == Provenance.at(2, "resid_post", **KNOWN)


def test_the_run_says_what_the_model_is(tmp_path):
    saved(tmp_path / "layers.9.mlp", transcode=True)
    described(tmp_path, hookpoints=["layers.9.mlp"])
    read = FORMAT.read(tmp_path / "layers.9.mlp")
    assert read.provenance == Provenance.at(9, "mlp_in", "mlp_out", **KNOWN)
    assert read.settings["hookpoint"] == "layers.9.mlp"
    assert read.settings["config.json"] == RUN | {"hookpoints": ["layers.9.mlp"]}
    assert [file.name for file in read.files] == ["cfg.json", "sae.safetensors", "config.json"]


def test_before_february_2025_the_run_said_what_a_transcoder_is(tmp_path):
    saved(tmp_path / "layers.9.mlp")
    described(tmp_path, transcode=True)
    read = FORMAT.read(tmp_path / "layers.9.mlp")
    assert (read.kind, read.dense.subtracts_b_dec) == ("transcoder", True)
    assert read.provenance.sources == ("9.mlp_in",)


@pytest.mark.parametrize("text", ["[1, 2", '{"model_type": "llama"}', '{"sae": 3}', "[]"])
def test_a_file_of_that_name_around_a_coder_may_be_something_else(tmp_path, text):
    saved(tmp_path / "layers.9")
    (tmp_path / "config.json").write_text(text)
    read = FORMAT.read(tmp_path / "layers.9")
    assert read.provenance == Provenance.at(9, "resid_post")
    assert read.settings.keys() == {"cfg.json", "hookpoint"}


@pytest.mark.parametrize(
    "run",
    [
        {"model": ["a"], "dataset": 3, "ctx_len": "many", "hookpoints": "layers.9"},
        {"model": "", "dataset": "", "ctx_len": -1, "hookpoints": ["../../layers.9"]},
        {"model": None, "dataset": None, "ctx_len": True, "hookpoints": [".."]},
    ],
)
def test_a_run_that_says_nonsense_says_nothing(tmp_path, run):
    saved(tmp_path / "a coder")
    described(tmp_path, **run)
    read = FORMAT.read(tmp_path / "a coder")
    assert read.provenance == Provenance()
    assert "hookpoint" not in read.settings


def test_a_coder_alone_keeps_what_is_known_of_its_run(tmp_path):
    saved(tmp_path / "run" / "layers.9")
    described(tmp_path / "run", hookpoints=["layers.3", "layers.9"])
    read = FORMAT.read(tmp_path / "run" / "layers.9")
    FORMAT.write(read, tmp_path / "out" / "alone")
    assert json.loads((tmp_path / "out/alone/config.json").read_text()) == RUN | {"hookpoints": ["layers.9"]}
    assert FORMAT.read(tmp_path / "out" / "alone").provenance == read.provenance


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("sae", Provenance.at(9, "resid_post", **KNOWN)),
        ("sae", Provenance.at(9, "mlp_in", model=SMOL)),
        ("transcoder", Provenance.at(9, "mlp_in", "mlp_out", model=SMOL)),
        ("sae", Provenance(model="someone/unknown", context=128)),
        ("sae", Provenance()),
    ],
)
def test_places_of_a_coder_that_was_trained_here_come_back(tmp_path, kind, at):
    FORMAT.write(Checkpoint(FORM, kind, at), tmp_path / "out")
    assert FORMAT.read(tmp_path / "out").provenance == at


def test_a_set_is_written_as_a_run(tmp_path):
    coders = {
        str(layer): Checkpoint(FORM, "transcoder", Provenance.at(layer, "mlp_in", "mlp_out", model=SMOL))
        for layer in (9, 10)
    }
    FORMAT.write_set(coders, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "layers.10.mlp", "layers.9.mlp"]
    run = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (run["hookpoints"], run["model"]) == (["layers.9.mlp", "layers.10.mlp"], SMOL)
    found = FORMAT.members(tmp_path / "out")
    assert list(found) == ["9", "10"]
    assert FORMAT.read(found["10"]).provenance == coders["10"].provenance


def test_a_set_of_unknown_places_has_the_names_that_it_has(tmp_path):
    FORMAT.write_set({"0": Checkpoint(FORM), "1": Checkpoint(FORM)}, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "1"]
    assert list(FORMAT.members(tmp_path / "out")) == ["0", "1"]
    one = Checkpoint(FORM, provenance=Provenance.at(3, "resid_post", model=SMOL))
    with pytest.raises(ArtifactError, match=r"in the folders layers\.3, layers\.3"):
        FORMAT.write_set({"a": one, "b": one}, tmp_path / "twice")
    with pytest.raises(ArtifactError, match="in the folders a/b"):
        FORMAT.write_set({"a/b": Checkpoint(FORM)}, tmp_path / "inside")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    saved(tmp_path / "elsewhere")
    (tmp_path / "one").mkdir()
    for name in ("cfg.json", "sae.safetensors"):
        (tmp_path / "one" / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(ArtifactError, match="a link out of the folder"):
        FORMAT.read(tmp_path / "one")
    assert not FORMAT.recognizes(tmp_path / "one")
