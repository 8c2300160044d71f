"""What ``--rank output`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from qsae_cli.commands import print_json, print_table
from qsae_core.errors import ConfigError
from qsae_splice.opened import Opened
from qsae_splice.positions import read_positions
from qsae_splice.rank import VERSION, Ranked, active_latents, rank_by_output

SHOWN_TOKENS = 5


def ranked(
    opened: Opened, prompts: Sequence[str], *, positions: str, every: bool, strength: float, n_tokens: int
) -> list[Ranked]:
    """The latents of a single coder by their output score on one prompt.

    Args:
        every: all latents; else those that are active in the prompt.
        strength: of what is added, in mean norms.
        n_tokens: held-out tokens that the mean norm is measured on.

    Raises:
        ConfigError: for several coders, sites or prompts, or where no latent is active.
    """
    (layer, place), *others = opened.places.items()
    if others or len(place.targets) > 1 or len(prompts) != 1:
        sites = sum(len(each.targets) for each in opened.places.values())
        raise ConfigError(
            f"{len(opened.places)} coders, {sites} sites that they write to, and {len(prompts)} prompts",
            where="--rank",
            allowed="one of each",
        )
    batch = opened.tokens.read(prompts[0])
    if every:
        latents = list(range(place.coder.n_latents))
    else:
        x_BTD = opened.model.read(batch, [place.source])[place.source]
        latents = active_latents(place.coder, x_BTD, batch.counted)
    if not latents:
        raise ConfigError("no latent is active in the prompt", where="--rank", next="--rank-all")
    norms = opened.measured(layer, n_tokens).norms
    assert norms is not None
    return rank_by_output(
        opened.model,
        place.coder,
        place.target,
        batch,
        latents,
        norm=norms[0],
        strength=strength,
        positions=read_positions(positions),
        text_of=opened.tokens.text_of,
    )


def print_ranked(opened: Opened, found: Sequence[Ranked], n_shown: int, as_json: bool) -> None:
    """The first of them as a table; with ``as_json`` all."""

    def texts(tokens: Sequence[int]) -> list[str]:
        return [opened.tokens.text_of(token) for token in tokens]

    def literals(tokens: Sequence[int]) -> str:
        parts = ((opened.model.partial_bytes(token), token) for token in tokens)
        return " ".join(repr(opened.tokens.text_of(token) if part is None else part) for part, token in parts)

    if as_json:
        rows = [{**r._asdict(), "writes": texts(r.writes), "rises": texts(r.rises)} for r in found]
        print_json({**opened.about, "output_score_version": VERSION, "latents": rows})
        return
    cells = [
        (
            ranked.latent,
            f"{ranked.score:+.4f}",
            None if ranked.chance is None else f"{ranked.chance:+.4f}",
            f"{ranked.kl:.3f}",
            literals(ranked.writes[:SHOWN_TOKENS]),
            literals(ranked.rises[:SHOWN_TOKENS]),
        )
        for ranked in found[:n_shown]
    ]
    columns = ["latent>", "output score>", "chance>", "KL>", "its atom writes", "what rises"]
    print_table(columns, cells, title=f"{opened.about['path']}: {len(found)} latents by their output score")
