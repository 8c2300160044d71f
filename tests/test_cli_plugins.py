"""list-plugins, describe and check as commands; how errors leave the command line; what start-up costs."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from qsae_cli.output import print_table

GOOD = """
    from typing import Literal
    from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option

    class DoublerConfig(ComponentConfig):
        '''Multiply by a factor.

        A second paragraph.
        '''

        factor: float = option(2.0, "what latents are multiplied by", gt=0, le=8)
        mode: Literal["fast", "exact"] = option("fast", "how")
        seed: int | None = option(None, "of the noise", aliases=("noise-seed",))

    @hookimpl
    def qsae_register_activations():
        return [ComponentSpec("activation", "doubler", DoublerConfig, "acme_good.maths:Doubler")]

    @hookimpl
    def qsae_register_commands(cli):
        import click

        @cli.command("acme-hello")
        @click.option("--fail", is_flag=True)
        def hello(fail):
            "Say hello."
            from qsae_core import QsaeError
            if fail:
                raise QsaeError("acme fails", where="here", allowed="nothing", next="go home")
            click.echo("hello")
"""
MATHS = """
    from qsae_core.contracts.activation import Activation

    class Doubler(Activation):
        '''Doubles.'''

        def forward(self, pre_acts, latent_index=None):
            return self.config.factor * pre_acts.relu()
"""


@pytest.fixture
def site(plugin_site):
    plugin_site.add("acme-good", GOOD, files={"maths.py": MATHS})
    return plugin_site


def listed(done) -> dict[str, dict]:
    """Our fake plugins' entries of ``list-plugins --json``, by name."""
    return {entry["name"]: entry for entry in json.loads(done.stdout) if entry["name"].startswith("acme-")}


# --- list-plugins


def test_the_table_shows_good_and_bad_with_causes_and_exits_0(site):
    site.add("acme-bad", "import acme_absent")
    site.add("acme-old", "", requires="qsae<0.1")
    done = site.qsae("list-plugins", QSAE_PLUGINS="acme-good,acme-bad")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].split() == ["plugin", "version", "status", "brings"]
    (good,) = [line for line in lines if line.startswith("acme-good ")]
    assert good.split(maxsplit=3)[1:3] == ["1.0", "ok"]
    assert "activation: doubler; hooks: qsae_register_commands; commands: acme-hello" in good
    assert "acme-bad is broken: ModuleNotFoundError: No module named 'acme_absent'" in lines
    assert "acme-old is blocked: not among QSAE_PLUGINS" in lines


def test_json_has_every_fact(site):
    site.add("acme-bad", "1 / 0")
    found = listed(site.qsae("list-plugins", "--json"))
    assert found["acme-good"] == {
        "name": "acme-good",
        "version": "1.0",
        "status": "ok",
        "components": {"activation": ["doubler"]},
        "hooks": ["qsae_register_commands"],
        "commands": ["acme-hello"],
        "error": None,
        "traceback": None,
        "contested": [],
        "target_errors": [],
    }
    assert found["acme-bad"]["status"] == "broken"
    assert "1 / 0" in found["acme-bad"]["traceback"]


def test_debug_shows_the_traceback(site):
    site.add("acme-bad", "1 / 0")
    assert "Traceback" not in site.qsae("list-plugins").stdout
    assert "Traceback" in site.qsae("list-plugins", QSAE_DEBUG="1").stdout


def test_a_contested_component_is_shown_on_both_sides(site):
    site.add("acme-rival", GOOD.replace("acme-hello", "acme-rival"))
    done = site.qsae("list-plugins", "--json")
    contests = {name: entry["contested"] for name, entry in listed(done).items()}
    assert contests == {
        "acme-good": [{"kind": "activation", "name": "doubler", "with": ["acme-rival"]}],
        "acme-rival": [{"kind": "activation", "name": "doubler", "with": ["acme-good"]}],
    }
    assert done.returncode == 0
    used = site.qsae("describe", "activation", "doubler")
    assert used.returncode == 2
    assert "QSAE_DISABLE_PLUGINS=acme-rival or QSAE_DISABLE_PLUGINS=acme-good" in used.stderr
    alone = site.qsae("describe", "activation", "doubler", QSAE_DISABLE_PLUGINS="acme-good")
    assert "from acme-rival 1.0" in alone.stdout


@pytest.mark.parametrize(
    ("name", "source", "code"),
    [
        pytest.param("acme-fine", "", 0, marks=pytest.mark.torch),
        ("acme-bad", "1 / 0", 1),
        ("acme-rival", GOOD.replace("acme-hello", "acme-rival"), 1),
        pytest.param(
            "acme-base",
            GOOD.replace("acme_good.maths:Doubler", "pathlib:Path").replace('"doubler"', '"x"'),
            1,
            marks=pytest.mark.torch,
        ),
    ],
)
def test_strict_exits_1_when_something_is_wrong(site, name, source, code):
    site.add(name, source.replace("acme-hello", "acme-other"))
    only = {"QSAE_PLUGINS": f"acme-good,{name}"}
    assert site.qsae("list-plugins", **only).returncode == 0
    done = site.qsae("list-plugins", "--strict", **only)
    assert done.returncode == code, done.stdout + done.stderr
    if name == "acme-base":
        assert "activation 'x' of acme-base 1.0" in done.stdout
        assert "does not subclass qsae_core.contracts.Activation" in done.stdout


