"""Files that lie, are damaged, or hold what is not known: refused by name."""

from __future__ import annotations

import io
import json
import pathlib
import sys

import numpy
import pytest
import torch
from qsae_format_gemma_scope import GemmaScope2Config, GemmaScopeConfig
from qsae_format_gemma_scope.below import by_layer, files_below
from qsae_format_gemma_scope.gemma_scope import GemmaScopeFormat
from qsae_format_gemma_scope.gemma_scope_2 import GemmaScope2Format
from safetensors.torch import save_file

from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from gemma_scope_files import CLT, CONFIG, CROSSCODER, LAYERS, SKIP, TENSORS, npz, safetensors, several

ONE, TWO = GemmaScopeFormat(GemmaScopeConfig()), GemmaScope2Format(GemmaScope2Config())
ones = numpy.ones


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"scaling_factor": ones(3, "float32") * 2}, "scaling_factor that is not 1 for each latent"),
        ({"scaling_factor": ones((), "float32")}, "scaling_factor that is not 1 for each latent"),
        ({"W_skip": ones((2, 2), "float32")}, "the array 'W_skip', which is not known"),
        ({"w_enc": ones((2, 3), "float32")}, "under two names"),
        ({"W_enc": ones((3, 2), "float32")}, r"shape"),
        ({"W_enc": ones((2, 3, 1), "float32")}, r"shape \[2, 3, 1\]"),
        ({"W_enc": ones(2, "float32")}, r"shape \[2\]"),
        ({"threshold": ones((), "float32")}, r"threshold has shape \[\]"),
        ({"b_enc": ones(3, "float64")}, "b_enc is torch.float64"),
        ({"b_enc": ones(3, "int64")}, "b_enc is torch.int64"),
        ({"b_enc": ones(3, "float32") * numpy.nan}, "b_enc has NaN"),
        ({"b_dec": numpy.array([{}, 1], dtype=object)}, "values of type object"),
    ],
)
def test_arrays(tmp_path, arrays, fault):
    npz(tmp_path, **arrays)
    with pytest.raises(ArtifactError, match=fault):
        ONE.read(tmp_path)


def test_a_missing_array(tmp_path):
    arrays = {name.replace("w_", "W_"): tensor.numpy() for name, tensor in TENSORS.items()}
    del arrays["threshold"]
    numpy.savez(tmp_path / "params.npz", **arrays)
    assert not ONE.recognizes(tmp_path)
    with pytest.raises(ArtifactError, match=r"there is no array threshold"):
        ONE.read(tmp_path)


TRANSCODER = CONFIG | {"type": "transcoder"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"width": 2**40}, "width is 1099511627776, and there are 3 latents"),
        ({"width": "3"}, "width is '3'"),
        ({"width": 3.0}, "width is 3.0"),
        ({"width": True}, "width is True"),
        ({"architecture": "topk"}, "architecture is 'topk'"),
        ({"architecture": ["jump_relu"]}, "architecture is"),
        ({"type": "lorsa"}, "type is 'lorsa'"),
        ({"type": {}}, "type is {}"),
        ({"type": "clt"}, "type is 'clt', and its tensors are of one layer"),
        ({"type": "crosscoder"}, "type is 'crosscoder', and its tensors are of one layer"),
        ({"affine_connection": True}, "affine_connection is True, and there is none"),
        ({"affine_connection": 0}, "affine_connection is 0"),
        ({"affine_connection": "no"}, "affine_connection is 'no'"),
        ({"model_name": None}, "model_name is None"),
        ({"hf_hook_point_in": 9}, "hf_hook_point_in is 9"),
        (
            {"hf_hook_point_out": "model.layers.10.output"},
            "type is 'sae', and it reads .*9.* and writes .*10",
        ),
        ({"normalize_activations": "layer_norm"}, "the setting 'normalize_activations', which is not known"),
    ],
)
def test_settings(tmp_path, change, fault):
    with pytest.raises(ArtifactError, match=fault):
        TWO.read(safetensors(tmp_path, CONFIG | change))


@pytest.mark.parametrize(
    ("tensors", "config", "fault"),
    [
        ({"affine_skip_connection": SKIP}, CONFIG | {"affine_connection": True}, "'sae', and .* a skip"),
        ({"affine_skip_connection": SKIP}, TRANSCODER, "is False, and there is one"),
        ({"log_threshold": torch.zeros(3)}, CONFIG, "the tensor 'log_threshold', not known"),
        (
            {"w_dec": torch.zeros(3, 4), "b_dec": torch.zeros(4)},
            CONFIG,
            "'sae', and it reads and writes other",
        ),
        ({"w_dec": torch.zeros(3, 2, 2)}, CONFIG, "W_dec has shape"),
        ({"w_enc": torch.zeros(6)}, CONFIG, "W_enc has shape"),
        ({"threshold": torch.zeros(3).double()}, CONFIG, "threshold is torch.float64"),
        ({"threshold": torch.full((3,), torch.inf)}, CONFIG, "threshold has NaN or infinite"),
    ],
)
def test_tensors(tmp_path, tensors, config, fault):
    with pytest.raises(ArtifactError, match=fault):
        TWO.read(safetensors(tmp_path, config, **tensors))


