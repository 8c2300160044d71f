"""Discovery and loading: good plugins load, and every kind of bad one is named without harm to others."""

from __future__ import annotations

import sys
import textwrap

import click
import pytest

from qsae_core import __version__
from qsae_core.errors import PluginError, TrainingError
from qsae_core.plugins.discovery import incompatibility, normalize

HEAD = """
from qsae_core import ComponentConfig, ComponentSpec, hookimpl

class DoublerConfig(ComponentConfig):
    '''Twice the input.'''

"""


def registering(expression: str, hook: str = "qsae_register_activations") -> str:
    """Source of a plugin's top module whose one hook returns the expression."""
    return f"{HEAD}@hookimpl\ndef {hook}():\n    return {expression}\n"


def spec(module: str, *, name: str = "doubler", config: str = "DoublerConfig", more: str = "") -> str:
    return f'ComponentSpec("activation", "{name}", {config}, "{module}:Doubler"{more})'


def add_good(site, name: str, component: str = "doubler", **options) -> None:
    site.add(name, registering(f"[{spec(name.replace('-', '_'), name=component)}]"), **options)


def statuses(plugins) -> dict[str, str]:
    return {record.name: record.status for record in plugins.records}


def error_of(plugins, name: str) -> str:
    (record,) = [record for record in plugins.records if record.name == name]
    assert record.status == "broken", record
    return record.error


# --- what works


def test_a_good_plugin_is_ok_and_its_target_stays_unimported(plugin_site):
    source = registering('[ComponentSpec("activation", "doubler", DoublerConfig, "acme_good.maths:Doubler")]')
    plugin_site.add("acme-good", source, version="2.3", files={"maths.py": "raise RuntimeError('imported')"})
    (record,) = plugin_site.load().records
    assert (record.name, record.version, record.status) == ("acme-good", "2.3", "ok")
    assert record.components == {"activation": ("doubler",)}
    assert (record.hooks, record.commands, record.error, record.traceback) == ((), (), None, None)


def test_records_are_sorted_by_distribution(plugin_site):
    for name in ("zeta", "alpha", "mid-1"):
        add_good(plugin_site, name, component=name)
    assert list(statuses(plugin_site.load())) == ["alpha", "mid-1", "zeta"]


def test_names_are_compared_as_indexes_do():
    assert normalize("Foo__Bar.baz-") == "foo-bar-baz"


def test_life_cycle_hooks_and_commands_are_listed_beside_components(plugin_site):
    source = registering(f"[{spec('acme_hooks')}]") + textwrap.dedent(
        """
        import click

        @hookimpl
        def qsae_train_start(run):
            run.append("started")

        @hookimpl
        def qsae_register_commands(cli):
            @cli.command("hello")
            def hello():
                "Say hello."
        """
    )
    plugin_site.add("acme-hooks", source)
    plugins = plugin_site.load()
    commands = plugins.commands(reserved=["train"])
    (record,) = plugins.records
    assert record.hooks == ("qsae_register_commands", "qsae_train_start")
    assert record.commands == ("hello",)
    assert isinstance(commands["hello"], click.Command)
    run: list[str] = []
    plugins.hook.qsae_train_start(run=run)
    assert run == ["started"]


def test_the_configure_hook_is_called_with_the_configuration(plugin_site):
    plugin_site.add(
        "acme", f"{HEAD}@hookimpl\ndef qsae_configure(run_config):\n    run_config['seen'] = True\n"
    )
    config: dict[str, bool] = {}
    plugin_site.load().hook.qsae_configure.call_historic(kwargs={"run_config": config})
    assert config == {"seen": True}


# --- one bad plugin, each with its cause; the good one beside it always works

