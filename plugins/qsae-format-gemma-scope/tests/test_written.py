"""What is written of coders that other code made: with thresholds alone, or not at all."""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import replace

import numpy
import pytest
import torch
from qsae_format_gemma_scope import GemmaScope2Config, GemmaScopeConfig
from qsae_format_gemma_scope.gemma_scope import GemmaScopeFormat
from qsae_format_gemma_scope.gemma_scope_2 import GemmaScope2Format
from qsae_format_gemma_scope.jumprelu import width_name
from safetensors.torch import load_file

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from gemma_scope_files import CONFIG, npz, safetensors

ONE, TWO = GemmaScopeFormat(GemmaScopeConfig()), GemmaScope2Format(GemmaScope2Config())
FORM = DenseForm(
    W_enc=torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]]),
    b_enc=torch.tensor([0.5, 0.0, -1.0]),
    W_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    b_dec=torch.tensor([1.0, 2.0]),
)
TRANSCODER = replace(FORM, W_dec=torch.ones(3, 2), W_skip=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def arrays_of(folder):
    with numpy.load(folder / "params.npz") as found:
        return {name: found[name].tolist() for name in found}


def test_relus_are_thresholds_of_0_and_offsets_are_folded(tmp_path):
    wanted = {
        "W_enc": [[1.0, 0.0, 3.0], [2.0, 1.0, 1.0]],
        "b_enc": [0.5 - 5, -2.0, -1.0 - 5],  # less W_enc b_dec, which is (1 + 4, 2, 3 + 2)
        "W_dec": FORM.W_dec.tolist(),
        "b_dec": [1.0, 2.0],
        "threshold": [0.0, 0.0, 0.0],
    }
    given = Checkpoint(replace(FORM, subtracts_b_dec=True))
    ONE.write(given, tmp_path / "one")
    TWO.write(given, tmp_path / "two")
    assert arrays_of(tmp_path / "one") == wanted
    found = load_file(tmp_path / "two" / "params.safetensors")
    assert {name.lower(): value for name, value in wanted.items()} == {
        n: t.tolist() for n, t in found.items()
    }
    assert json.loads((tmp_path / "two" / "config.json").read_text()) == {
        "model_name": "",
        "width": 3,
        "architecture": "jump_relu",
        "affine_connection": False,
        "type": "sae",
    }


@pytest.mark.parametrize("form", [ONE, TWO])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"k": 2}, "the 2 largest latents of a token"),
        ({"activation": "identity"}, "latents of either sign"),
        (
            {"activation": "jumprelu", "threshold": torch.tensor([0.0, -1.0, 1.0])},
            "negative latents, above thresholds below 0",
        ),
    ],
)
def test_what_has_no_place(tmp_path, form, change, what):
    with pytest.raises(ArtifactError, match=f"no place for a coder with {what}") as caught:
        form.write(Checkpoint(replace(FORM, **change)), tmp_path / "out")
    assert "JumpReLU, ReLU, BatchTopK and gated" in caught.value.allowed
    assert not (tmp_path / "out").exists()


def test_gemma_scope_has_no_skip_connections_and_no_bfloat16(tmp_path):
    with pytest.raises(ArtifactError, match=r"no place for a coder with a skip connection"):
        ONE.write(
            Checkpoint(
                replace(TRANSCODER, W_dec=torch.ones(3, 1), b_dec=torch.ones(1), W_skip=torch.ones(1, 2)),
                "transcoder",
            ),
            tmp_path / "a",
        )
    with pytest.raises(ArtifactError, match=r"numpy has no bfloat16") as caught:
        ONE.write(Checkpoint(FORM.in_dtypes(torch.bfloat16)), tmp_path / "b")
    assert caught.value.next == "add --dtype float32"
    ONE.write(Checkpoint(FORM.in_dtypes(torch.float16)), tmp_path / "c")
    assert {tensor.dtype for tensor in ONE.read(tmp_path / "c").dense.tensors().values()} == {torch.float16}


