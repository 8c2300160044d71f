"""How numbers of tokens are written on the command line."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class Count(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """``50M``, ``2.5M``, ``300K``, ``1_000_000``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that is meant."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([\d_]+(?:\.\d+)?)([KMB]?)", value.strip().upper())
        count = float(found[1].replace("_", "")) * _UNITS[found[2]] if found else 0
        if count < 1 or count != int(count):
            self.fail(f"{value!r} is no number of tokens; such as 300000, 300K, 2.5M, 50M", param, ctx)
        return int(count)