@pytest.mark.torch
def test_strict_forgives_what_is_blocked_on_purpose(site):
    site.add("acme-bad", "1 / 0")
    assert site.qsae("list-plugins", "--strict", QSAE_PLUGINS="acme-good").returncode == 0


def test_without_plugins_it_says_what_to_do(site, monkeypatch):
    monkeypatch.setattr("importlib.metadata.distributions", lambda **options: iter(()))
    assert site.qsae("list-plugins").stdout.startswith("no plugins are installed; next: pip install")


# --- describe


def test_describe_shows_docstring_options_and_yaml_that_can_be_pasted(site):
    done = site.qsae("describe", "activation", "doubler")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert text.startswith(
        "activation doubler, from acme-good 1.0\n\nMultiply by a factor.\n\nA second paragraph."
    )
    rows = [line.split("  ") for line in text.splitlines()]
    cells = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert cells["option"] == ["type", "default", "constraint", "description"]
    assert cells["factor"] == ["float", "2.0", "> 0, <= 8", "what latents are multiplied by"]
    assert cells["mode"] == ["one of fast, exact", "fast", "-", "how"]
    assert cells["seed"] == ["int or none", "none", "-", "of the noise"]
    block = yaml.safe_load(text.split("In a configuration file:")[1])
    assert block == {"activation": {"use": "doubler", "factor": 2.0, "mode": "fast", "seed": None}}


def test_describe_json_is_the_schema_and_the_provider(site):
    schema = json.loads(site.qsae("describe", "activation", "doubler", "--json").stdout)
    assert schema["properties"]["factor"] == {
        "default": 2.0,
        "description": "what latents are multiplied by",
        "exclusiveMinimum": 0,
        "maximum": 8,
        "title": "Factor",
        "type": "number",
    }
    assert schema["additionalProperties"] is False
    assert schema["x-qsae"]["provider"] == "acme-good"
    assert schema["x-qsae"]["target"] == "acme_good.maths:Doubler"


CODER = """
    from qsae_core import CoderConfig, ComponentSpec, hookimpl, option

    class XConfig(CoderConfig):
        '''An X.'''

        path: str = option(description="where from")

    @hookimpl
    def qsae_register_saes():
        return [
            ComponentSpec(
                "sae", "x", XConfig, "acme_coder:X",
                default_parts={"sparsity": {"use": "topk", "k": 4}, "quantizer": None},
                refuses={("activation", "relu"): "it has its own"},
            )
        ]
"""


def test_describe_shows_parts_and_refusals_and_what_must_be_filled_in(site):
    site.add("acme-coder", CODER)
    text = site.qsae("describe", "sae", "x").stdout
    assert "sparsity   topk (k=4)" in text
    assert "quantizer  none: it has no such part" in text
    assert "activation relu  it has its own" in text
    (row,) = [line for line in text.splitlines() if line.startswith("path ")]
    assert row.split() == ["path", "str", "required", "-", "where", "from"]
    assert "# fill in: path" in text
    block = yaml.safe_load(text.split("In a configuration file:")[1].split("Parts")[0])
    assert block["sae"]["path"] is None
    facts = json.loads(site.qsae("describe", "sae", "x", "--json").stdout)["x-qsae"]
    assert facts["default_parts"] == {"sparsity": {"use": "topk", "k": 4}, "quantizer": None}
    assert facts["refuses"] == [{"kind": "activation", "name": "relu", "reason": "it has its own"}]


