"""``qsae splice``: a language model with a coder in it, steered next to unsteered."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import (
    ConfiguredCommand,
    Count,
    Scope,
    check_data,
    json_option,
    print_json,
    recorded_data,
)
from qsae_core.errors import ConfigError
from qsae_core.runs import Layer
from qsae_splice.grammar import DIRECTION_GRAMMAR, GRAMMAR, read_ablated, read_edit
from qsae_splice.positions import ALLOWED, read_positions
from qsae_splice.spec import MODES, Spec, read_spec

if TYPE_CHECKING:
    from qsae_splice.compare import Continued
    from qsae_splice.opened import Opened

SCOPE = Scope(slots=("data",), lists=(), sections=(), needs_coder=False, config_file=False)
SHOWN_KL = 3
"""Steps with the largest KL that are shown."""


@click.command("splice", cls=ConfiguredCommand, scope=SCOPE, base=recorded_data)
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.option("--prompt", "prompts", multiple=True, help="What the model goes on with; repeatable.")
@click.option("--steer", "steered", multiple=True, metavar="EDIT", help=f"{GRAMMAR}; repeatable.")
@click.option("--ablate", "ablated", multiple=True, metavar="[LAYER/]ID[@POSITIONS]", help="Set to 0.")
@click.option(
    "--direction", "directions", multiple=True, metavar="NAME=PLACE", help=f"{DIRECTION_GRAMMAR}; repeatable."
)
@click.option(
    "--also",
    multiple=True,
    type=click.Path(path_type=pathlib.Path),
    metavar="PATH",
    help="Another coder of the same language model, at its own site; repeatable.",
)
@click.option("--positions", default="all", show_default=True, help=f"Of edits that do not say: {ALLOWED}.")
@click.option(
    "--mode", type=click.Choice(MODES), help="Keep the coder's error, or drop it.  [default: delta]"
)
@click.option("--spec", type=click.Path(path_type=pathlib.Path), help="Edits from a file, before the others.")
@click.option("--dump-spec", is_flag=True, help="Print the edits as such a file, scales included, and stop.")
@click.option("--max-new-tokens", type=click.IntRange(min=0), default=60, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--compare", is_flag=True, help="Show the unsteered text too, and what changed step by step.")
@click.option("--rank", type=click.Choice(["output"]), help="Latents by what they do to the output.")
@click.option("--rank-all", is_flag=True, help="Rank all latents, not only those active in the prompt.")
@click.option(
    "--rank-strength", type=float, default=1.0, show_default=True, help="Mean norms that are added."
)
@click.option("--rank-show", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--measure-tokens", type=Count(), default="16384", help="Held-out tokens for scales of units.")
@click.option("--tokenizer", help="Its place.  [default: the model's]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
def splice(path: pathlib.Path, layers: list[Layer], as_json: bool, **options: Any) -> None:
    """Run the language model of the trained coder at PATH with latents steered, clamped or ablated, or its
    vectors moved along directions.

    The coder's error is kept, so that an edit changes what it says and nothing else. Special tokens are
    never edited.
    """
    given = {name: options[name] for name in ("steered", "ablated", "positions", "mode")}
    spec = _spec(options.pop("spec"), **given)
    ranks = options["rank"] is not None
    if not (spec.edits or spec.mode == "replace" or ranks):
        raise ConfigError(
            "nothing is to be done", allowed="--steer, --ablate, --spec, --mode replace, or --rank output"
        )
    if not (options["prompts"] or options["dump_spec"]):
        raise ConfigError("there is no text to go on with", next='--prompt "Once upon a time"')
    from qsae_splice.opened import open_coder, read_directions

    check_data(path, layers)
    spec = replace(spec, directions=read_directions(options["directions"], spec.directions))
    click.echo("loading the coder and its language model", err=True)
    opened = open_coder(path, layers, options["device"], options["tokenizer"], options["also"], spec)
    if ranks:
        _rank(opened, as_json, **options)
        return
    spec = opened.scaled(spec, options["measure_tokens"])
    if options["dump_spec"]:
        print_json(spec.to_json())
        return
    _go_on(opened, spec, as_json, **options)


def _spec(
    file: pathlib.Path | None,
    steered: Sequence[str],
    ablated: Sequence[str],
    positions: str,
    mode: str | None,
) -> Spec:
    read_positions(positions)
    found = Spec(()) if file is None else read_spec(file)
    more = [read_edit(text, positions) for text in steered]
    more += [read_ablated(text, positions) for text in ablated]
    return replace(found, edits=(*found.edits, *more), mode=mode or found.mode)


def _go_on(opened: Opened, spec: Spec, as_json: bool, **options: Any) -> None:
    from dataclasses import asdict

    from qsae_splice.compare import go_on

    drawn = {name: options[name] for name in ("temperature", "seed", "compare")}
    found = [go_on(opened, spec, text, options["max_new_tokens"], **drawn) for text in options["prompts"]]
    if as_json:
        print_json({**opened.about, "spec": spec.to_json(), "texts": [asdict(text) for text in found]})
    else:
        click.echo(f"{opened.about['model']}, {', '.join(map(str, spec.edits)) or 'spliced'}")
        for sentence in opened.measured_by(spec):
            click.echo(sentence)
        for text in found:
            _print_text(text)
    for text in found:
        for note in text.notes:
            click.echo(f"note: {note}", err=True)


def _print_text(found: Continued) -> None:
    click.echo(f"prompt     {found.prompt!r}")
    if found.unsteered is not None:
        click.echo(f"unsteered  {found.unsteered!r}")
    click.echo(f"steered    {found.steered!r}")
    mean, largest = found.shift["mean"], found.shift["largest"]
    if mean is not None:
        click.echo(f"effective shift ||h' - h|| / ||h||: {mean:.3f} on average, {largest:.3f} at most")
    steps = [step for step in found.steps if step["kl"] is not None]
    if steps:
        most = sorted(steps, key=lambda step: -step["kl"])[:SHOWN_KL]
        shown = ", ".join(f"{step['kl']:.2f} at {step['text']!r}" for step in most)
        total = sum(step["kl"] for step in steps) / len(steps)
        click.echo(f"KL(steered || unsteered) of each prediction: {total:.3f} nats on average; {shown}")


def _rank(opened: Opened, as_json: bool, **options: Any) -> None:
    from qsae_splice.rank_table import print_ranked, ranked

    found = ranked(
        opened,
        options["prompts"],
        positions=options["positions"],
        every=options["rank_all"],
        strength=options["rank_strength"],
        n_tokens=options["measure_tokens"],
    )
    print_ranked(opened, found, options["rank_show"], as_json)
