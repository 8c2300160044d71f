"""The format ``saelens``: settings that lie, and tensors that do not fit."""

from __future__ import annotations

import importlib.util
import json
import math
import pathlib

import pytest
import torch
from qsae_format_saelens import SaeLensConfig
from qsae_format_saelens.checkpoint_format import SaeLensFormat

from qsae_core.errors import ArtifactError

_spec = importlib.util.spec_from_file_location("files", pathlib.Path(__file__).with_name("files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
GATED, OLD, TENSORS, THRESHOLD, V6 = files.GATED, files.OLD, files.TENSORS, files.THRESHOLD, files.V6
written, without = files.written, files.without
FORMAT = SaeLensFormat(SaeLensConfig())


WRONG = {
    "d_in as text": ({"d_in": "2"}, "d_in is '2'"),
    "a negative d_sae": ({"d_sae": -2}, "d_sae is '-2'"),
    "a huge d_sae": ({"d_sae": 2**70}, "d_sae is '1180591620717411303424'"),
    "another d_sae": ({"d_sae": 3}, r"W_dec has shape \[2, 2\], and d_in, d_sae and d_out ask for \[3, 2\]"),
    "no d_sae": ({"d_sae": None}, "d_sae is missing"),
    "k = 0": ({"architecture": "topk", "k": 0}, "k is '0'"),
    "k above all latents": ({"architecture": "topk", "k": 3}, "k is 3, with 2 latents"),
    "no k, which is 100": ({"architecture": "topk"}, "k is 100, with 2 latents"),
    "k as a float": ({"architecture": "topk", "k": 1.0}, "k is '1.0'"),
    "k as a flag": ({"architecture": "topk", "k": True}, "k is 'True'"),
    "a flag as text": ({"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input is 'no'"),
    "another architecture": ({"architecture": "softmax"}, "architecture 'softmax' is none of SAELens"),
    "an architecture that is a list": ({"architecture": ["topk"]}, r"architecture is \"\['topk'\]\""),
    "no architecture": ({"architecture": None}, "architecture is missing"),
    "a type that is none": ({"dtype": "float8"}, "dtype is 'float8'"),
    "no type": ({"dtype": None}, "dtype is missing"),
    "float64": ({"dtype": "float64"}, "dtype is 'float64'"),
    "another normalization": (
        {"normalize_activations": "rms"},
        "normalize_activations 'rms' is none of SAELens",
    ),
    "a normalization of old": (
        {"normalize_activations": True},
        "normalize_activations 'True' is none of SAELens",
    ),
    "a normalization that is a mapping": ({"normalize_activations": {"a": 1}}, "is none of SAELens"),
    "another shape": ({"reshape_activations": "flat"}, "reshape_activations is 'flat'"),
    "metadata that is a list": ({"metadata": [1]}, "metadata is"),
    "a version that is none": ({"sae_lens_version": "../../etc"}, "sae_lens_version is '../../etc'"),
    "a version that is a number": ({"sae_lens_version": 6}, "sae_lens_version is 6"),
    "a transcoder that subtracts": ({"architecture": "transcoder"}, "apply_b_dec_to_input is true"),
    "a transcoder of another width": (
        {"architecture": "transcoder", "apply_b_dec_to_input": False},
        r"ask for \[2, 768\]",  # SAELens' own default
    ),
}
WRONG_OLD = {
    "another activation": (
        {"activation_fn_str": "tanh-relu"},
        "'tanh-relu': SAELens computed that before version 6",
    ),
    "TopK without k": ({"activation_fn_str": "topk"}, "activation_fn_kwargs has no k"),
    "TopK with a list": ({"activation_fn_str": "topk", "activation_fn_kwargs": [1]}, "has no k"),
    "an activation that is a list": ({"activation_fn_str": ["relu"]}, r"activation_fn is \['relu'\]"),
    "a negative k": ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": -4}}, "k is '-4'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_setting_that_lies_is_refused(tmp_path, case):
    change, fault = WRONG[case]
    path = written(tmp_path / "x", V6 | change)
    with pytest.raises(ArtifactError, match=fault) as caught:
        FORMAT.read(path)
    assert str(path) in caught.value.where
    assert caught.value.allowed


@pytest.mark.parametrize("case", WRONG_OLD)
def test_a_setting_of_old_that_lies_is_refused(tmp_path, case):
    change, fault = WRONG_OLD[case]
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.read(written(tmp_path / "x", OLD | change))


@pytest.mark.parametrize(
    ("cfg", "tensors", "fault"),
    [
        (V6, without(TENSORS, "b_enc"), "there is no tensor b_enc"),
        (V6, TENSORS | THRESHOLD, "it has no place for threshold"),
        (V6, TENSORS | {"../../x": torch.ones(1)}, "it has no place for ../../x"),
        (V6 | {"architecture": "jumprelu"}, TENSORS, "there is no tensor threshold"),
        (V6 | {"architecture": "gated"}, TENSORS | GATED, "it has no place for b_enc"),
        (V6, TENSORS | {"b_dec": torch.ones(3)}, r"b_dec has shape \[3\]"),
        (V6, TENSORS | {"b_dec": torch.tensor([1.0, math.nan])}, "b_dec has NaN"),
        (V6, {name: tensor.double() for name, tensor in TENSORS.items()}, "is float64"),
        (V6, {name: tensor.int() for name, tensor in TENSORS.items()}, "is torch.int32"),
        (OLD, TENSORS | {"scaling_factor": torch.tensor([2.0, 1.0])}, "scaling_factor is not 1"),
        (
            OLD | {"finetuning_scaling_factor": True},
            TENSORS | {"scaling_factor": torch.tensor([2.0])},
            r"scaling_factor has shape \[1\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, cfg, tensors, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.read(written(tmp_path / "x", cfg, tensors))


def test_a_file_that_is_elsewhere_is_not_read(tmp_path):
    path = written(tmp_path / "x", V6)
    (tmp_path / "cfg.json").write_text(json.dumps(V6))
    (path / "cfg.json").unlink()
    (path / "cfg.json").symlink_to(tmp_path / "cfg.json")
    assert not FORMAT.recognizes(path)
    with pytest.raises(ArtifactError, match="is a link out of the folder"):
        FORMAT.read(path)


def test_what_is_another_library_s(tmp_path):
    assert not FORMAT.recognizes(written(tmp_path / "a", {"architecture": "topk"}))  # names no sizes
    assert not FORMAT.recognizes(written(tmp_path / "b", V6, {"decoder.weight": torch.ones(2, 2)}))
    assert not FORMAT.recognizes(written(tmp_path / "c", [V6]))
