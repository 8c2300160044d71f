"""Names of runs and of files: of any script, of any length, and of things that are no files."""

from __future__ import annotations

import os

import pytest
import torch
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.results.run import LONGEST_SLUG, slug

TRAIN = ("train", "--sae", "topk", "--n-latents", "32", "--steps", "2", "--batch-size", "32")


def qsae(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="qsae")


def test_a_folder_s_name_keeps_what_it_can():
    assert slug("topk-Hidden States (1)") == "topk-hidden-states-1"
    assert slug("topk-smollm2-135m") == "topk-smollm2-135m"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("topk-模型", "topk-数据"),
        ("topk-🎉", "topk-🚀"),
        ("topk-größe", "topk-gräße"),
        ("+", "="),
        ("x" * 300, "x" * 299 + "y"),
    ],
)
def test_names_that_lose_something_stay_apart(one, other):
    assert slug(one) != slug(other)
    for name in (slug(one), slug(other)):
        assert name.isascii()
        assert len(name) <= LONGEST_SLUG + 9  # a dash and the hash
        assert name.strip("-.") == name


def test_results_of_files_in_another_script_lie_in_folders_of_their_own(tmp_path):
    folders = set()
    for name in ("模型", "数据"):
        torch.save(torch.randn(600, 8), tmp_path / f"{name}.pt")
        done = qsae(*TRAIN, "--data-path", tmp_path / f"{name}.pt", "--out", tmp_path / "out", "--overwrite")
        assert done.exit_code == 0, done.output
        folders = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(folders) == 2


def test_a_file_with_a_long_name_has_results(tmp_path):
    path = tmp_path / f"{'n' * 250}.pt"
    torch.save(torch.randn(600, 8), path)
    done = qsae(*TRAIN, "--data-path", path, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("arguments", [("--name", "n" * 300), ("--name", "模" * 100), ("--out", "n" * 300)])
def test_a_name_that_no_file_system_takes_is_refused_at_once(arguments):
    refused = qsae(*TRAIN, "--data", "synthetic", *arguments)
    assert refused.exit_code == 2
    assert "names of at most 255 bytes, not 300" in refused.output


@pytest.mark.parametrize(
    "arguments",
    [
        (*TRAIN, "--data-path", "n" * 300),
        (*TRAIN, "--data", "lm", "--text", "n" * 300),
        (*TRAIN, "--data", "lm", "--dataset", "n" * 300),
        (*TRAIN, "--data", "lm", "--model", "n" * 300),
        ("sites", "n" * 300),
        ("evaluate", "n" * 300),
        ("runs", "--out", "n" * 300),
    ],
)
def test_a_path_that_is_too_long_to_be_there_is_refused(arguments):
    refused = qsae(*arguments)
    assert refused.exit_code == 2, refused.output
    assert "qsae: error: " in refused.output


def test_a_pipe_or_a_device_is_no_file_of_vectors(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", os.devnull):
        refused = qsae(*TRAIN, "--data-path", path)
        assert refused.exit_code == 2
        assert "neither a file nor a folder, but a pipe or a device" in refused.output