def test_describe_lists_a_kind(site):
    done = site.qsae("describe", "activation", "--json", QSAE_PLUGINS="acme-good")
    assert json.loads(done.stdout) == [
        {"name": "doubler", "summary": "Multiply by a factor.", "provider": "acme-good", "version": "1.0"}
    ]
    table = site.qsae("describe", "activation", QSAE_PLUGINS="acme-good").stdout.splitlines()
    assert table[0] == "activations"
    assert table[2].split("  ")[0] == "doubler"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("activation", "doublr"), "unknown activation 'doublr'; did you mean 'doubler'? installed: "),
        (("activations",), "there is no kind 'activations'; did you mean 'activation'?"),
        (
            ("activations", "doubler"),
            "allowed: sae, transcoder, quantizer, code_quantizer, activation, sparsity, data, metric",
        ),
    ],
)
def test_describe_of_what_is_not_there(site, arguments, expected):
    done = site.qsae("describe", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ""


def test_every_installed_component_can_be_described_and_pasted(site):
    """With whatever plugins are installed beside the tests."""
    from qsae_cli.describe import _yaml
    from qsae_core.kinds import KINDS
    from qsae_core.plugins.records import load_plugins

    registry = load_plugins().registry
    for kind in KINDS:
        for spec in registry.specs(kind):
            text = _yaml(spec)
            if text is None:
                continue
            (block,) = yaml.safe_load(text).values()
            options = dict(block[0] if isinstance(block, list) else block)
            assert options.pop("use") == spec.name
            if "# fill in" not in text:
                assert spec.config(**options) == spec.config()


# --- check


@pytest.mark.torch
def test_check_passes_a_good_plugin_and_names_the_fault_of_a_bad_one(site):
    good = site.qsae("check", "acme-good", "--json")
    results = {entry["id"]: entry for entry in json.loads(good.stdout)}
    assert results["activation-doubler-target"]["result"] == "pass"
    site.add("acme-bad", GOOD.replace("acme_good.maths:Doubler", "pathlib:Path").replace("acme-hello", "b"))
    bad = site.qsae("check", "acme-bad", "--json", QSAE_DISABLE_PLUGINS="acme-good")
    assert bad.returncode == 1
    results = {entry["id"]: entry for entry in json.loads(bad.stdout)}
    assert results["activation-doubler-target"]["result"] == "fail"
    assert "pathlib:Path is no subclass" in results["activation-doubler-target"]["reason"]
    table = site.qsae("check", "acme-bad", QSAE_DISABLE_PLUGINS="acme-good")
    assert table.returncode == 1
    assert any("activation-doubler-target" in line and "FAIL" in line for line in table.stdout.splitlines())


@pytest.mark.torch
def test_check_of_what_is_not_installed(site):
    done = site.qsae("check", "acme-god")
    assert done.returncode == 2
    assert "did you mean 'acme-good'?" in done.stderr


# --- the command line itself


def test_the_script_runs_as_a_process_of_its_own(site):
    site.add("acme-print", "print('noise')")
    run = "import sys; from qsae_cli.main import main; sys.argv[1:] = ['list-plugins', '--json']; main()"
    done = site.process(run)
    assert done.returncode == 0
    assert listed(done)["acme-good"]["status"] == "ok"
    assert done.stderr == "noise\n"


def test_commands_of_plugins_run_and_are_in_the_help(site):
    help_text = site.qsae("--help").stdout
    assert "Commands of plugins" in help_text
    assert "acme-hello  Say hello." in help_text
    assert site.qsae("acme-hello").stdout == "hello\n"


def test_user_errors_go_to_stderr_without_a_traceback(site):
    done = site.qsae("acme-hello", "--fail")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "qsae: error: here: acme fails\n  allowed: nothing\n  next:    go home\n"
    debug = site.qsae("acme-hello", "--fail", QSAE_DEBUG="1")
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr


def test_unknown_commands_suggest_the_closest(site):
    done = site.qsae("list-plugin")
    assert done.returncode == 2
    assert "no such command 'list-plugin'; did you mean 'list-plugins'?" in done.stderr
    far = site.qsae("acme-hello", QSAE_DISABLE_PLUGINS="acme-good")
    assert "no such command 'acme-hello'; a plugin may bring it: qsae list-plugins" in far.stderr


def test_a_broken_plugin_disturbs_no_other_command(site):
    site.add("acme-exit", "raise SystemExit(7)")
    site.add("acme-print", "print('noise')")
    site.add("acme-take", GOOD.replace("acme-hello", "describe").replace('"doubler"', '"taken"'))
    done = site.qsae("describe", "activation", "doubler", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["title"] == "DoublerConfig"
    assert "its command 'describe' is already one of qsae itself" in site.qsae("list-plugins").stdout


def test_a_wrong_selection_is_an_error_of_every_command(site):
    done = site.qsae("--help", QSAE_PLUGINS="acme-god")
    assert done.returncode == 2
    assert done.stderr.startswith("qsae: error: QSAE_PLUGINS: 'acme-god' is not an installed plugin")


# --- tables

ROWS = [("a", 1.5, None), ("long name", 12, "a text\nof several words")]


def test_tables_in_a_pipe_have_one_line_a_row(capsys):
    print_table(("name", "FVU>", "note"), ROWS, title="numbers")
    assert capsys.readouterr().out.splitlines() == [
        "numbers",
        "name       FVU  note",
        "a          1.5  -",
        "long name   12  a text of several words",
    ]


def test_tables_on_a_terminal_wrap_and_lose_nothing(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(("name", "FVU>", "note"), [("[bold]x", 12, "one two three four five six")])
    lines = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 24
    assert len(lines) > 2
    words = " ".join(lines[1:]).split()
    assert words[:2] == ["[bold]x", "12"]
    assert words[2:] == ["one", "two", "three", "four", "five", "six"]


# --- start-up

HEAVY = ("torch", "transformers", "numpy", "scipy", "rich", "datasets", "packaging.requirements")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list-plugins"], ["list-plugins", "--json"], ["describe", "activation"]]
)
def test_start_up_imports_nothing_heavy(site, arguments):
    script = (
        f"import sys; from qsae_cli.main import cli; cli({arguments!r}, standalone_mode=False); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = site.process(script)
    assert done.stderr.splitlines()[-1] == "[]"
