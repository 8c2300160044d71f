"""Both formats by hand: tiny files, and what follows from their numbers."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
import torch
from qsae_format_gemma_scope import GemmaScope2Config, GemmaScopeConfig
from qsae_format_gemma_scope.gemma_scope import GemmaScopeFormat
from qsae_format_gemma_scope.gemma_scope_2 import GemmaScope2Format
from safetensors.torch import load_file

from qsae_core.contracts import Checkpoint, CrossLayerForm, DenseForm, LayerForm, Provenance
from qsae_core.errors import ArtifactError

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from gemma_scope_files import (
    CLT,
    CONFIG,
    CROSSCODER,
    LATENTS,
    LAYERS,
    OUTPUT,
    PAIRS,
    PAIRS_LATENTS,
    PAIRS_OUTPUT,
    SKIP,
    X,
    npz,
    safetensors,
    several,
)

ONE, TWO = GemmaScopeFormat(GemmaScopeConfig()), GemmaScope2Format(GemmaScope2Config())


def computed(checkpoint, x=X):
    return checkpoint.form.encode(x).tolist(), checkpoint.form.reconstruct(x).tolist()


def test_a_params_npz(tmp_path):
    read = ONE.read(npz(tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"))
    assert computed(read) == (LATENTS, OUTPUT)
    assert (read.kind, read.notes) == ("sae", ())
    assert read.provenance == Provenance.at(20, "resid_post", model="google/gemma-2-2b")
    assert read.settings["folder"] == "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"


def test_params_safetensors(tmp_path):
    read = TWO.read(safetensors(tmp_path / "sae"))
    assert computed(read) == (LATENTS, OUTPUT)
    assert (read.kind, read.settings, read.notes) == ("sae", CONFIG, ())
    assert read.provenance == Provenance.at(9, "resid_post", model="google/gemma-3-1b-it")


def test_what_the_input_is_multiplied_with_is_not_transposed(tmp_path):
    config = CONFIG | {
        "hf_hook_point_in": "model.layers.9.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.9.post_feedforward_layernorm.output",
        "affine_connection": True,
        "type": "transcoder",
    }
    read = TWO.read(safetensors(tmp_path, config, affine_skip_connection=SKIP))
    assert computed(read) == (LATENTS, [[407.0 + 16, 438.0 + 6]])
    assert read.kind == "transcoder"
    assert read.provenance == Provenance.at(9, "mlp_in", "mlp_out", model="google/gemma-3-1b-it")
    TWO.write(read, tmp_path / "again")
    assert torch.equal(load_file(tmp_path / "again" / "params.safetensors")["affine_skip_connection"], SKIP)


def test_thresholds_below_0_act_as_0(tmp_path):
    """max(z, 0) where z > -1 is max(z, 0): of x = (-1, 0), z = (-0.5, 0, -3) gives nothing."""
    low = torch.tensor([-1.0, -1.0, -4.0])
    for form, folder in (
        (ONE, npz(tmp_path / "one", threshold=low.numpy())),
        (TWO, safetensors(tmp_path / "two", threshold=low)),
    ):
        read = form.read(folder)
        assert read.form.encode(torch.tensor([[-1.0, 0.0]])).tolist() == [[0.0, 0.0, 0.0]]
        assert read.form.encode(X).tolist() == [[1.5, 3.0, 4.0]]
        assert "circuit-tracer lets negative latents pass" in " ".join(read.notes)


# --- several layers


def test_a_crosscoder_reads_one_layer_with_each_latent(tmp_path):
    read = TWO.read(several(tmp_path, CROSSCODER))
    dense = read.dense
    assert (read.kind, dense.layers) == ("sae", 2)
    assert dense.encode(PAIRS.flatten(1)).tolist() == PAIRS_LATENTS
    assert dense.reconstruct(PAIRS.flatten(1)).unflatten(1, (2, 1)).tolist() == PAIRS_OUTPUT
    places = ("7.resid_post", "13.resid_post")
    assert read.provenance == Provenance("google/gemma-3-1b-it", places, places)


def test_a_cross_layer_transcoder(tmp_path):
    read = TWO.read(several(tmp_path / "clt", CLT))
    assert isinstance(read.form, CrossLayerForm)
    assert computed(read, PAIRS) == (PAIRS_LATENTS, PAIRS_OUTPUT)
    sources, targets = (tuple(f"{n}.{site}" for n in (0, 1)) for site in ("mlp_in", "mlp_out"))
    assert read.provenance == Provenance("google/gemma-3-1b-it", sources, targets)
    affine = {"affine_skip_connection": torch.tensor([[1000.0]])}
    folder = several(tmp_path / "affine", CLT | {"affine_connection": True}, **affine)
    outputs = TWO.read(folder).form.reconstruct(PAIRS)
    assert (outputs - torch.tensor(PAIRS_OUTPUT)).tolist() == (1000 * PAIRS).tolist()


@pytest.mark.parametrize("config", [CROSSCODER, CLT])
def test_layers_are_written_as_they_were_read(tmp_path, config):
    folder = several(tmp_path / "read", config)
    TWO.write(TWO.read(folder), tmp_path / "written")
    assert sorted(p.name for p in (tmp_path / "written").iterdir()) == sorted(
        p.name for p in folder.iterdir()
    )
    for number, tensors in enumerate(LAYERS):
        written = load_file(tmp_path / "written" / f"params_layer_{number}.safetensors")
        assert written.keys() == tensors.keys()
        assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())
    before, after = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path / "written"))
    assert before == after


@pytest.mark.parametrize("config", [CROSSCODER, CLT])
def test_what_writes_to_an_earlier_layer_is_refused(tmp_path, config):
    """The report says that no latent does; what of it counts, published code does not agree on."""
    layers = [LAYERS[0], LAYERS[1] | {"w_dec": torch.tensor([[[0.5], [100.0]]])}]
    with pytest.raises(ArtifactError, match=r"write to layers before their own, number 1"):
        TWO.read(several(tmp_path, config, layers))


def test_relus_of_a_cross_layer_transcoder_are_thresholds_of_0(tmp_path):
    layer = LayerForm(torch.ones(2, 3), torch.zeros(2), torch.ones(2, 1, 3), torch.zeros(3))
    TWO.write(Checkpoint(CrossLayerForm((layer,)), "transcoder"), tmp_path / "clt")
    assert load_file(tmp_path / "clt" / "params_layer_0.safetensors")["threshold"].tolist() == [0.0, 0.0]
    for change, what in (({"k": 1}, "1 largest latents"), ({"activation": "identity"}, "either sign")):
        with pytest.raises(ArtifactError, match=what):
            TWO.write(Checkpoint(CrossLayerForm((layer,), **change), "transcoder"), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_crosscoder_whose_latents_read_all_layers_has_no_place(tmp_path):
    W_enc = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    form = DenseForm(W_enc, torch.zeros(2), torch.ones(2, 2).triu(), torch.zeros(2), layers=2)
    with pytest.raises(ArtifactError, match=r"latents that read several layers"):
        TWO.write(Checkpoint(form), tmp_path / "crosscoder")
    with pytest.raises(ArtifactError, match=r"no place for a coder with vectors of 2 layers"):
        ONE.write(Checkpoint(form), tmp_path / "crosscoder")