def test_a_square_transcoder_would_come_back_as_an_sae_from_gemma_scope(tmp_path):
    with pytest.raises(ArtifactError, match=r"gemma-scope-2b-pt-transcoders alone"):
        ONE.write(Checkpoint(FORM, "transcoder"), tmp_path / "out")
    folder = npz(tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k" / "average_l0_5")
    ONE.write(ONE.read(folder), tmp_path / "again")
    assert ONE.read(tmp_path / "again").kind == "transcoder"


def test_places_are_written_and_read_again(tmp_path):
    sae = Provenance.at(20, "resid_post", model="google/gemma-2-2b")
    ONE.write(Checkpoint(FORM, provenance=sae), tmp_path / "sae")
    assert (tmp_path / "sae/gemma-scope-2b-pt-res/layer_20/width_3/params.npz").exists()
    assert ONE.read(tmp_path / "sae").provenance == sae
    transcoder = Provenance.at(7, "mlp_in", "mlp_out", model="google/gemma-3-1b-pt")
    TWO.write(Checkpoint(TRANSCODER, "transcoder", transcoder), tmp_path / "transcoder")
    read = TWO.read(tmp_path / "transcoder")
    assert (read.kind, read.provenance) == ("transcoder", transcoder)
    assert torch.equal(read.dense.W_skip, TRANSCODER.W_skip)
    other = Provenance.at(7, "mlp_in", "mlp_out", model="HuggingFaceTB/SmolLM2-135M")
    TWO.write(Checkpoint(TRANSCODER, "transcoder", other), tmp_path / "other")
    read = TWO.read(tmp_path / "other")  # there is no word for the places of other models
    assert (read.kind, read.provenance) == ("transcoder", Provenance("HuggingFaceTB/SmolLM2-135M"))


def test_sets(tmp_path):
    found = {}
    for layer in (9, 10):
        place = Provenance.at(layer, "resid_post", model="google/gemma-2-2b")
        found[str(layer)] = Checkpoint(FORM, provenance=place)
    ONE.write_set(found, tmp_path / "one")
    TWO.write_set(found, tmp_path / "two")
    for form, folder, below in (
        (ONE, tmp_path / "one", "gemma-scope-2b-pt-res/layer_{}/width_3"),
        (TWO, tmp_path / "two", "layer_{}_width_3"),
    ):
        assert form.members(folder) == {str(n): folder / below.format(n) for n in (9, 10)}
        for name, path in form.members(folder).items():
            assert form.read(path).provenance == found[name].provenance


def test_sets_of_vectors_that_have_no_name(tmp_path):
    found = {name: Checkpoint(FORM) for name in ("3", "12")}
    for form in (ONE, TWO):
        folder = tmp_path / type(form).__name__
        form.write_set(found, folder)
        assert list(form.members(folder)) == ["3", "12"]
    for names in (("first", "second"), ("3", "03")):
        for form in (ONE, TWO):
            with pytest.raises(ArtifactError, match=r"of which layer|several coders of layer 3"):
                form.write_set(dict.fromkeys(names, Checkpoint(FORM)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_settings_are_kept_but_for_what_is_otherwise_now(tmp_path):
    read = TWO.read(safetensors(tmp_path / "a", {"width": 3, "l0": 60, "model_name": "x"}))
    dense = replace(
        read.dense,
        W_enc=read.dense.W_enc[:2],
        b_enc=read.dense.b_enc[:2],
        W_dec=read.dense.W_dec[:2],
        threshold=read.dense.threshold[:2],
    )
    TWO.write(replace(read, form=dense), tmp_path / "b")
    assert json.loads((tmp_path / "b/config.json").read_text()) == {"width": 2, "l0": 60, "model_name": "x"}
    whole = TWO.read(safetensors(tmp_path / "c"))
    TWO.write(whole, tmp_path / "d")
    assert (tmp_path / "d" / "config.json").read_text() == json.dumps(CONFIG, indent=2) + "\n"


@pytest.mark.parametrize(
    ("n_latents", "name"),
    [
        (24, "24"),
        (4096, "4k"),
        (16384, "16k"),
        (65536, "65k"),
        (131072, "131k"),
        (524288, "524k"),
        (1048576, "1m"),
    ],
)
def test_widths_are_called_as_in_the_repositories(n_latents, name):
    assert width_name(n_latents) == name
