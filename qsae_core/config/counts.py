"""Numbers of tokens as people write them: ``300K``, ``2.5M``, ``1B``. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
FORM = "a whole number above 0, such as 300000, 300K or 2.5M"


def read_count(value: Any) -> Any:
    """The number that a text stands for; anything else, and a text that is no whole number, as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d[\d_]*)(?:\.(\d+))?([KMB]?)", value.strip().upper())
    if found is None:
        return value
    whole, part, unit = found[1].replace("_", ""), found[2] or "", found[3]
    count, left = divmod(int(whole + part) * _UNITS[unit], 10 ** len(part))
    return value if left else count


Count = Annotated[int, Field(gt=0), BeforeValidator(read_count)]
"""Type of an option that is a number of tokens."""
