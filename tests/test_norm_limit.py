"""Which vectors are within a multiple of the median norm, by hand; and what a run says of the others."""

import json

import pytest
import torch
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.contracts import NormLimit
from qsae_core.errors import DataError


def column(*norms):
    """Vectors [N, 2] of these norms."""
    return torch.tensor([[0.6 * n, 0.8 * n] for n in norms])


def test_the_median_and_what_is_above_its_multiple():
    """Norms 1, 2, 3, 4, 100: the median is 3, twice of it is 6."""
    assert NormLimit(2.0).kept(column(1, 100, 3, 4, 2)).tolist() == [0, 2, 3, 4]
    assert NormLimit(1.0).kept(column(1, 100, 3, 4, 2)).tolist() == [0, 2, 4]
    assert NormLimit(None).kept(column(1, 100, 3, 4, 2)).tolist() == [0, 1, 2, 3, 4]


def test_vectors_of_zeros_do_not_count_for_the_median():
    """Else of mostly silent vectors none but the silent ones would be left."""
    assert NormLimit(3.0).kept(column(0, 0, 0, 1, 2, 50)).tolist() == [0, 1, 2, 3, 4]
    assert NormLimit(3.0).kept(column(0, 0)).tolist() == [0, 1]


def test_each_layer_and_each_side_has_a_median_of_its_own():
    small, large = column(1, 1, 1, 30, 1), column(1000, 1000, 9000, 1000, 1000)
    assert NormLimit(5.0).kept(torch.stack([small, large], 1)).tolist() == [0, 1, 4]
    assert NormLimit(5.0).kept(small, large).tolist() == [0, 1, 4]


def test_counts_of_blocks_add_up_and_one_that_is_read_again_counts_once():
    limit = NormLimit(2.0)
    limit.kept(column(1, 1, 9))
    limit.kept(column(1, 1, 9))
    assert limit.state()["counts"] == [0, 0]
    limit.next_block()
    limit.kept(column(1, 1, 1, 9, 9))
    assert limit.state()["counts"] == [3, 1]
    assert limit.sentence().startswith("left out of training: 3 of 8 vectors, ")
    assert NormLimit(None).sentence() is None


def test_medians_that_were_learned_hold_for_all_that_come():
    """Of each side and layer; through JSON, where a layer of zeros has none."""
    limit = NormLimit(2.0)
    limit.learn(torch.stack([column(1, 2, 3), column(0, 0, 0)], 1), column(10, 10, 10))
    again = NormLimit(2.0, json.loads(json.dumps(limit.state())))
    for one in (limit, again):
        assert one.knows_medians
        x = torch.stack([column(4, 5, 4), column(9, 0, 9)], 1)
        assert one.kept(x, column(19, 1, 21)).tolist() == [0]
    assert not NormLimit(2.0).knows_medians


def test_a_state_of_another_version_is_told():
    for state in ([0, 0], {"counts": [0, 0]}, {}):
        with pytest.raises(DataError, match="another version of qsae"):
            NormLimit(2.0, state)


def test_a_run_says_and_records_how_many_it_left_out(tmp_path):
    rows = torch.randn(4000, 8)
    rows[::100] *= 1000
    torch.save(rows, tmp_path / "x.pt")
    command = ["train", "--sae", "topk", "--n-latents", "32", "--steps", "3", "--max-norm-multiple", "20"]
    command += ["--data-path", str(tmp_path / "x.pt"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, command, prog_name="qsae")
    assert done.exit_code == 0, done.output
    description = json.loads((tmp_path / "out/topk-x/tensors/3/checkpoints/final/coder.json").read_text())
    said = description["source"]["outlying_norms"]
    assert said.startswith("left out of training: ")
    assert said.endswith("vectors, whose norm was more than 20 times the median")
    assert said in done.output


def test_no_vectors_are_all_kept():
    """A block of text may have no position that counts."""
    limit = NormLimit(10)
    assert limit.kept(torch.empty(0, 4), torch.empty(0, 2, 4)).tolist() == []
    limit.next_block()
    assert limit.state()["counts"] == [0, 0]
