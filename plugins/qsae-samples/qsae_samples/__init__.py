"""Evaluation ``samples`` and command ``qsae samples``: where each latent fires, with the text around it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qsae_core import ComponentSpec, EvaluationConfig, hookimpl, option

if TYPE_CHECKING:
    import click

    from qsae_samples.files import FILE, FULL, unpacked
    from qsae_samples.firings import Seen, seen
    from qsae_samples.kept import POSITION_BITS, Entries, Kept, best_of_each, hashed
    from qsae_samples.magnitudes import strength_key
    from qsae_samples.records import Latent, Logit
    from qsae_samples.samples import Samples
    from qsae_samples.text import Pieces
    from qsae_samples.windows import Text

__all__ = [
    "FILE",
    "FULL",
    "POSITION_BITS",
    "Entries",
    "Kept",
    "Latent",
    "Logit",
    "Pieces",
    "Samples",
    "SamplesConfig",
    "Seen",
    "Text",
    "best_of_each",
    "hashed",
    "seen",
    "strength_key",
    "unpacked",
]

_FROM = {
    "FILE": "files",
    "FULL": "files",
    "POSITION_BITS": "kept",
    "Entries": "kept",
    "Kept": "kept",
    "Latent": "records",
    "Logit": "records",
    "Pieces": "text",
    "Samples": "samples",
    "Seen": "firings",
    "Text": "windows",
    "best_of_each": "kept",
    "hashed": "kept",
    "seen": "firings",
    "strength_key": "magnitudes",
    "unpacked": "files",
}


def __getattr__(name: str) -> Any:
    """The public names, whose modules are imported when they are asked for: most need torch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


class SamplesConfig(EvaluationConfig):
    """Examples of each latent over held-out text: where it fires most, and at every rank of its activation,
    with the tokens around; beside them how often it fires, how strongly, and with which others.

    The language model reads the text twice: once to find the examples, once for what is around them.
    """

    top: int = option(20, "strongest examples of a latent, one of a document", ge=1, le=255)
    groups: int = option(5, "equal parts into which a latent's firings are divided by rank", ge=1, le=100)
    per_group: int = option(3, "examples of each of these parts, one of a document", ge=0, le=255)
    before: int = option(20, "tokens that are kept before an example, of the same document", ge=0, le=120)
    after: int = option(11, "tokens that are kept behind it", ge=0, le=120)
    skip_first: int = option(1, "first positions of each context whose vectors are left out", ge=0)
    threshold: float = option(
        0.0,
        "magnitude of an activation, in the coder's own units, up to which a latent counts as silent; 0: it "
        "fires wherever its activation is not zero",
        ge=0,
    )
    random: int = option(
        256, "windows around positions drawn at random, kept with the code of every token in them", ge=0
    )
    cofiring: int = option(8, "latents that are named as firing together with a latent", ge=0, le=255)
    cofiring_pairs: int = option(
        4_000_000, "pairs of latents that are counted for it, about; more text is thinned out evenly", gt=0
    )
    logits: int = option(
        10, "tokens that are named as raised, and as lowered, by what a latent writes; 0: none", ge=0, le=1000
    )
    seed: int = option(0, "of what is drawn: positions are drawn by a hash of where they are", ge=0)


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    return [
        ComponentSpec("evaluation", "samples", SamplesConfig, "qsae_samples.evaluation:SamplesEvaluation")
    ]


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae samples``."""
    from qsae_cli.commands import LazyCommand

    line = "Collect where each latent fires, with the text around it."
    cli.add_command(LazyCommand("samples", "qsae_samples.command:samples", line))
