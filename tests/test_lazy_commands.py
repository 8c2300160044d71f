"""Commands that are imported when they run: qsae's own and those of plugins."""

from __future__ import annotations

import json
import pathlib
import re

import click
import pytest
from click.testing import CliRunner

from qsae_cli.lazy_command import LazyCommand
from qsae_cli.main import BUILT_IN, cli
from qsae_core.errors import PluginError

ADDS = """
    from qsae_core import hookimpl

    @hookimpl
    def qsae_register_commands(cli):
        from qsae_cli.commands import LazyCommand
        cli.add_command(LazyCommand("acme-late", "acme_late.command:late", "Say hello, later."))
"""
COMMAND = """
    import click
    from qsae_cli.commands import json_option, print_json

    @click.command()
    @click.argument("name")
    @json_option
    def late(name, as_json):
        "Say hello to NAME."
        print_json({"hello": name}) if as_json else click.echo(f"hello {name}")
"""


@pytest.fixture
def site(plugin_site):
    plugin_site.add("acme-late", ADDS, files={"command.py": COMMAND})
    return plugin_site


def test_it_runs_and_shows_its_own_help(site):
    assert site.qsae("acme-late", "you").stdout == "hello you\n"
    assert json.loads(site.qsae("acme-late", "you", "--json").stdout) == {"hello": "you"}
    assert (
        "Usage: qsae acme-late [OPTIONS] NAME\n\n  Say hello to NAME." in site.qsae("acme-late", "-h").stdout
    )
    assert "acme-late  Say hello, later." in re.sub(" +(?=  )", "", site.qsae("--help").stdout)


@pytest.mark.parametrize("arguments", [["--help"], ["list-plugins"], ["describe", "metric"]])
def test_until_then_it_is_not_imported(site, arguments):
    script = (
        f"import sys; from qsae_cli.main import cli; cli({arguments!r}, standalone_mode=False); "
        "print([m for m in sys.modules if m == 'acme_late.command' or m.startswith('qsae_cli.options')])"
    )
    assert site.process(script).stdout.splitlines()[-1] == "[]"


def test_one_that_cannot_be_imported_disturbs_no_other_command(site):
    site.add("acme-gone", ADDS.replace("acme-late", "acme-gone").replace("acme_late", "acme_gone"))
    assert site.qsae("acme-late", "you").stdout == "hello you\n"
    done = site.qsae("acme-gone")
    assert (done.returncode, done.stdout) == (2, "")
    assert "command 'acme-gone': target 'acme_gone.command:late' cannot be imported" in done.stderr
    assert site.qsae("list-plugins").returncode == 0
    strict = site.qsae("list-plugins", "--strict", QSAE_PLUGINS="acme-late,acme-gone")
    assert strict.returncode == 1
    assert "command 'acme-gone': target" in strict.stdout
    assert "command 'acme-late'" not in strict.stdout


def test_what_is_no_command_is_told():
    with pytest.raises(PluginError, match=r"command 'x': .*'json:dumps' is of type function"):
        LazyCommand("x", "json:dumps", "No command.").load()


def test_names_are_completed_without_an_import(site):
    """Of every command, one that cannot be imported among them."""
    site.add("acme-gone", ADDS.replace("acme-late", "acme-gone").replace("acme_late", "acme_gone"))
    asked = {"_QSAE_COMPLETE": "bash_complete", "COMP_WORDS": "qsae acme", "COMP_CWORD": "1"}
    assert site.qsae(**asked).stdout.split() == ["plain,acme-gone", "plain,acme-late"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_commands_are_what_their_names_say(name):
    context = click.Context(cli)
    found, command, rest = cli.resolve_command(context, [name, "--x"])
    assert (found, rest) == (name, ["--x"])
    assert type(command) is not LazyCommand
    assert command.name == name
    module = pathlib.Path(command.callback.__code__.co_filename).stem.rstrip("_")  # import_
    assert module == name.replace("-", "_")


ALONE = ["evaluate", "quantize", "import", "export", "runs", "compare", "bench", "sites", "describe"]


@pytest.mark.parametrize("name", ALONE)
def test_several_processes_are_refused_what_each_would_do_whole(name):
    """Before options are read: what follows the command does not matter."""
    for rank in "01":
        several = {"WORLD_SIZE": "2", "RANK": rank}
        done = CliRunner().invoke(cli, [name, "anything"], env=several)
        assert done.exit_code == 2
        assert f"2 processes were started, and qsae {name} does not share its work" in done.output
        assert "allowed: a single process; several for cache and train" in done.output
        assert f"next:    qsae {name} ... without torchrun" in done.output
    for single in ({"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": None, "RANK": "1"}):
        assert "processes were started" not in CliRunner().invoke(cli, [name, "anything"], env=single).output


@pytest.mark.parametrize(
    "line",
    [
        "train --sae topk --data synthetic --dry-run",
        "cache --storage nothing --out anywhere",
        "--version",
        "-h",
    ],
)
def test_several_processes_may_share(line):
    done = CliRunner().invoke(cli, line.split(), env={"WORLD_SIZE": "2", "RANK": "1"})
    assert "processes were started" not in done.output
    assert done.exit_code == (2 if line.startswith("cache") else 0)


@pytest.mark.parametrize("name", ["estimate", "info", "verify"])
def test_of_a_store_only_the_harvest_is_shared(name):
    done = CliRunner().invoke(cli, ["cache", name, "nowhere"], env={"WORLD_SIZE": "2", "RANK": "1"})
    assert done.exit_code == 2
    assert f"2 processes were started, and qsae cache {name} does not share its work" in done.output
    assert "allowed: a single process; several for cache" in done.output


def test_a_plugin_says_whether_its_command_shares_its_work(site):
    """A command that says nothing does not."""
    several = {"WORLD_SIZE": "2", "RANK": "0"}
    refused = site.qsae("acme-late", "you", **several)
    assert refused.returncode == 2
    assert "qsae acme-late does not share its work" in refused.stderr
    shared = ADDS.replace('"Say hello, later."', '"Say hello, later.", shared=True').replace("late", "many")
    site.add("acme-many", shared, files={"command.py": COMMAND.replace("def late", "def many")})
    assert site.qsae("acme-many", "you", **several).stdout == "hello you\n"
