"""Files that sparsify 1.3.3 wrote and computed with (``write_golden.py``)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
import torch
from qsae_format_sparsify import SparsifyConfig
from qsae_format_sparsify.checkpoint_format import SparsifyFormat
from safetensors.torch import load_file

import qsae_core
from qsae_core.conformance import Computed, check_golden, expect_computes
from qsae_core.errors import ArtifactError

GOLDEN = pathlib.Path(__file__).parent / "golden"
EARLY = "skip-before-transcode"
CASES = sorted(path.name for path in GOLDEN.iterdir() if not path.name.startswith("refused"))
FORMAT = SparsifyFormat(SparsifyConfig())


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_the_library_does_and_is_written_again(case):
    check_golden(GOLDEN / case, "sparsify", writes=case != EARLY)


@pytest.mark.parametrize("case", [case for case in CASES if (GOLDEN / case / "checkpoint/cfg.json").exists()])
def test_what_was_read_is_written_byte_for_byte(tmp_path, case):
    FORMAT.write(FORMAT.read(GOLDEN / case / "checkpoint"), tmp_path / "checkpoint")
    for name in ("cfg.json", "sae.safetensors"):
        before = (GOLDEN / case / "checkpoint" / name).read_bytes()
        assert (tmp_path / "checkpoint" / name).read_bytes() == before


def test_groupmax_is_refused_by_name():
    with pytest.raises(
        ArtifactError, match="its activation is groupmax: the largest latent of each of k groups"
    ):
        FORMAT.read(GOLDEN / "refused-groupmax" / "checkpoint")


def test_forward_of_the_library_keeps_four_times_as_many_latents_where_it_was_trained_so():
    expected = load_file(GOLDEN / "sae-multi" / "expected.safetensors")
    dense = FORMAT.read(GOLDEN / "sae-multi" / "checkpoint").dense
    assert dense.k == 5
    for k, name in ((5, "reconstruction"), (20, "forward")):
        outputs = dataclasses.replace(dense, k=k).reconstruct(expected["x"])
        torch.testing.assert_close(outputs, expected[name], rtol=1e-4, atol=1e-4)
    assert "4 k largest" in FORMAT.read(GOLDEN / "sae-multi" / "checkpoint").notes[0]


def test_a_transcoder_that_subtracts_b_dec_is_exported_as_one_that_does_not(tmp_path):
    """The same function in other words: transcoders of qsae have no offset."""
    folder = GOLDEN / EARLY / "checkpoint"
    read = FORMAT.read(folder)
    assert (read.kind, read.dense.subtracts_b_dec) == ("transcoder", True)
    assert '"transcode": true' in read.notes[0]
    moved = read.dense.with_offset(False)
    FORMAT.write(type(read)(moved, "transcoder", settings=read.settings), tmp_path / "now")
    cfg = json.loads((tmp_path / "now" / "cfg.json").read_text())
    assert cfg == json.loads((folder / "cfg.json").read_text()) | {"transcode": True}
    before, now = (load_file(path / "sae.safetensors") for path in (folder, tmp_path / "now"))
    share = before["encoder.weight"].double() @ before["b_dec"].double()
    assert torch.equal(now["encoder.bias"], (before["encoder.bias"].double() - share).float())
    assert all(torch.equal(now[name], before[name]) for name in before if name != "encoder.bias")
    expected = load_file(GOLDEN / EARLY / "expected.safetensors")
    coder = qsae_core.read_checkpoint(tmp_path / "now")
    expect_computes(coder, Computed(*(expected[key] for key in Computed._fields)), EARLY)
