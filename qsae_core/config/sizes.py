"""Sizes that hang on the data: how many latents there are, and what is a share of them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from qsae_core.coder_options import CoderConfig
from qsae_core.component import ComponentConfig
from qsae_core.config.draft import Draft
from qsae_core.config.errors import in_words
from qsae_core.errors import ConfigError
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS

Options = Mapping[str, ComponentConfig]
"""Slot -> options of what is in it."""


def settled(
    options: Options, origins: Mapping[str, str], d_in: int, layers_in: int
) -> dict[str, ComponentConfig]:
    """The options where vectors of such a width, of so many layers, are encoded: sizes that were given beside
    it are numbers.

    Args:
        origins: as ``RunConfig.origins``.

    Raises:
        ConfigError: if such a number does not fit the other options.
    """
    slot = next(slot for slot in CODER_SLOTS if slot in options)
    coder = options[slot]
    assert isinstance(coder, CoderConfig)  # registration sees to it
    try:
        sized = coder.for_width(d_in)
    except ValidationError as error:
        given = {key.partition(".")[2]: place for key, place in origins.items() if key.startswith(f"{slot}.")}
        raise in_words(error, Draft((slot,), type(coder), None, dict(coder), given)) from None
    found = {
        name: part.for_latents(sized.rule_latents(layers_in)) if name in PART_SLOTS else part
        for name, part in options.items()
    }
    found[slot] = sized
    check_k(found, origins)
    return found


def check_k(options: Options, origins: Mapping[str, str]) -> None:
    """A rule that keeps k latents of each token needs as many, where their number is known.

    Raises:
        ConfigError: if there are fewer.
    """
    coder = next(options[slot] for slot in CODER_SLOTS if slot in options)
    if "sparsity" not in options or getattr(coder, "expansion", None) is not None:
        return
    k, n_latents = getattr(options["sparsity"], "k", None), getattr(coder, "n_latents", None)
    if isinstance(k, int) and isinstance(n_latents, int) and k > n_latents:
        raise ConfigError(
            f"k ({k}) exceeds n_latents ({n_latents})",
            where=origins.get("sparsity.k", "sparsity.k"),
            allowed=f"1 to {n_latents}, or a larger --n-latents",
            next=f"give --sparsity.k of at most {n_latents}, or --n-latents of at least {k}",
        )
