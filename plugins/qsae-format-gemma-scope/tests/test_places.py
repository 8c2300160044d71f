"""What the names of folders and config.json say of where vectors are, and where they say nothing."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
import torch
from qsae_format_gemma_scope import GemmaScope2Config, GemmaScopeConfig
from qsae_format_gemma_scope.folders import Folders
from qsae_format_gemma_scope.gemma_scope import GemmaScopeFormat
from qsae_format_gemma_scope.gemma_scope_2 import GemmaScope2Format
from qsae_format_gemma_scope.hooks import SITES, hook_of, model_of, told_by_folders

from qsae_core.contracts import Provenance
from qsae_core.errors import ArtifactError

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from gemma_scope_files import CLT, CONFIG, npz, safetensors, several

ONE, TWO = GemmaScopeFormat(GemmaScopeConfig()), GemmaScope2Format(GemmaScope2Config())
CACHE = "models--google--gemma-scope-2b-pt-res/snapshots/fd571b47c1c64851e9b1989792367b9babb4af63"


@pytest.mark.parametrize(
    ("path", "provenance", "kind", "note"),
    [
        (
            "gemma-scope-9b-it-res/layer_31/width_131k/average_l0_109",
            Provenance.at(31, "resid_post", model="google/gemma-2-9b-it"),
            "sae",
            None,
        ),
        (f"{CACHE}/layer_5/width_1m", Provenance.at(5, "resid_post", model="google/gemma-2-2b"), "sae", None),
        (
            "gemma-scope-27b-pt-mlp/layer_0/width_16k/canonical",
            Provenance.at(0, "mlp_out", model="google/gemma-2-27b"),
            "sae",
            None,
        ),
        ("gemma-scope-2b-pt-att/layer_3/width_16k", Provenance("google/gemma-2-2b"), "sae", "all heads"),
        (
            "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_5",
            Provenance("google/gemma-2-2b"),
            "transcoder",
            "before the weight of the norm",
        ),
        (
            "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6",
            Provenance("google/gemma-2-2b"),
            "sae",
            "multiplied by sqrt",
        ),
        ("gemma-scope-2b-pt-res", Provenance("google/gemma-2-2b"), "sae", None),
        ("layer_20/width_16k/average_l0_71", Provenance(), "sae", "taken for an SAE"),
        ("mine/layer_-1", Provenance(), "sae", "taken for an SAE"),
    ],
)
def test_folders_of_gemma_scope(tmp_path, path, provenance, kind, note):
    read = ONE.read(npz(tmp_path / path))
    assert (read.provenance, read.kind) == (provenance, kind)
    assert [note in text for text in read.notes] == ([] if note is None else [True])


def test_a_relative_path_is_told_by_the_folders_around_it(tmp_path, monkeypatch):
    folder = npz(tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71")
    monkeypatch.chdir(folder)
    for path in (".", "params.npz", "../average_l0_71"):
        assert ONE.read(pathlib.Path(path)).provenance.sources == ("20.resid_post",), path


def test_the_cache_of_the_hub_has_links_to_its_blobs(tmp_path):
    snapshot = tmp_path / CACHE / "layer_20" / "width_16k" / "average_l0_71"
    blobs = tmp_path / CACHE.partition("/")[0] / "blobs"
    npz(blobs)
    snapshot.mkdir(parents=True)
    (blobs / "params.npz").rename(blobs / "0123abc")
    (snapshot / "params.npz").symlink_to("../../../../../blobs/0123abc")
    for place in (snapshot, tmp_path / CACHE, tmp_path / CACHE.partition("/")[0], snapshot / "params.npz"):
        assert ONE.recognizes(place), place
        assert ONE.read(place).provenance.sources == ("20.resid_post",)
    outside = tmp_path / "outside" / "layer_1"
    outside.mkdir(parents=True)
    (outside / "params.npz").symlink_to(blobs / "0123abc")
    assert not ONE.recognizes(outside)
    with pytest.raises(ArtifactError, match=r"a link out of the folder"):
        ONE.read(outside)


def test_where_an_sae_of_ours_would_be():
    place = Provenance.at(20, "resid_post", model="google/gemma-2-9b-it")
    assert str(Folders.of(place, "16k")) == "gemma-scope-9b-it-res/layer_20/width_16k"
    assert Folders.named(str(Folders.of(place, "16k"))).provenance() == place
    for other in (
        Provenance.at(20, "mlp_in", model="google/gemma-2-9b"),
        Provenance.at(20, "mlp_in", "mlp_out", model="google/gemma-2-9b"),
        Provenance.at(20, "resid_post", model="google/gemma-3-1b-pt"),
        Provenance(),
    ):
        assert str(Folders.of(other, "16k")) == ""
    for hostile in ("../../etc", "/etc/layer_1", "gemma-scope-2b-pt-res/../layer_1", "layer_1/../../x"):
        assert str(Folders.named(hostile)) in ("", "gemma-scope-2b-pt-res"), hostile


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("google/gemma-3-1b-pt", "google/gemma-3-1b-pt"),
        ("gemma-v3-27b-it", "google/gemma-3-27b-it"),
        ("google/gemma-3-270m-pt", "google/gemma-3-270m"),
        ("google/gemma-3-270m-it", "google/gemma-3-270m-it"),
        ("someone/other", "someone/other"),
        ("", None),
    ],
)
def test_models_are_called_as_on_the_hub(name, model):
    assert model_of(name) == model


@pytest.mark.parametrize(
    ("path", "hooks", "kind"),
    [
        ("resid_post/layer_13_width_16k_l0_small", ("13.output",) * 2, "sae"),
        ("resid_post/layer_12_width_262k_l0_medium_seed_1", ("12.output",) * 2, "sae"),
        ("attn_out_all/layer_0_width_16k_l0_big", ("0.self_attn.o_proj.input",) * 2, "sae"),
        ("mlp_out/layer_9_width_1m_l0_big", ("9.post_feedforward_layernorm.output",) * 2, "sae"),
        (
            "transcoder_all/layer_3_width_16k_l0_small_affine",
            ("3.pre_feedforward_layernorm.output", "3.post_feedforward_layernorm.output"),
            "transcoder",
        ),
        ("crosscoder/layer_7_13_17_22_width_65k_l0_medium", ("{7,13,17,22}.output",) * 2, "crosscoder"),
        (
            "clt/width_262k_l0_big_affine",
            ("{all}.pre_feedforward_layernorm.output", "{all}.post_feedforward_layernorm.output"),
            "clt",
        ),
        ("resid_post/other", None, None),
    ],
)
def test_folders_of_gemma_scope_2(tmp_path, path, hooks, kind):
    told = told_by_folders(tmp_path / "gemma-scope-2-4b-it" / path)
    if hooks is None:
        assert told == {}
        return
    wanted = {f"hf_hook_point_{s}": f"model.layers.{h}" for s, h in zip(("in", "out"), hooks, strict=True)}
    assert told == wanted | {"model_name": "google/gemma-3-4b-it", "type": kind}


def test_settings_are_taken_before_names(tmp_path):
    folder = tmp_path / "gemma-scope-2-4b-it" / "mlp_out" / "layer_13_width_16k_l0_small"
    assert TWO.read(safetensors(folder)).provenance.sources == ("9.resid_post",)
    (folder / "config.json").unlink()
    read = TWO.read(folder)
    assert read.provenance == Provenance.at(13, "mlp_out", model="google/gemma-3-4b-it")
    assert read.settings == {
        "hf_hook_point_in": "model.layers.13.post_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.13.post_feedforward_layernorm.output",
        "model_name": "google/gemma-3-4b-it",
        "type": "sae",
        "width": 3,
        "architecture": "jump_relu",
        "affine_connection": False,
    }


def test_nothing_that_says_what_it_is(tmp_path):
    read = TWO.read(safetensors(tmp_path, None))
    assert (read.kind, read.provenance, read.settings) == ("sae", Provenance(), {})
    assert "taken for an SAE" in read.notes[0]
    (tmp_path / "several").mkdir()
    with pytest.raises(ArtifactError, match=r"type is None, and there is a file for each of 2 layers"):
        TWO.read(several(tmp_path / "several", None))


def test_hooks_of_places():
    model = "google/gemma-3-1b-pt"
    for module, site in SITES.items():
        assert hook_of(Provenance.at(4, site, model=model), (f"4.{site}",)) == f"model.layers.4.{module}"
    sites = ("4.resid_post", "6.resid_post")
    assert hook_of(Provenance(model), sites) == "model.layers.{4,6}.output"
    assert hook_of(Provenance(model), ("4.resid_post", "6.mlp_out")) is None
    assert hook_of(Provenance("HuggingFaceTB/SmolLM2-135M"), ("4.mlp_in",)) is None


def test_sets_are_in_the_order_of_layers(tmp_path):
    for layer in (10, 9, 0):
        npz(tmp_path / "one" / f"layer_{layer}" / "width_16k" / "average_l0_5")
        hooks = {key: f"model.layers.{layer}.output" for key in CONFIG if key.startswith("hf")}
        safetensors(tmp_path / "two" / f"layer_{layer}_width_16k_l0_big", CONFIG | hooks)
    npz(tmp_path / "one" / "embedding" / "width_4k")
    assert list(ONE.members(tmp_path / "one")) == ["embedding", "0", "9", "10"]
    assert list(TWO.members(tmp_path / "two")) == ["0", "9", "10"]
    for form, folder in ((ONE, tmp_path / "one"), (TWO, tmp_path / "two")):
        assert form.recognizes(folder)
        with pytest.raises(ArtifactError, match=r"has [34] (files params.npz|coders) below it"):
            form.read(folder)
    npz(tmp_path / "one" / "layer_9" / "width_65k")
    with pytest.raises(ArtifactError, match=r"several coders of layer 9"):
        ONE.members(tmp_path / "one")
    safetensors(tmp_path / "two" / "layer_9_width_65k_l0_big")
    with pytest.raises(ArtifactError, match=r"several coders of layer 9"):
        TWO.members(tmp_path / "two")


def test_what_is_of_no_layer_is_in_no_set(tmp_path):
    npz(tmp_path / "a")
    npz(tmp_path / "b")
    with pytest.raises(ArtifactError, match=r"of which layer"):
        ONE.members(tmp_path)
    safetensors(tmp_path / "c")
    several(tmp_path / "d", CLT)
    with pytest.raises(ArtifactError, match=r"of several layers, and beside others"):
        TWO.members(tmp_path)


def test_sites_are_the_modules_of_gemma_3(tmp_path):
    """A Gemma 3 of random weights: what its modules read and give is what the data source reads at a site."""
    transformers = pytest.importorskip("transformers")
    from qsae_data_lm.families import FAMILIES
    from qsae_data_lm.hooks import read_sites

    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    model = transformers.Gemma3ForCausalLM(config).eval()
    for parameter in model.parameters():  # the norms' weights are not 0 then
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 50, (1, 7))
    layer, found, hooks = model.model.layers[1], {}, []
    for path in SITES:
        module, _, side = path.rpartition(".")
        place = layer.get_submodule(module)

        def keep(_, inputs, outputs, path=path, side=side):
            value = inputs[0] if side == "input" else outputs
            found[path] = value[0] if isinstance(value, tuple) else value

        hooks.append(place.register_forward_hook(keep))
    sites = [(1, site) for site in SITES.values()]
    with torch.no_grad():
        model(tokens)
        for hook in hooks:
            hook.remove()
        read = read_sites(
            model.model.layers, FAMILIES["gemma3_text"], sites, lambda: model(tokens), n_contexts=1
        )
    assert len({tuple(vector.flatten().tolist()) for vector in read.values()}) == len(SITES)
    for path, site in SITES.items():
        assert torch.equal(found[path], read[1, site]), path


def test_json_of_the_settings(tmp_path):
    TWO.write(TWO.read(safetensors(tmp_path / "a")), tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == CONFIG