@pytest.mark.parametrize(
    ("config", "change", "fault"),
    [
        (CROSSCODER | {"type": "sae"}, {}, "type is 'sae', and there is a file for each of 2 layers"),
        (CROSSCODER | {"width": 1}, {}, "width is 1, and there are 2 latents"),
        (
            CROSSCODER | {"affine_connection": True},
            {"affine_skip_connection": torch.ones(1, 1)},
            "type is 'crosscoder', and it has a skip connection",
        ),
        (CLT, {"b_enc": torch.ones(2)}, r"b_enc is torch.float32 \[2\]"),
        (CLT, {"w_enc": torch.ones(1)}, r"w_enc has shape \[1\]"),
        (CLT, {"w_dec": torch.zeros(1, 2)}, r"w_dec has shape \[1, 2\]"),
        (CLT, {"w_dec": torch.zeros(1, 0, 1)}, r"w_dec has shape \[1, 0, 1\]"),
        (CLT, {"w_dec": torch.zeros(1, 1, 1)}, "has more files than the 1 layers of w_dec"),
        (CLT, {"w_dec": torch.zeros(1, 3, 1)}, "params_layer_2.safetensors: there is no such file"),
        (CLT, {"w_dec": torch.zeros(1, 5000, 1)}, r"w_dec has shape \[1, 5000, 1\]"),
        (CLT, {"threshold": torch.tensor([1], dtype=torch.int32)}, "threshold of layer 0 is torch.int32"),
    ],
)
def test_several_layers(tmp_path, config, change, fault):
    with pytest.raises(ArtifactError, match=fault):
        TWO.read(several(tmp_path, config, **change))


def test_layers_that_differ(tmp_path):
    half = {name: tensor.half() for name, tensor in LAYERS[1].items()}
    with pytest.raises(ArtifactError, match=r"params_layer_1.* torch.float16"):
        TWO.read(several(tmp_path / "a", CLT, [LAYERS[0], half]))
    affine = LAYERS[1] | {"affine_skip_connection": torch.ones(1, 1)}
    with pytest.raises(ArtifactError, match=r"has other tensors than the first layer"):
        TWO.read(several(tmp_path / "b", CLT, [LAYERS[0], affine]))


def test_a_config_that_is_none(tmp_path):
    for text in ("[1]", "{", '{"width": NaN}'):
        (safetensors(tmp_path) / "config.json").write_text(text)
        assert TWO.recognizes(tmp_path)
        with pytest.raises(ArtifactError, match=r"config.json"):
            TWO.read(tmp_path)


def test_links_lead_nowhere_else(tmp_path):
    outside = safetensors(tmp_path / "outside")
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("params.safetensors", "config.json"):
        (inside / name).symlink_to(outside / name)
    assert not TWO.recognizes(inside)
    with pytest.raises(ArtifactError, match=r"a link out of the folder|there is no such file"):
        TWO.read(inside)
    (inside / "params.safetensors").unlink()
    save_file(TENSORS, inside / "params.safetensors")
    read = TWO.read(inside)  # the config.json that is elsewhere is not its own
    assert (read.settings, len(read.files)) == ({}, 1)


def test_other_folders_are_not_searched_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("qsae_format_gemma_scope.below.MOST_ENTRIES", 20)
    for n in range(30):
        (tmp_path / str(n)).touch()
    for form in (ONE, TWO):
        assert not form.recognizes(tmp_path)
        with pytest.raises(ArtifactError, match=r"more than 20 files"):
            form.members(tmp_path)


def test_the_search_ends_at_a_depth_and_leaves_out_what_is_hidden(tmp_path):
    deep = tmp_path.joinpath(*"12345678")
    deeper, hidden = deep / "9", tmp_path / ".cache"
    for folder in (deeper, hidden):
        folder.mkdir(parents=True)
    for folder in (deep, deeper, hidden):
        (folder / "params.npz").touch()
    (tmp_path / "around").symlink_to(tmp_path)
    assert list(files_below(tmp_path, "params.npz")) == [deep / "params.npz"]
    assert by_layer({}, tmp_path) == {}


def test_files_given_as_folders(tmp_path):
    npz(tmp_path)
    dense = ONE.read(tmp_path / "params.npz").dense
    for form, name in ((ONE, "params.npz"), (TWO, "params.safetensors")):
        with pytest.raises(ArtifactError, match=rf"a folder is written, with {name} in it"):
            form.write(Checkpoint(dense), tmp_path / "new" / name)
    with pytest.raises(ArtifactError, match=r"there is no params.safetensors"):
        TWO.read(tmp_path / "params.npz")
    with pytest.raises(ArtifactError, match=r"there is no params.npz"):
        ONE.read(tmp_path / "other.bin")


@pytest.mark.parametrize("names", ["W_enc", ["W_enc"], [1], ["../x", "W_enc"], {"W_enc": 1}, None])
def test_settings_of_an_altered_artifact(tmp_path, names):
    dense = DenseForm(torch.ones(2, 1), torch.zeros(2), torch.ones(2, 1), torch.zeros(1))
    with pytest.raises(ArtifactError, match=r"its settings name other arrays"):
        ONE.write(Checkpoint(dense, settings={"arrays": names}), tmp_path / "out")
    ONE.write(Checkpoint(dense, settings={"folder": "../../x/layer_3"}), tmp_path / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.npz")] == ["out/params.npz"]


def test_pickles_are_not_opened(tmp_path):
    class Touch:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    buffer = io.BytesIO()
    numpy.savez(buffer, W_enc=numpy.array([Touch()], dtype=object))
    (tmp_path / "params.npz").write_bytes(buffer.getvalue())
    assert not ONE.recognizes(tmp_path)
    with pytest.raises(ArtifactError, match=r"object"):
        ONE.read(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_unknown_settings_come_with_what_to_do(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        TWO.read(safetensors(tmp_path, CONFIG | {"seed": 1}))
    assert caught.value.next == (
        "take it out of config.json, if it changes nothing of what the coder computes"
    )
    (tmp_path / "config.json").write_text(json.dumps({"width": 3}))
    assert TWO.read(tmp_path).kind == "sae"
