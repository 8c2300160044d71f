"""Numbers of tokens with units, in options and on the command line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from qsae_cli.main import cli
from qsae_core.config.counts import read_count
from qsae_core.config.settings import QuantizeConfig, TrainConfig


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("300", 300),
        ("1_000", 1000),
        ("300K", 300_000),
        ("2.5m", 2_500_000),
        ("1.000B", 10**9),
        (" 7k ", 7000),
    ],
)
def test_units(text, count):
    assert read_count(text) == count
    assert TrainConfig(tokens=text).tokens == count
    assert QuantizeConfig(tokens=text).tokens == count


@pytest.mark.parametrize("value", ["2.0005K", "1.5", "K", "3T", "-5K", "1e6", "", 7, 7.5, None])
def test_what_is_no_whole_number_stays_as_it_is(value):
    assert read_count(value) is value


@pytest.mark.parametrize("value", ["2.0005K", "0K", 0, "many"])
def test_options_refuse_what_is_no_number_of_tokens(value):
    with pytest.raises(ValidationError):
        TrainConfig(tokens=value)


def test_commands_take_units():
    def shown(*arguments):
        return CliRunner().invoke(cli, arguments)

    train = ("train", "--sae", "topk", "--data", "synthetic", "--dry-run")
    done = shown(*train, "--tokens", "2.5K", "--eval-tokens", "1K")
    assert done.exit_code == 0, done.output
    assert "tokens: 2500\n" in done.output
    assert "eval_tokens: 1000\n" in done.output
    refused = shown(*train, "--tokens", "2.0005K")
    assert refused.exit_code == 2
    assert "such as 300000, 300K or 2.5M" in refused.output
    for command in ("evaluate", "quantize"):
        refused = shown(command, "anywhere", "--tokens", "0K")
        assert refused.exit_code == 2
