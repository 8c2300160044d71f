"""The format ``saelens``: small checkpoints, read by hand."""

from __future__ import annotations

import importlib.util
import json
import math
import pathlib

import torch
from qsae_format_saelens import SaeLensConfig
from qsae_format_saelens.checkpoint_format import SaeLensFormat
from safetensors.torch import load_file

_spec = importlib.util.spec_from_file_location("files", pathlib.Path(__file__).with_name("files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
GATED, OLD, TENSORS, THRESHOLD, V6 = files.GATED, files.OLD, files.TENSORS, files.THRESHOLD, files.V6
written, without = files.written, files.without
FORMAT = SaeLensFormat(SaeLensConfig())
X = torch.tensor([[3.0, 2.0], [2.0, -1.0], [0.0, 0.0]])


def read(tmp_path, cfg, tensors=None):
    return FORMAT.read(written(tmp_path / "x", cfg, tensors))


def latents(tmp_path, cfg, tensors=None):
    return read(tmp_path, cfg, tensors).dense.encode(X).tolist()


# x - b_dec is (2, 3), (1, 0) and (-1, 1); its pre-activations z = x1 + 0.25 and 2 x1 + x2 are
# (2.25, 7), (1.25, 2) and (-0.75, -1)


def test_a_standard_one(tmp_path):
    found = read(tmp_path, V6)
    assert found.dense.encode(X).tolist() == [[2.25, 7.0], [1.25, 2.0], [0.0, 0.0]]
    # f W_dec + b_dec: 2.25 + 1 and 3 * 7 - 1; 1.25 + 1 and 3 * 2 - 1; b_dec
    assert found.dense.reconstruct(X).tolist() == [[3.25, 20.0], [2.25, 5.0], [1.0, -1.0]]
    assert (found.kind, found.settings, found.notes) == ("sae", V6, ())
    assert [file.name for file in found.files] == ["cfg.json", "sae_weights.safetensors"]


def test_nothing_is_subtracted_where_cfg_says_so(tmp_path):
    # of x itself: 3 + 0.25 and 8, 2 + 0.25 and 3, 0.25 and 0
    cfg = V6 | {"apply_b_dec_to_input": False}
    assert latents(tmp_path, cfg) == [[3.25, 8.0], [2.25, 3.0], [0.25, 0.0]]


def test_a_topk(tmp_path):
    cfg = V6 | {"architecture": "topk", "k": 1}
    assert latents(tmp_path, cfg) == [[0.0, 7.0], [0.0, 2.0], [0.0, 0.0]]


def test_a_topk_that_ranks_by_norm(tmp_path):
    cfg = V6 | {"architecture": "topk", "k": 1, "rescale_acts_by_decoder_norm": True}
    tensors = TENSORS | {"W_dec": torch.tensor([[8.0, 0.0], [0.0, 1.0]])}
    # 8 * 2.25 is more than 7, and 8 * 1.25 more than 2
    found = read(tmp_path, cfg, tensors)
    assert found.dense.encode(X).tolist() == [[2.25, 0.0], [1.25, 0.0], [0.0, 0.0]]
    assert found.dense.reconstruct(X).tolist() == [[19.0, -1.0], [11.0, -1.0], [1.0, -1.0]]
    assert "times the norms of their atoms" in found.notes[0]


def test_a_jumprelu(tmp_path):
    # the second threshold is below 0, where SAELens' relu decides: the third token has no negative latent
    found = read(tmp_path, V6 | {"architecture": "jumprelu"}, TENSORS | THRESHOLD)
    assert found.dense.encode(X).tolist() == [[2.25, 7.0], [1.25, 2.0], [0.0, 0.0]]
    assert found.dense.threshold.tolist() == [0.5, 0.0]
    strict = TENSORS | {"threshold": torch.tensor([1.25, 2.0])}  # above it, not at it
    assert latents(tmp_path / "2", V6 | {"architecture": "jumprelu"}, strict)[:2] == [[2.25, 7.0], [0.0, 0.0]]


def test_the_logarithm_of_a_threshold(tmp_path):
    tensors = TENSORS | {"log_threshold": torch.tensor([0.0, -1.0])}
    found = read(tmp_path, V6 | {"architecture": "jumprelu"}, tensors)
    assert found.dense.threshold.tolist() == [1.0, torch.tensor(math.exp(-1)).item()]
    assert "read as the threshold exp(log_threshold)" in found.notes[0]


def test_a_gated_one(tmp_path):
    # gates are z > 0; magnitudes x1 and 2 x1 + x2 + 1 without the gate's bias
    tensors = without(TENSORS, "b_enc") | GATED
    found = read(tmp_path, V6 | {"architecture": "gated"}, tensors)
    assert found.dense.encode(X).tolist() == [[2.0, 8.0], [1.0, 3.0], [0.0, 0.0]]


def test_a_transcoder_with_a_skip_connection(tmp_path):
    cfg = V6 | {"architecture": "skip_transcoder", "d_out": 1, "apply_b_dec_to_input": False}
    tensors = TENSORS | {"W_dec": torch.tensor([[1.0], [2.0]]), "b_dec": torch.tensor([0.5])}
    found = read(tmp_path, cfg, tensors | {"W_skip": torch.tensor([[10.0, 0.0]])})
    # latents are those without a subtraction; 3.25 + 16 + 0.5 + 10 * 3, 2.25 + 6 + 0.5 + 20, 0.25 + 0.5
    assert found.dense.reconstruct(X).tolist() == [[49.75], [28.75], [0.75]]
    assert found.kind == "transcoder"


# --- before version 6


def test_old_names_and_defaults(tmp_path):
    found = read(tmp_path, OLD, TENSORS | {"scaling_factor": torch.ones(2)})
    assert found.dense.encode(X).tolist() == [[2.25, 7.0], [1.25, 2.0], [0.0, 0.0]]
    assert (found.settings, found.notes) == (OLD, ())
    cfg = OLD | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 1}}
    assert latents(tmp_path / "2", cfg) == [[0.0, 7.0], [0.0, 2.0], [0.0, 0.0]]
    flattened = read(tmp_path / "3", OLD | {"hook_point": "blocks.0.attn.hook_z"})
    assert "heads of a token one after another" in flattened.notes[0]


def test_a_scaling_factor_goes_into_the_decoder(tmp_path):
    tensors = TENSORS | {"scaling_factor": torch.tensor([2.0, 0.5])}
    path = written(tmp_path / "x", OLD | {"finetuning_scaling_factor": True}, tensors)
    found = FORMAT.read(path)
    assert found.dense.W_dec.tolist() == [[2.0, 0.0], [0.0, 1.5]]
    assert found.dense.encode(X).tolist() == [[2.25, 7.0], [1.25, 2.0], [0.0, 0.0]]
    assert "SAELens 6 does not load" in found.notes[0]
    FORMAT.write(found, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "cfg.json").read_text()) == OLD | {
        "finetuning_scaling_factor": False
    }
    assert set(load_file(tmp_path / "again" / "sae_weights.safetensors")) == set(TENSORS)
    assert (
        FORMAT.read(tmp_path / "again").dense.reconstruct(X).tolist() == found.dense.reconstruct(X).tolist()
    )
