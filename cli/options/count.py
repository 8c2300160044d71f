"""Numbers of tokens on the command line."""

from __future__ import annotations

from typing import Any

import click

from qsae_core.config.counts import FORM, read_count


class Count(click.ParamType):
    """``50M``, ``2.5M``, ``300K``, ``1_000_000``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that is meant."""
        count = read_count(value)
        if not isinstance(count, int) or count < 1:
            self.fail(f"{value!r} is no number of tokens: {FORM}", param, ctx)
        return count
