"""``qsae new-plugin``: a distribution that installs, is listed and passes its own tests at once."""

from __future__ import annotations

import importlib.resources
import pathlib
import re
import shlex
import shutil
import string
import tempfile
from collections.abc import Iterator, Mapping

import click

from qsae_core import __version__
from qsae_core.errors import ConfigError, did_you_mean
from qsae_core.kinds import KINDS
from qsae_core.plugins.records import load_plugins

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 24
TAKEN_NAMES = frozenset({"coder", "component", "data", "plain", "sparsity", "top-k", "transcoder"})
"""Names whose classes would be called as classes of qsae_core that the written files use."""
IMPORTS: Mapping[str, tuple[str, ...]] = {"tracker": ()}
"""What a plugin of a kind imports besides qsae; torch for the others."""


@click.command("new-plugin", epilog=f"Kinds: {', '.join(KINDS)}.")
@click.argument("kind")
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    default=pathlib.Path(),
    help="Where to write the distribution's folder; default: here.",
)
def new_plugin(kind: str, name: str, folder: pathlib.Path) -> None:
    """Write a plugin with one component NAME of a KIND.

    It is a whole distribution, qsae-KIND-NAME: options, a small working method, a README and tests.
    It can be installed and used at once; then put your own method in place of the example's.
    """
    _check_kind(kind)
    _check_name(kind, name)
    path = folder / _distribution(kind, name)
    write_plugin(kind, name, path)
    click.echo(f"wrote {path}\n\nnext:")
    quoted = shlex.quote(str(path))
    click.echo(f"  pip install --no-build-isolation --no-deps -e {quoted}")
    click.echo(f"  python -m pytest {quoted}")
    click.echo(f"  qsae describe {kind} {name}")


def write_plugin(kind: str, name: str, path: pathlib.Path) -> None:
    """Write the distribution's folder, whole or not at all.

    Raises:
        ConfigError: if something is at ``path`` already, or it cannot be written.
    """
    if path.exists():
        raise ConfigError(
            "there is something of that name already",
            where=str(path),
            next="choose another name or another --dir, or remove it",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = pathlib.Path(tempfile.mkdtemp(prefix=".new-plugin-", dir=path.parent))
        try:
            for file, text in _files(kind, name):
                target = holder / path.name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            (holder / path.name).rename(path)
        finally:
            shutil.rmtree(holder, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error}", where=str(path)) from error


def _files(kind: str, name: str) -> Iterator[tuple[str, str]]:
    """(path in the distribution, text) of every file."""
    values = _values(kind, name)
    for folder in ("common", kind):
        for template in (importlib.resources.files("qsae_cli") / "plugin-templates" / folder).iterdir():
            file = template.name.removesuffix(".tmpl")
            if file.startswith("test_"):
                file = f"tests/{file}"
            elif not file.endswith((".md", ".toml")):
                file = f"{values['module']}/{file}"
            yield file, string.Template(template.read_text(encoding="utf-8")).substitute(values)


def _values(kind: str, name: str) -> Mapping[str, str]:
    major, minor = __version__.split(".")[:2]
    after = f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
    core = f"qsae>={major}.{minor},<{after}"
    key = f"{kind}_{name.replace('-', '_')}"
    return {
        "kind": kind,
        "name": name,
        "dist": _distribution(kind, name),
        "module": f"qsae_{key}",
        "key": key,
        "Name": _class_name(name),
        "dependencies": ", ".join(f'"{line}"' for line in (core, *IMPORTS.get(kind, ("torch>=2.9",)))),
    }


def _distribution(kind: str, name: str) -> str:
    return f"qsae-{kind.replace('_', '-')}-{name}"


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(
            f"there is no kind {kind!r}{did_you_mean(kind, list(KINDS))}", allowed=", ".join(KINDS)
        )


def _check_name(kind: str, name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"{name!r} cannot be the name of a component",
            allowed=f"lower-case letters, digits and single dashes, a letter first, {LONGEST_NAME} at most",
        )
    if name in TAKEN_NAMES:
        raise ConfigError(
            f"{name!r} would give a class the name of one of qsae's own", next="choose another name"
        )
    plugins = load_plugins()
    dist = _distribution(kind, name)
    providers = [p.name for p in plugins.registry.contested().get((kind, name), [])]
    if name in plugins.registry.names(kind):
        providers = [plugins.registry.provider(kind, name).name]
    providers += [record.name for record in plugins.records if record.name == dist]
    if providers:
        raise ConfigError(
            f"{kind} {name!r} is installed already, by {providers[0]}",
            next="choose another name: of two plugins with one component, neither is used",
        )
