"""``qsae samples``: where each latent of a trained coder fires, collected into a file; and a look into it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import (
    Count,
    Scope,
    WithCommands,
    check_data,
    json_option,
    model_flags,
    print_json,
    recorded_data,
)
from qsae_core import EvaluationConfig, Run
from qsae_core.errors import ConfigError, DataError
from qsae_core.runs import Layer, identity, load_plugins, resolve, slug, stands_alone, stored_description
from qsae_samples import SamplesConfig
from qsae_samples.files import FILE
from qsae_samples.samples import Samples
from qsae_samples.shown import described, show_latent, show_summary

if TYPE_CHECKING:
    from qsae_core import RunConfig

SCOPE = Scope(slots=("data",), lists=(), sections=(), needs_coder=False, config_file=False)
PATH = click.Path(path_type=pathlib.Path)
FOLDER = "samples"
"""Of a run, where its samples are."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The evaluation's options."""
    of_training = set(EvaluationConfig.model_fields)
    for name, field in reversed(SamplesConfig.model_fields.items()):
        if name in of_training:
            continue
        text = f"{str(field.description).capitalize()}.  [default: {field.default}]"
        flag = f"--{name.replace('_', '-')}"
        bounds = {key: getattr(m, key) for m in field.metadata for key in ("ge", "le") if hasattr(m, key)}
        ranges = click.FloatRange if field.annotation is float else click.IntRange
        kind = ranges(bounds["ge"], bounds.get("le")) if "ge" in bounds else Count()
        command = click.option(flag, f"of_{name}", type=kind, help=text)(command)
    return command


@click.command("samples", cls=WithCommands, scope=SCOPE, base=recorded_data)
@click.argument("path", type=PATH)
@click.option("--tokens", type=Count(), default=1_000_000, show_default=True, help="Tokens to read, at most.")
@click.option(
    "--out", type=click.Path(path_type=pathlib.Path, file_okay=False), help="Folder.  [default: RUN/samples]"
)
@_options
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Vectors per batch.  [default: as in training]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
def samples(
    path: pathlib.Path,
    layers: list[Layer],
    tokens: int,
    out: pathlib.Path | None,
    batch_size: int | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Collect where each latent of the coder at PATH fires, with the text around it, into one file.

    The text is that which training held out; --text, --dataset, --model choose other text, which is read
    whole, up to --tokens. The language model reads it twice. Of a run with a coder for each layer, each has a
    file of its own.

    \b
    qsae samples show PATH --latent 12    print what was collected of latents
    """
    from qsae_core.runs import evaluate_artifact

    given = {name.removeprefix("of_"): value for name, value in options.items() if value is not None}
    folder = _folder(path, out)
    config = _config(path, layers, given)
    found = evaluate_artifact(
        path, config, load_plugins().registry, n_tokens=tokens, batch_size=batch_size, device=device
    )
    if found.entry["measured"]["warning"]:
        click.echo(f"qsae: warning: {found.entry['measured']['warning']}", err=True)
    written = []
    for place, coder, outcomes in _coders(found, folder):
        about = {"coder": coder, "coder_sha256": identity(pathlib.Path(coder))}
        collected = _collected(outcomes["samples"], {**about, "measured": found.entry["measured"]["what"]})
        collected.save(place / FILE)
        written.append((place / FILE, collected))
    if as_json:
        print_json([described(file, collected) for file, collected in written])
        return
    for file, collected in written:
        recorded = stored_description(pathlib.Path(collected.about["coder"]))["source"]
        show_summary(file, collected, tokens, unrecorded="trained_on" not in recorded)


@click.command("show")
@click.argument("path", type=PATH)
@click.option(
    "--latent",
    "numbers",
    type=int,
    multiple=True,
    help="Which; repeatable.  [default: five of median density]",
)
@click.option(
    "--examples", type=click.IntRange(min=1), default=10, show_default=True, help="Of each group, at most."
)
def show(path: pathlib.Path, numbers: tuple[int, ...], examples: int) -> None:
    """Print what was collected of latents: the samples' file, its folder, or a run with samples."""
    collected = Samples.load(path)
    for number in numbers or _usual(collected):
        show_latent(collected, number, examples)


def _usual(collected: Samples, n: int = 5) -> list[int]:
    """Latents whose density is in the middle of those that fire."""
    firing = [j for j in collected.densities.argsort(kind="stable").tolist() if collected.densities[j] > 0]
    start = max(0, len(firing) // 2 - n // 2)
    return firing[start : start + n]


samples.add_command(show)


def _folder(path: pathlib.Path, out: pathlib.Path | None) -> pathlib.Path:
    if out is None and not Run(path).config_file.exists() and not stands_alone(path):
        raise ConfigError(
            "it is no run's folder, so where the samples go has to be said", where=str(path), next="--out DIR"
        )
    return out or path / FOLDER


def _coders(found: Any, folder: pathlib.Path) -> list[tuple[pathlib.Path, str, Mapping[str, Any]]]:
    """Where the samples of each coder go, where the coder is, and its outcomes."""
    if not found.layers:
        return [(folder, found.entry["path"], found.outcomes)]
    of_layers = found.entry["layers"]
    return [
        (folder / "layers" / slug(layer), of_layers[layer]["path"], outcomes)
        for layer, outcomes in found.layers.items()
    ]


def _config(path: pathlib.Path, layers: list[Layer], options: Mapping[str, Any]) -> RunConfig:
    """The run's, with this evaluation alone."""
    check_data(path, layers)
    asked = Layer({"evaluate": [{"use": "samples", **options}]}, style="flags")
    return resolve([*layers, asked], load_plugins().registry)


def _collected(outcome: Any, about: Mapping[str, Any]) -> Samples:
    """The samples of an evaluation's outcome, with what was read of what.

    Raises:
        DataError: if the data cannot support it, or has no text.
    """
    if outcome.result is None:
        raise DataError(
            f"samples cannot be collected: {outcome.unavailable}",
            where=about["coder"],
            allowed="a coder of a language model's vectors, and text",
            next=f"{model_flags(pathlib.Path(about['coder']))} --text FOLDER",
        )
    found: Samples = outcome.result.samples
    if not found.n_tokens:
        raise DataError(
            "there are no tokens to read",
            where=about["measured"],
            allowed="text of one context or more",
            next="--text FOLDER",
        )
    return Samples(found.arrays, {**found.about, **about})
