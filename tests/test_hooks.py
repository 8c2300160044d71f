"""Every hook, as a plugin would implement it: what it is called with, when, and what comes of it."""

from __future__ import annotations

import inspect
import json
import pathlib
import sys
import textwrap

import pytest

from qsae_core.kinds import KINDS
from qsae_core.plugins import hookspecs
from qsae_core.plugins.addresses import local_path

REGISTRATION = {
    "qsae_register_saes": "sae",
    "qsae_register_transcoders": "transcoder",
    "qsae_register_quantizers": "quantizer",
    "qsae_register_code_quantizers": "code_quantizer",
    "qsae_register_activations": "activation",
    "qsae_register_sparsity_rules": "sparsity",
    "qsae_register_data_sources": "data",
    "qsae_register_metrics": "metric",
    "qsae_register_evaluations": "evaluation",
    "qsae_register_formats": "format",
    "qsae_register_kernels": "kernel",
    "qsae_register_trackers": "tracker",
}
LIFE_CYCLE = {
    "qsae_configure",
    "qsae_train_start",
    "qsae_step_end",
    "qsae_checkpoint_saved",
    "qsae_train_end",
}
DIARY = """
    import json, os, pathlib
    from qsae_core import hookimpl

    def note(hook, **values):
        with open(os.environ["DIARY"], "a") as file:
            file.write(json.dumps({"hook": hook, **values}) + "\\n")

    @hookimpl
    def qsae_configure(run_config):
        note("configure", k=run_config.components["sparsity"].options.k)

    @hookimpl
    def qsae_train_start(run):
        note("train_start", path=str(run.path), steps=list(map(str, run.checkpoints.glob("*"))))

    @hookimpl
    def qsae_step_end(run, step, metrics):
        note("step_end", path=str(run.path), step=step, metrics=metrics)

    @hookimpl
    def qsae_checkpoint_saved(path):
        note("checkpoint_saved", path=str(path), files=sorted(file.name for file in path.iterdir()))

    @hookimpl
    def qsae_train_end(run):
        note("train_end", finished=run.finished, metrics=run.metrics_file.exists())
"""


def test_these_are_all_hooks():
    hooks = {
        name
        for name, value in vars(hookspecs).items()
        if name.startswith("qsae_") and inspect.isfunction(value)
    }
    assert hooks == REGISTRATION.keys() | LIFE_CYCLE | {"qsae_register_commands", "qsae_register_addresses"}
    assert {kind.hook: kind.name for kind in KINDS.values()} == REGISTRATION


@pytest.mark.parametrize(("hook", "kind"), REGISTRATION.items())
def test_a_registration_hook_lists_components_of_its_kind(hook, kind, plugin_site):
    source = f"""
        from qsae_core import CoderConfig, ComponentSpec, hookimpl

        class MineConfig(CoderConfig):
            '''Options.'''

        @hookimpl
        def {hook}():
            return [ComponentSpec("{kind}", "mine", MineConfig, "acme.maths:Mine")]
    """
    plugin_site.add("acme", source, files={"maths.py": ""})
    plugins = plugin_site.load()
    (record,) = plugins.records
    assert (record.status, record.components) == ("ok", {kind: ("mine",)})
    assert plugins.registry.names(kind) == ["mine"]


def test_register_commands_adds_a_command(plugin_site):
    source = """
        import click
        from qsae_core import hookimpl

        @click.command()
        def hello():
            '''Say hello.'''
            click.echo("hello")

        @hookimpl
        def qsae_register_commands(cli):
            cli.add_command(hello)
    """
    plugin_site.add("acme", source)
    assert plugin_site.qsae("hello", QSAE_PLUGINS="acme").stdout == "hello\n"
    assert "Say hello." in plugin_site.qsae("--help", QSAE_PLUGINS="acme").stdout


def test_register_addresses_is_asked_when_an_address_is_given(plugin_site, monkeypatch):
    source = """
        from qsae_core import hookimpl

        @hookimpl
        def qsae_register_addresses():
            return {"shelf": "acme.reading:fetch"}
    """
    reading = (
        "import pathlib\ndef fetch(address, names):\n    return pathlib.Path('/', *names, address[8:])\n"
    )
    plugin_site.add("acme", source, files={"reading.py": reading})
    plugins = plugin_site.load()
    assert plugins.records[0].hooks == ("qsae_register_addresses",)
    assert "acme.reading" not in sys.modules
    monkeypatch.setattr("qsae_core.plugins.addresses.load_plugins", lambda: plugins)
    assert local_path("shelf://a/b", ("x", "y")) == pathlib.Path("/x/y/a/b")


@pytest.mark.torch
def test_the_life_of_a_run(plugin_site, tmp_path):
    plugin_site.add("acme-diary", textwrap.dedent(DIARY))
    command = (
        "train --sae topk --data synthetic --n-latents 64 --k 4 --steps 6 --batch-size 32 --eval-tokens 64"
    )
    command += " --statistics-tokens 64 --log-every 3 --eval-every 0 --checkpoint-every 4 --threads 1"
    done = plugin_site.qsae(
        *command.split(), "--out", str(tmp_path / "results"), DIARY=str(tmp_path / "diary")
    )
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]
    run = tmp_path / "results" / "topk-synthetic-tiny" / "synthetic" / "6"

    order = [(e["hook"], e.get("step"), (e.get("path") or "").rpartition("/")[2]) for e in entries]
    assert order[:3] == [("configure", None, ""), ("train_start", None, "6"), ("step_end", 3, "6")]
    assert ("checkpoint_saved", None, "step_00000004") in order
    assert order[-2:] == [("checkpoint_saved", None, "final"), ("train_end", None, "")]
    assert [e["step"] for e in entries if e["hook"] == "step_end"] == [3, 6]

    by_hook = {entry["hook"]: entry for entry in entries}  # the last of each
    assert by_hook["configure"]["k"] == 4
    assert by_hook["train_start"] == {"hook": "train_start", "path": str(run), "steps": []}
    metrics = by_hook["step_end"]["metrics"]
    assert metrics["l0"] <= 4
    assert all(value is None or isinstance(value, float) for value in metrics.values())
    assert {"loss", "loss/mse", "fvu", "l0", "dead", "lr", "grad_norm", "tokens_per_second"} <= metrics.keys()
    assert by_hook["checkpoint_saved"]["files"] == ["coder.json", "coder.safetensors"]
    assert by_hook["train_end"] == {"hook": "train_end", "finished": True, "metrics": True}
