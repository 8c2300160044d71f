"""The format ``sparsify`` by hand: small files, their numbers, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from qsae_format_sparsify import SparsifyConfig
from qsae_format_sparsify.checkpoint_format import SparsifyFormat
from safetensors.torch import load_file, save_file

from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError

FORMAT = SparsifyFormat(SparsifyConfig())
# two latents that read and write one dimension
TENSORS = {
    "encoder.weight": torch.tensor([[1.0], [2.0]]),
    "encoder.bias": torch.tensor([0.5, 0.0]),
    "W_dec": torch.tensor([[2.0], [3.0]]),
    "b_dec": torch.ones(1),
}
X = torch.tensor([[3.0], [-1.0]])


def saved(path, tensors=TENSORS, **cfg):
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "sae.safetensors")
    (path / "cfg.json").write_text(json.dumps({"d_in": 1, "num_latents": 2, "k": 1, **cfg}))
    return path


def test_an_sae_by_hand(tmp_path):
    read = FORMAT.read(saved(tmp_path))
    # of x = 3 the pre-activations are 1 * (3 - 1) + 0.5 and 2 * (3 - 1); the larger one stays; 4 * 3 + 1
    # of x = -1 they are -1.5 and -4, so that nothing is left but b_dec
    assert (read.kind, read.dense.encode(X).tolist()) == ("sae", [[0.0, 4.0], [0.0, 0.0]])
    assert read.dense.reconstruct(X).tolist() == [[13.0], [1.0]]
    assert read.settings == {"cfg.json": {"d_in": 1, "num_latents": 2, "k": 1}}


def test_a_transcoder_with_a_skip_connection_by_hand(tmp_path):
    tensors = TENSORS | {"W_skip": torch.tensor([[10.0]])}
    read = FORMAT.read(saved(tmp_path, tensors, transcode=True, skip_connection=True))
    # nothing is subtracted: 1 * 3 + 0.5 and 2 * 3; 6 * 3 + 1 + 10 * 3
    assert (read.kind, read.dense.encode(X).tolist()) == ("transcoder", [[0.0, 6.0], [0.0, 0.0]])
    assert read.dense.reconstruct(X).tolist() == [[49.0], [-9.0]]


@pytest.mark.parametrize(
    ("cfg", "n_latents"),
    [({"num_latents": 0, "expansion_factor": 2}, 2), ({"num_latents": 2, "expansion_factor": 32}, 2)],
)
def test_how_many_latents(tmp_path, cfg, n_latents):
    read = FORMAT.read(saved(tmp_path / "one", **cfg))
    assert read.dense.n_latents == n_latents
    FORMAT.write(read, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "cfg.json").read_text()) == read.settings["cfg.json"]


def test_what_is_missing_is_the_library_s_default(tmp_path):
    tensors = {
        "encoder.weight": torch.ones(64, 2),
        "encoder.bias": torch.ones(64),
        "W_dec": torch.ones(64, 2),
        "b_dec": torch.ones(2),
    }
    saved(tmp_path, tensors)
    (tmp_path / "cfg.json").write_text('{"d_in": 2}')
    assert FORMAT.read(tmp_path).dense.k == 32


@pytest.mark.parametrize(
    ("cfg", "fault"),
    [
        ({"activation": "groupmax"}, "the largest latent of each of k groups"),
        ({"activation": "batchtopk"}, "its activation is 'batchtopk'"),
        ({"activation": 3}, "its activation is 3"),
        ({"signed": True}, "it is signed"),
        ({"k": 0}, "k is 0"),
        ({"k": -4}, "k is -4"),
        ({"k": 3}, "k is 3, with 2 latents"),
        ({"k": "1"}, "k is '1'"),
        ({"k": True}, "k is True"),
        ({"k": 1.0}, "k is 1.0"),
        ({"d_in": 0}, "d_in is 0"),
        ({"d_in": None}, "d_in is None"),
        ({"d_in": 10**15}, r"its tensors are W_dec \[2, 1\]"),
        ({"num_latents": -1}, "num_latents is -1"),
        ({"num_latents": 10**12}, r"its tensors are W_dec \[2, 1\]"),
        ({"num_latents": 0, "expansion_factor": 0}, "expansion_factor is 0"),
        ({"num_latents": 0}, "its tensors are"),  # 32 times the width
        ({"skip_connection": True}, "its tensors are"),
        ({"skip_connection": 1}, "skip_connection is 1"),
        ({"transcode": "no"}, "transcode is 'no'"),
        ({"normalize_decoder": "yes"}, "normalize_decoder is 'yes'"),
        ({"n_targets": 4}, "cfg.json says n_targets = 4, which sparsify 1.3.3 does not know"),
        ({"normalize_io": True}, "cfg.json says normalize_io"),
        ({"coalesce_topk": "concat"}, "cfg.json says coalesce_topk = 'concat'"),
    ],
)
def test_lying_settings_and_other_variants_are_refused(tmp_path, cfg, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.read(saved(tmp_path, **cfg))


def test_settings_that_say_nothing_are_kept(tmp_path):
    cfg = {"signed": False, "n_targets": 0, "coalesce_topk": "none", "dtype": None}
    read = FORMAT.read(saved(tmp_path / "one", **cfg))
    FORMAT.write(read, tmp_path / "again")
    assert (tmp_path / "again/cfg.json").read_text() == (tmp_path / "one/cfg.json").read_text()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"W_dec": None}, "its tensors are b_dec"),
        ({"W_skip": torch.ones(1, 1)}, "its tensors are W_dec"),
        ({"post_enc": torch.ones(2)}, "post_enc"),
        ({"W_decs.0": torch.ones(2, 1)}, r"W_decs\.0"),
        ({"W_dec": torch.ones(2, 3)}, r"W_dec \[2, 3\]"),
        ({"b_dec": torch.ones(1, 1)}, r"b_dec \[1, 1\]"),
        ({"b_dec": torch.tensor([float("nan")])}, "b_dec has NaN"),
        ({"b_dec": torch.ones(1, dtype=torch.float64)}, "b_dec is torch.float64"),
    ],
)
def test_other_tensors_are_refused(tmp_path, change, fault):
    tensors = {name: tensor for name, tensor in (TENSORS | change).items() if tensor is not None}
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.read(saved(tmp_path, tensors))


def test_types_are_those_of_the_file(tmp_path):
    tensors = TENSORS | {"W_dec": TENSORS["W_dec"].bfloat16()}
    read = FORMAT.read(saved(tmp_path / "one", tensors))
    assert read.notes == ("its tensors are of several types, which sparsify turns into that of W_dec",)
    FORMAT.write(read, tmp_path / "again")
    again = load_file(tmp_path / "again" / "sae.safetensors")
    assert {name: tensor.dtype for name, tensor in again.items()} == {n: t.dtype for n, t in tensors.items()}


FORM = DenseForm(*(torch.ones(size) for size in ((4, 2), (4,), (4, 2), (2,))), k=2)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"k": None}, "activation relu and no fixed number of latents"),
        (
            {"k": None, "activation": "jumprelu", "threshold": torch.ones(4)},
            "activation jumprelu and no fixed number",
        ),
        ({"activation": "jumprelu", "threshold": torch.ones(4)}, "activation jumprelu"),
        ({"activation": "identity"}, "activation identity"),
        ({"ranks_by_norm": True}, "the 2 largest latents times the norms of their atoms"),
        ({"W_dec": torch.ones(4, 3), "b_dec": torch.ones(3)}, "2 inputs and 3 outputs"),
        ({"layers": 2}, "several layers"),
    ],
)
def test_what_the_library_has_no_place_for_is_refused(tmp_path, change, fault):
    with pytest.raises(ArtifactError, match=f"no place for a coder with {fault}"):
        FORMAT.write(Checkpoint(dataclasses.replace(FORM, **change)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "transcodes", "bias"),
    # an SAE of the library reads x - b_dec: 1 + 2 * 1 * 1 is added to the bias
    [("sae", False, 3.0), ("transcoder", True, 1.0)],
)
def test_the_configuration_of_a_coder_of_another_origin(tmp_path, kind, transcodes, bias):
    FORMAT.write(Checkpoint(FORM, kind), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text()) == {
        "activation": "topk",
        "expansion_factor": 2,
        "normalize_decoder": False,
        "num_latents": 4,
        "k": 2,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": transcodes,
        "d_in": 2,
    }
    assert load_file(tmp_path / "out" / "sae.safetensors")["encoder.bias"].tolist() == [bias] * 4
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["cfg.json", "sae.safetensors"]


def test_atoms_of_norm_1_are_kept_there(tmp_path):
    unit = dataclasses.replace(FORM, W_dec=torch.eye(2).repeat(2, 1))
    FORMAT.write(Checkpoint(unit), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["normalize_decoder"] is True


def test_a_changed_coder_says_what_it_is_now(tmp_path):
    read = FORMAT.read(saved(tmp_path / "one", num_latents=0, expansion_factor=2))
    half = {name: tensor[:1] for name, tensor in read.dense.tensors().items() if name != "b_dec"}
    FORMAT.write(dataclasses.replace(read, form=dataclasses.replace(read.dense, **half)), tmp_path / "half")
    cfg = json.loads((tmp_path / "half" / "cfg.json").read_text())
    assert cfg == {"d_in": 1, "num_latents": 1, "k": 1, "expansion_factor": 2}
    FORMAT.write(dataclasses.replace(read, form=dataclasses.replace(read.dense, k=2)), tmp_path / "two")
    assert json.loads((tmp_path / "two" / "cfg.json").read_text())["k"] == 2
