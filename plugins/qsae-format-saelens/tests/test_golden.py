"""Checkpoints that SAELens 6.54.12 saved and computed with, beside what is made of them here."""

from __future__ import annotations

import pathlib
import re
import shutil

import pytest
import torch
from qsae_format_saelens import SaeLensConfig
from qsae_format_saelens.checkpoint_format import SaeLensFormat
from safetensors.torch import load_file, save_file

from qsae_core.conformance.golden import check_golden
from qsae_core.errors import ArtifactError

GOLDEN = pathlib.Path(__file__).with_name("golden")
RESCALED = "topk-rescaled"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/expected.safetensors"))
REFUSED = sorted(path.name.removeprefix("refused-") for path in GOLDEN.glob("refused-*"))
FORMAT = SaeLensFormat(SaeLensConfig())


def unscaled(folder, to):
    """A golden folder with latents as they are before SAELens multiplies them with the norms of atoms."""
    shutil.copytree(folder / "checkpoint", to / "checkpoint")
    expected = load_file(folder / "expected.safetensors")
    expected["latents"] = expected.pop("unscaled")
    save_file(expected, to / "expected.safetensors")
    return to


def test_every_architecture_is_among_them():
    assert len(CASES) >= 19
    assert REFUSED == [
        "abstopk",
        "batchtopk",
        "constant_norm_rescale",
        "covariance_whitening",
        "layer_norm",
        "matching_pursuit",
        "matryoshka_batchtopk",
        "temporal",
    ]


@pytest.mark.parametrize("case", [case for case in CASES if case != RESCALED])
def test_it_computes_what_saelens_does(case):
    check_golden(GOLDEN / case, "saelens")


def test_rescaled_latents_are_those_before_the_norms_of_their_atoms(tmp_path):
    expected = load_file(GOLDEN / RESCALED / "expected.safetensors")
    read = FORMAT.read(GOLDEN / RESCALED / "checkpoint")
    norms_F = read.dense.W_dec.norm(dim=1)
    assert norms_F.max() > 5 * norms_F.min()
    assert any("times the norms of their atoms" in note for note in read.notes)
    latents = read.dense.encode(expected["x"].double())
    assert torch.allclose((latents * norms_F).float(), expected["latents"], rtol=1e-5, atol=1e-6)
    check_golden(unscaled(GOLDEN / RESCALED, tmp_path / RESCALED), "saelens")


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_dense_form_holds_is_refused_by_name(case):
    path = GOLDEN / f"refused-{case}" / "checkpoint"
    assert FORMAT.recognizes(path)
    with pytest.raises(ArtifactError, match=rf"(architecture|normalize_activations) '{case}' \w+") as caught:
        FORMAT.read(path)
    assert re.search(r"standard, topk|none, expected_average_only_in", caught.value.allowed)
    assert caught.value.next


def test_what_it_saved_is_written_again_byte_for_byte(tmp_path):
    once = 0
    for case in CASES:
        path = GOLDEN / case / "checkpoint"
        read = FORMAT.read(path) if case != "several" else None
        # thresholds below 0 and factors of 1 are left out
        if read is None or "jumprelu" in case or case == "old-standard":
            continue
        FORMAT.write(read, tmp_path / case)
        for name in ("cfg.json", "sae_weights.safetensors"):
            assert (tmp_path / case / name).read_bytes() == (path / name).read_bytes(), f"{case}: {name}"
        once += 1
    assert once >= 14


def notes(case):
    return FORMAT.read(GOLDEN / case / "checkpoint").notes


def test_notes_say_what_saelens_does_otherwise():
    (average,) = notes("training-average")
    assert "as by SAELens' load_from_disk, vectors are taken as they are" in average
    assert average.endswith("in training vectors were multiplied with 1.75 (activation_scaler.json)")
    (heads,) = notes("hook-z")
    assert "one after another: [tokens, heads * d_head]" in heads
    assert notes("old-hook-z") == (heads,)
    assert any("TransformerLens loads with center_writing_weights=True" in note for note in notes("old-topk"))
    assert any("thresholds below 0 are read as 0" in note for note in notes("jumprelu"))
    for case in (
        "standard",
        "topk",
        "transcoder",
        "standard-bfloat16",
        "training-topk-saved",
        "batchtopk-saved",
    ):
        assert notes(case) == (), case


def test_whose_vectors_they_are():
    def places(case):
        found = FORMAT.read(GOLDEN / case / "checkpoint").provenance
        return found.model, found.sources, found.targets, found.context, found.dataset

    assert places("standard") == ("gpt2", ("5.resid_pre",), ("5.resid_pre",), 64, None)
    # what ln2.hook_normalized sees is not what the MLP reads: it is before the norm's weights
    assert places("transcoder") == ("gpt2", (), (), 64, None)
    assert places("hook-z")[1:3] == places("old-topk")[1:3] == ((), ())
    resid = ("6.resid_post",)
    assert places("old-standard") == ("google/gemma-2b", resid, resid, 32, "some/text")


def test_several_are_in_the_order_of_their_layers():
    members = FORMAT.members(GOLDEN / "several" / "checkpoint")
    assert list(members) == ["sae_9", "sae_10"]
    assert FORMAT.members(GOLDEN / "standard" / "checkpoint") == {}