BAD = {
    "raises on import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits on import": ("raise SystemExit(3)", "SystemExit: 3"),
    "a missing module": ("import acme_not_there", "No module named 'acme_not_there'"),
    "a syntax error": ("def broken(:", "SyntaxError: invalid syntax"),
    "a misspelled hook": (
        registering("[]", hook="qsae_register_quantisers"),
        "qsae_register_quantisers is no hook of qsae; did you mean 'qsae_register_quantizers'?",
    ),
    "an undecorated hook": (
        registering("[]").replace("@hookimpl\n", ""),
        "acme_bad.qsae_register_activations is not decorated with @hookimpl",
    ),
    "an undecorated qsae_ function": ("def qsae_something(): ...", "decorate or rename it"),
    "an unknown hook argument": (
        f"{HEAD}@hookimpl\ndef qsae_train_start(run, colour): ...",
        "Argument(s) {'colour'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "a raising registration hook": (
        registering("{}['missing']"),
        "KeyError: 'missing'",
    ),
    "a hook that forgets to return": (
        registering("None"),
        "qsae_register_activations returned None; it must",
    ),
    "one spec instead of a list": (registering(spec("acme_bad")), "it must return a list of ComponentSpec"),
    "a class among the specs": (registering("[DoublerConfig]"), "a list with the class DoublerConfig; every"),
    "a kind that is not the hook's": (
        registering(f"[{spec('acme_bad')}]", hook="qsae_register_metrics"),
        "returned the activation 'doubler', but it lists components of kind 'metric'; "
        "return it from qsae_register_activations",
    ),
    "an unknown kind": (
        registering('[ComponentSpec("sea", "x", DoublerConfig, "acme_bad:X")]'),
        "kinds are sae, transcoder, quantizer",
    ),
    "a bad name": (registering(f"[{spec('acme_bad', name='Top K')}]"), "a name has lower-case letters"),
    "a config that is none": (
        registering(f"[{spec('acme_bad', config='dict')}]"),
        "config is the class dict; it must be a subclass of ComponentConfig",
    ),
    "a coder's config without the coder's options": (
        registering('[ComponentSpec("sae", "x", DoublerConfig, "acme_bad:X")]', hook="qsae_register_saes"),
        "it must be a subclass of CoderConfig",
    ),
    "a target without a class": (
        registering('[ComponentSpec("activation", "x", DoublerConfig, "acme_bad.maths")]'),
        'must read "package.module:Class"',
    ),
    "a target in a module that is not there": (
        registering('[ComponentSpec("activation", "x", DoublerConfig, "acme_bad.math.deep:X")]'),
        "is in a module that does not exist: acme_bad.math",
    ),
    "default parts of an activation": (
        registering(f"[{spec('acme_bad', more=', default_parts={1: 2}')}]"),
        "only sae and transcoder components have default_parts",
    ),
    "the same name twice": (
        registering(f"[{spec('acme_bad')}, {spec('acme_bad')}]"),
        "registers activation 'doubler' twice",
    ),
    "a wrapper around registration": (
        f"{HEAD}@hookimpl(wrapper=True)\ndef qsae_register_saes():\n    return (yield)\n",
        "qsae_register_saes cannot be a hook wrapper",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_is_broken_with_its_cause_and_spoils_no_other(plugin_site, case):
    source, expected = BAD[case]
    plugin_site.add("acme-bad", source)
    add_good(plugin_site, "acme-good")
    add_good(plugin_site, "aaa-good", component="other")
    plugins = plugin_site.load()
    assert statuses(plugins) == {"aaa-good": "ok", "acme-bad": "broken", "acme-good": "ok"}
    assert expected in error_of(plugins, "acme-bad")
    assert plugins.registry.names("activation") == ["doubler", "other"]
    assert plugins.commands(reserved=[]) == {}


def coder(more: str) -> str:
    config = "from qsae_core import CoderConfig\nclass XConfig(CoderConfig): 'X.'\n"
    body = f'[ComponentSpec("sae", "x", XConfig, "acme_bad:X", {more})]'
    return registering(body, hook="qsae_register_saes").replace("@hookimpl", config + "\n@hookimpl")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            'default_parts={"metric": {"use": "l0"}}',
            "default_parts has no slot 'metric'; slots are quantizer",
        ),
        ('default_parts={"quantizer": {"bits": 2}}', 'it must be {"use": name, ...} or None'),
        ('refuses={"quantizer": "no"}', "it must be (kind, name)"),
        ('refuses={("quantizer", "ste"): ""}', "needs a reason that a user can read"),
    ],
)
def test_wrong_combinations_of_a_coder_are_refused(plugin_site, more, expected):
    plugin_site.add("acme-bad", coder(more))
    assert expected in error_of(plugin_site.load(), "acme-bad")


def test_right_combinations_of_a_coder_are_accepted(plugin_site):
    parts = 'default_parts={"sparsity": {"use": "topk", "k": 4}, "quantizer": None}'
    plugin_site.add("acme-bad", coder(f'{parts}, refuses={{("quantizer", "ste"): "it has bits of its own"}}'))
    assert statuses(plugin_site.load()) == {"acme-bad": "ok"}


