"""What a user is told where there is no memory."""

from __future__ import annotations

import click
import pytest
import torch
from click.testing import CliRunner

from qsae_cli import no_memory
from qsae_cli.main import QsaeGroup, cli


def too_much() -> None:
    torch.empty(2**58)


def python() -> None:
    raise MemoryError


def gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of ...")


@pytest.mark.parametrize(
    ("asks", "said"),
    [
        (too_much, f"there is no memory for {2**60:,} bytes more"),
        (python, "there is no memory left"),
        (gpu, "the GPU has no memory left: CUDA out of memory"),
    ],
)
def test_no_memory_is_an_error_and_no_traceback(asks, said):
    group = QsaeGroup("qsae", commands={"hungry": click.Command("hungry", callback=asks)})
    group.get_command = lambda context, name: group.commands[name]  # type: ignore[method-assign]
    group.resolve_command = lambda context, words: (words[0], group.commands[words[0]], words[1:])
    done = CliRunner().invoke(group, ["hungry"])
    assert done.exit_code == 2
    assert f"qsae: error: {said}\n  allowed: " in done.output
    assert "--n-latents" in done.output


def test_other_faults_stay_what_they_are():
    assert no_memory.as_error(RuntimeError("shapes do not fit")) is None
    assert no_memory.as_error(ValueError("can't allocate memory: you tried to allocate 8 bytes")) is None


def test_more_latents_than_codes_can_name(tmp_path):
    command = ["train", "--sae", "topk", "--n-latents", "1000000000000", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 2
    assert "2147483647" in done.output.replace(",", "")
