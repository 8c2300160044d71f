"""``--n-bits`` where one chosen quantizer has it, and where several do."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from click.testing import CliRunner

from qsae_cli.evaluate import evaluate
from qsae_cli.import_ import import_
from qsae_cli.main import cli
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.options.flag_names import owners
from qsae_cli.quantize import quantize
from qsae_cli.train import train as train_command
from qsae_core.kinds import SLOTS
from qsae_core.plugins.records import load_plugins

WITH_BITS = sorted(
    spec.name for spec in load_plugins().registry.specs("quantizer") if "n_bits" in spec.config.model_fields
)


def train(line: str):
    return CliRunner().invoke(cli, ["train", *shlex.split(line), "--data", "synthetic"], prog_name="qsae")


def resolved(line: str) -> dict:
    result = train(f"{line} --dry-run --json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", WITH_BITS)
def test_it_is_that_of_the_one_quantizer_that_has_it(name):
    for slot in ("quantizer", "encoder_quantizer"):
        chosen = f"--{slot.replace('_', '-')} {name}"
        config = resolved(f"--sae topk {chosen} --n-bits 3")
        assert config[slot]["n_bits"] == 3
        (other,) = {"quantizer", "encoder_quantizer"} - {slot}
        assert config[other] == {"use": SLOTS[other].default}


@pytest.mark.parametrize("encoder", WITH_BITS)
@pytest.mark.parametrize("decoder", WITH_BITS)
def test_of_two_quantizers_it_is_refused_with_the_long_spellings(decoder, encoder):
    both = f"--sae topk --quantizer {decoder} --encoder-quantizer {encoder}"
    result = train(f"{both} --n-bits 4")
    assert result.exit_code == 2
    what, allowed, next_ = result.stderr.strip().splitlines()
    assert what == "qsae: error: --n-bits could be any of --quantizer.n-bits, --encoder-quantizer.n-bits"
    assert allowed.startswith("  allowed: --n-bits where one chosen part alone has it")
    assert "--quantizer.n-bits VALUE" in next_
    assert "--encoder-quantizer.n-bits VALUE" in next_
    config = resolved(f"{both} --quantizer.n-bits 2 --encoder-quantizer.n-bits 4")
    assert [config[slot]["n_bits"] for slot in ("quantizer", "encoder_quantizer")] == [2, 4]


def test_a_quantizer_that_the_sae_brings_along_counts():
    """``ternary`` has a quantized encoder unless another one is chosen."""
    assert train("--sae ternary --n-bits 4").exit_code == 2
    assert resolved("--sae ternary --encoder-quantizer none --n-bits 4")["quantizer"]["n_bits"] == 4
    assert resolved("--sae ternary --encoder-quantizer.n-bits 6")["encoder_quantizer"]["n_bits"] == 6


def test_the_help_shows_the_spellings_that_work():
    one = " ".join(train("--sae topk --quantizer ste --help").stdout.split())
    assert re.search(r" --n-bits, [^[]*--quantizer\.n-bits INTEGER", one)
    two = " ".join(train("--sae topk --quantizer ste --encoder-quantizer lsq --help").stdout.split())
    assert "--n-bits, " not in two
    assert "--quantizer.n-bits INTEGER" in two
    assert "--encoder-quantizer.n-bits INTEGER" in two
    assert "A short flag works where one chosen part alone has it" in two


@pytest.mark.parametrize("command", [train_command, evaluate, quantize, import_], ids=lambda c: c.name)
def test_no_option_of_a_command_hides_one_of_an_installed_component(command: ConfiguredCommand):
    """The command's own would win, and the component's short flag would silently be something else."""
    registry = load_plugins().registry
    for option in command.params:
        for spelling in option.opts:
            hidden = owners(spelling, registry) if spelling.startswith("--") else []
            here = [owner.title for owner in hidden if set(owner.places) & set(command.scope.places)]
            assert not here, f"qsae {command.name} {spelling} hides that of {here}"
