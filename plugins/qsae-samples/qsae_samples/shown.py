"""What ``qsae samples`` prints."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import print_table

if TYPE_CHECKING:
    from qsae_samples.records import Example
    from qsae_samples.samples import Samples


def described(file: pathlib.Path, samples: Samples) -> dict[str, Any]:
    """JSON values of a file of samples."""
    fires = int((samples.arrays["count"] > 0).sum())
    return {
        "path": str(file),
        "bytes": file.stat().st_size,
        **samples.about,
        "n_latents": samples.n_latents,
        "n_latents_that_fire": fires,
        "n_examples": len(samples.arrays["example_start"]),
    }


def show_summary(file: pathlib.Path, samples: Samples, asked: int, *, unrecorded: bool = False) -> None:
    """What was read and kept; a note where there was less text than was asked for.

    Args:
        unrecorded: whether the coder's training data is not recorded, so that a part of any text is held out.
    """
    found = described(file, samples)
    left_out = f"{found['n_special']:,} special ones and {found['n_skipped']:,} at the beginning of contexts"
    print_table(
        ["what", "number>"],
        [
            ["tokens", f"{found['n_tokens']:,}"],
            ["left out besides", left_out],
            ["latents that fire", f"{found['n_latents_that_fire']:,} of {found['n_latents']:,}"],
            ["examples", f"{found['n_examples']:,}"],
            ["bytes", f"{found['bytes']:,}"],
        ],
        title=f"{found['coder']}: {found['measured']}",
    )
    if found["n_tokens"] + found["n_skipped"] < asked:
        more = "--text FOLDER reads other text"
        if unrecorded:
            more = (
                "what the coder was trained on is not recorded, so the held-out part of any text is read: "
                "--held-out-share 0.99 makes that nearly all of it, and a coder of qsae import --trained-on "
                "elsewhere reads it whole"
            )
        click.echo(
            f"qsae: note: {asked:,} tokens were asked for, and there are no more in {found['measured']}; "
            f"{more}",
            err=True,
        )
    click.echo(f"samples: {file}")
    click.echo(f"a look into them: qsae samples show {file.parent} --latent 0")


def show_latent(samples: Samples, number: int, most: int) -> None:
    """A latent's examples, as a person reads them: the token between marks, and its activation."""
    latent = samples.latent(number)
    click.echo(
        f"latent {number}: on {latent.density:.3%} of {samples.n_tokens:,} tokens, "
        f"largest {latent.largest:.4g}"
    )
    if latent.cofiring:
        partners = ", ".join(f"{other} ({share:.0%})" for other, share in latent.cofiring)
        click.echo(f"  fires together with {partners}")
    for what, tokens in (("raises", latent.raises), ("lowers", latent.lowers)):
        if tokens:
            click.echo(f"  {what} {'  '.join(token.literal for token in tokens)}")
    n_groups = len(latent.group_floors)
    for group in range(n_groups + 1):
        examples = latent.top if group == 0 else latent.part(group)
        if not examples:
            continue
        share = f"{(group - 1) / n_groups:.0%} to {group / n_groups:.0%} by rank, at least"
        title = (
            "strongest, one of a document" if group == 0 else f"{share} {latent.group_floors[group - 1]:.4g}"
        )
        click.echo(f"  {title}")
        for example in examples[:most]:
            click.echo(f"    {example.value:8.4g}  {_marked(example)}")


def _marked(example: Example) -> str:
    """A window's text on one line, the token that it is about between marks."""
    before = "".join(example.pieces[: example.peak])
    behind = "".join(example.pieces[example.peak + 1 :])
    text = f"{before}⟦{example.pieces[example.peak]}⟧{behind}"
    return text.replace("\r", "").replace("\n", "⏎").replace("\t", "⇥")