def test_a_broken_plugin_takes_part_in_nothing(plugin_site):
    source = registering("1 / 0") + "\n@hookimpl\ndef qsae_train_end(run):\n    run.append('called')\n"
    plugin_site.add("acme-bad", source)
    plugins, run = plugin_site.load(), []
    plugins.hook.qsae_train_end(run=run)
    assert run == []
    (record,) = plugins.records
    assert record.components == {}
    assert record.hooks == ()
    assert "in qsae_register_activations" in record.traceback
    assert "ZeroDivisionError" in record.traceback


def test_two_entry_points_in_one_distribution(plugin_site):
    points = "[qsae]\none = acme_two\ntwo = acme_two\n"
    plugin_site.add("acme-two", registering("[]"), entry_points=points)
    assert "exactly one entry point in the group 'qsae', this one has 'one', 'two'" in error_of(
        plugin_site.load(), "acme-two"
    )


def test_an_entry_point_that_names_an_object(plugin_site):
    plugin_site.add("acme", registering("[]"), entry_points="[qsae]\nacme = acme:DoublerConfig\n")
    assert "'acme:DoublerConfig' must name a module, without ':'" in error_of(plugin_site.load(), "acme")


def test_an_entry_point_of_a_module_that_is_not_there(plugin_site):
    plugin_site.add("acme", "", entry_points="[qsae]\nacme = acme_gone\n")
    assert "No module named 'acme_gone'" in error_of(plugin_site.load(), "acme")


def test_two_distributions_with_one_module(plugin_site):
    add_good(plugin_site, "acme-one")
    plugin_site.add("acme-two", "", entry_points="[qsae]\ntwo = acme_one\n")
    plugins = plugin_site.load()
    assert statuses(plugins)["acme-one"] == "ok"
    assert "registered under a different name" in error_of(plugins, "acme-two")


def test_unreadable_metadata_hides_no_other_plugin(plugin_site):
    plugin_site.add("acme-bad", "", entry_points="[qsae]\nno equals sign here\n")
    add_good(plugin_site, "acme-good")
    plugins = plugin_site.load()
    assert statuses(plugins) == {"acme-bad": "broken", "acme-good": "ok"}
    assert "reinstall it" in error_of(plugins, "acme-bad")


def test_other_entry_point_groups_are_not_ours(plugin_site):
    plugin_site.add(
        "acme", "1 / 0", entry_points="[qsae-like]\nacme = acme\n[console_scripts]\nqsae = acme:x\n"
    )
    assert plugin_site.load().records == []


# --- versions and the environment


@pytest.mark.parametrize(
    ("requires", "admitted"),
    [
        ("qsae>=0.1,<0.2", True),
        ("qsae (>=0.1)", True),
        ("QSAE", True),
        ("qsae>=0.2", False),
        ("qsae<0.1", False),
        ("qsae>=0.2; extra == 'new'", True),
        ("qsae>=0.2; python_version > '3'", False),
        ("qsae-metrics>=9", True),
        ("torch>=2.9", True),
        ("qsae=>0.1", False),
    ],
)
def test_ranges_of_core(requires, admitted):
    assert (incompatibility(("torch", requires), "0.1.0") is None) == admitted


def test_an_incompatible_plugin_is_not_imported(plugin_site):
    plugin_site.add("acme-new", "raise AssertionError", requires="qsae>=7,<8")
    (record,) = plugin_site.load().records
    assert record.status == "incompatible"
    assert f"it needs qsae <8,>=7, and this is qsae {__version__}" in record.error
    assert "acme_new" not in sys.modules


def test_disabled_plugins_are_not_imported(plugin_site):
    plugin_site.add("acme-bad", "raise AssertionError")
    add_good(plugin_site, "acme-good")
    plugins = plugin_site.load(QSAE_DISABLE_PLUGINS="Acme_Bad, acme-unknown")
    assert statuses(plugins) == {"acme-bad": "blocked", "acme-good": "ok"}
    assert plugins.records[0].error == "blocked by QSAE_DISABLE_PLUGINS"
    assert "acme_bad" not in sys.modules


def test_only_the_named_plugins_are_loaded(plugin_site):
    for name in ("a-1", "a-2", "a-3"):
        add_good(plugin_site, name, component=name)
    plugins = plugin_site.load(QSAE_PLUGINS="a-1,a-3", QSAE_DISABLE_PLUGINS="a-3")
    assert statuses(plugins) == {"a-1": "ok", "a-2": "blocked", "a-3": "blocked"}
    assert plugins.registry.names("activation") == ["a-1"]


