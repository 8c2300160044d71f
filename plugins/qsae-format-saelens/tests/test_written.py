"""The format ``saelens``: what is written, by hand."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib

import pytest
import torch
from qsae_format_saelens import SaeLensConfig
from qsae_format_saelens.checkpoint_format import SaeLensFormat
from safetensors.torch import load_file

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError

_spec = importlib.util.spec_from_file_location("files", pathlib.Path(__file__).with_name("files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
OLD, V6, written = files.OLD, files.V6, files.written
FORMAT = SaeLensFormat(SaeLensConfig())
RANDOM = torch.Generator().manual_seed(0)
FORM = DenseForm(*(torch.randn(size, generator=RANDOM) for size in ((8, 4), (8,), (8, 4), (4,))))
SKIP = torch.randn(4, 4, generator=RANDOM)


def wrote(tmp_path, form, kind="sae", settings=None, provenance=None):
    FORMAT.write(Checkpoint(form, kind, provenance or Provenance(), settings or {}), tmp_path / "new")
    return json.loads((tmp_path / "new" / "cfg.json").read_text())


def test_written_by_hand(tmp_path):
    form = DenseForm(
        torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]), torch.ones(1, 2), torch.tensor([1.0, 3.0]), k=1
    )
    where = Provenance.at(7, "resid_post", model="openai-community/gpt2", context=128, dataset="text")
    assert wrote(tmp_path, form, provenance=where) == {
        "architecture": "topk",
        "d_in": 2,
        "d_sae": 1,
        "apply_b_dec_to_input": False,
        "k": 1,
        "rescale_acts_by_decoder_norm": False,
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "sae_lens_training_version": None,
            "model_name": "openai-community/gpt2",
            "model_from_pretrained_kwargs": {},
            "prepend_bos": True,
            "hook_name": "blocks.7.hook_resid_post",
            "hf_hook_name": "transformer.h.7.output",
            "context_size": 128,
            "dataset_path": "text",
        },
    }
    tensors = load_file(tmp_path / "new" / "sae_weights.safetensors")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "W_enc": [[1.0], [2.0]],
        "b_enc": [0.5],
        "W_dec": [[1.0, 1.0]],
        "b_dec": [1.0, 3.0],
    }


@pytest.mark.parametrize(
    ("change", "kind", "architecture"),
    [
        ({}, "sae", "standard"),
        ({"k": 2, "ranks_by_norm": True}, "sae", "topk"),
        ({"activation": "jumprelu", "threshold": torch.ones(8)}, "sae", "jumprelu"),
        ({}, "transcoder", "transcoder"),
        ({"W_skip": SKIP}, "transcoder", "skip_transcoder"),
        ({"activation": "jumprelu", "threshold": torch.ones(8)}, "transcoder", "jumprelu_transcoder"),
        (
            {"activation": "jumprelu", "threshold": torch.ones(8), "W_skip": SKIP},
            "transcoder",
            "jumprelu_skip_transcoder",
        ),
        # SAELens has no class for these; that of SAEs computes the same where both widths are one
        ({"k": 2}, "transcoder", "topk"),
    ],
)
def test_the_architecture_that_is_written(tmp_path, change, kind, architecture):
    places = Provenance.at(3, "mlp_in", "mlp_out", model="EleutherAI/pythia-70m")
    form = dataclasses.replace(FORM, **change)
    cfg = wrote(tmp_path, form, kind, provenance=places if kind == "transcoder" else None)
    assert cfg["architecture"] == architecture
    again = FORMAT.read(tmp_path / "new")
    assert again.kind == kind
    x = torch.randn(16, 4, generator=RANDOM)
    torch.testing.assert_close(again.dense.reconstruct(x), form.reconstruct(x))
    if kind == "transcoder":
        assert cfg["apply_b_dec_to_input"] is False
        assert cfg["metadata"]["model_name"] == "pythia-70m"
        assert cfg["metadata"]["hook_name"] == "blocks.3.mlp.hook_in"
        assert cfg["metadata"]["hook_name_out"] == "blocks.3.hook_mlp_out"
        assert cfg["metadata"]["hf_hook_name_out"] == "gpt_neox.layers.3.mlp.output"
        assert again.provenance == places


@pytest.mark.parametrize(
    ("change", "kind", "fault"),
    [
        ({"activation": "identity"}, "sae", "signed latents"),
        ({"activation": "identity", "k": 2}, "sae", "signed latents"),
        ({"activation": "jumprelu", "threshold": torch.ones(8), "k": 2}, "sae", "jumprelu and the 2 largest"),
        ({"activation": "jumprelu", "threshold": -torch.ones(8)}, "sae", "thresholds below 0"),
        ({"k": 2, "W_skip": SKIP}, "transcoder", "the 2 largest latents and W_skip"),
        (
            {"k": 2, "W_dec": torch.ones(8, 3), "b_dec": torch.ones(3)},
            "transcoder",
            "2 largest latents and an output of another width",
        ),
        ({"layers": 2}, "sae", "the vectors of 2 layers in one"),
    ],
)
def test_what_saelens_has_no_place_for_is_refused_and_nothing_written(tmp_path, change, kind, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.write(Checkpoint(dataclasses.replace(FORM, **change), kind), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_settings_stay_but_for_what_weights_and_rule_say_otherwise(tmp_path):
    cfg = OLD | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 1}, "l1_coefficient": 1.0}
    found = FORMAT.read(written(tmp_path / "x", cfg))
    assert wrote(tmp_path / "same", found.dense, settings=found.settings) == cfg
    other = dataclasses.replace(found.dense, k=2).in_dtypes(torch.bfloat16)
    changed = wrote(tmp_path / "k", other, settings=found.settings)
    assert changed == {
        "d_in": 2,
        "d_sae": 2,
        "dtype": "torch.float32",  # which holds every bfloat16
        "l1_coefficient": 1.0,
        "architecture": "topk",
        "apply_b_dec_to_input": True,
        "k": 2,
        "rescale_acts_by_decoder_norm": False,
    }
    assert FORMAT.read(tmp_path / "k" / "new").dense.k == 2
    half = V6 | {"dtype": "bfloat16"}
    wider = wrote(tmp_path / "wider", found.dense, settings=half | {"architecture": "topk", "k": 1})
    assert wider["dtype"] == "float32"  # else SAELens would round the weights


def test_a_set_is_a_folder_for_each(tmp_path):
    made = {
        name: Checkpoint(FORM, provenance=Provenance.at(int(name), "mlp_out", model="gpt2"))
        for name in ("9", "10")
    }
    FORMAT.write_set(made, tmp_path / "set")
    assert FORMAT.recognizes(tmp_path / "set")
    members = FORMAT.members(tmp_path / "set")
    assert list(members) == ["9", "10"]
    assert FORMAT.read(members["10"]).provenance == made["10"].provenance
    with pytest.raises(ArtifactError, match=r"'\.\./out' is no name of a folder"):
        FORMAT.write_set({"../out": made["9"]}, tmp_path / "other")