def test_naming_a_plugin_that_is_not_installed_is_an_error(plugin_site):
    add_good(plugin_site, "acme-good")
    with pytest.raises(PluginError) as caught:
        plugin_site.load(QSAE_PLUGINS="acme-god")
    assert "'acme-god' is not an installed plugin; did you mean 'acme-good'?" in str(caught.value)


# --- commands


def command_plugin(name: str, body: str = "cli.add_command(click.Command({name!r}))") -> str:
    body = body.format(name=name)
    return f"import click\n{HEAD}@hookimpl\ndef qsae_register_commands(cli):\n    {body}\n"


def test_a_command_whose_name_is_taken_breaks_the_later_plugin_alone(plugin_site):
    plugin_site.add("acme-a", command_plugin("hello"))
    plugin_site.add("acme-b", command_plugin("hello") + registering(f"[{spec('acme_b')}]"))
    plugin_site.add("acme-c", command_plugin("train"))
    plugins = plugin_site.load()
    assert plugins.registry.names("activation") == ["doubler"]
    assert list(plugins.commands(reserved=["train"])) == ["hello"]
    assert "its command 'hello' is already one of acme-a" in error_of(plugins, "acme-b")
    assert "its command 'train' is already one of qsae itself" in error_of(plugins, "acme-c")
    assert plugins.registry.names("activation") == []


@pytest.mark.parametrize(
    ("body", "expected"), [("1 / 0", "ZeroDivisionError"), ("cli.commands['x'] = 3", "not a click.Command")]
)
def test_a_raising_command_hook_breaks_its_plugin_alone(plugin_site, body, expected):
    plugin_site.add("acme-a", command_plugin("", body))
    plugin_site.add("acme-b", command_plugin("hello"))
    plugins = plugin_site.load()
    assert list(plugins.commands(reserved=[])) == ["hello"]
    assert expected in error_of(plugins, "acme-a")


# --- life-cycle hooks that raise


def test_an_error_in_a_life_cycle_hook_names_the_plugin(plugin_site):
    plugin_site.add("acme-a", f"{HEAD}@hookimpl\ndef qsae_train_end(run):\n    run.append(1)\n")
    plugin_site.add("acme-b", f"{HEAD}@hookimpl\ndef qsae_train_end(run):\n    run.missing\n")
    with pytest.raises(PluginError) as caught:
        plugin_site.load().hook.qsae_train_end(run=[])
    message = str(caught.value)
    assert message.startswith(
        "acme-b, qsae_train_end: AttributeError: 'list' object has no attribute 'missing'"
    )
    assert "QSAE_DISABLE_PLUGINS=acme-b" in message
    assert isinstance(caught.value.__cause__, AttributeError)


def test_a_user_error_in_a_life_cycle_hook_stays_itself_with_the_plugin_as_its_place(plugin_site):
    source = "from qsae_core.errors import TrainingError\n" + HEAD
    source += "@hookimpl\ndef qsae_train_end(run):\n    raise TrainingError('stop', where='my.yaml')\n"
    plugin_site.add("acme-a", source)
    with pytest.raises(TrainingError, match=r"acme-a, qsae_train_end: my.yaml: stop"):
        plugin_site.load().hook.qsae_train_end(run=None)


def test_ctrl_c_passes_through(plugin_site):
    plugin_site.add("acme-a", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugin_site.load()


# --- tracing and stray output


def test_trace_prints_every_hook_call_to_stderr(plugin_site, capsys):
    source = registering(f"[{spec('acme')}]") + "\n@hookimpl\ndef qsae_train_end(run): ...\n"
    plugin_site.add("acme", source)
    plugin_site.load(QSAE_TRACE="1").hook.qsae_train_end(run=7)
    plugin_site.load(QSAE_TRACE="0").hook.qsae_train_end(run=8)
    assert capsys.readouterr().err.splitlines() == [
        "qsae trace: qsae_register_activations() -> acme",
        "qsae trace: qsae_train_end(run=7) -> acme",
    ]


def test_a_print_at_import_goes_to_stderr(plugin_site, capsys):
    plugin_site.add("acme", "print('hello')\n" + registering("[]"))
    plugin_site.load()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
