"""Which column of a dataset is the text. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from qsae_core.errors import DataError
from qsae_data_lm.messages import is_conversation

SAMPLE = 50
"""Rows by which columns are compared."""
MOST = 1000
"""Rows that are looked at, at most, until every column has had a value."""

Row = Mapping[str, Any]


def sample_rows(rows: Iterable[Row]) -> list[Row]:
    """The first rows, and more of them where a column has no value in these."""
    found: list[Row] = []
    without: set[str] = set()
    for number, row in enumerate(islice(rows, MOST)):
        found.append(row)
        without = (set(row) if number == 0 else without) - {
            c for c, value in row.items() if value is not None
        }
        if len(found) >= SAMPLE and not without:
            break
    return found


def text_column(rows: list[Row], dataset: str, other: Collection[str] = ()) -> str:
    """The column of strings with the longest values: more than twice as long, on average, as any other's.

    Args:
        other: columns that are known to hold something else, with or without a value in the rows.

    Raises:
        DataError: if there is no column of strings, two are of similar length, or a column has no value in
            any of the rows, so that nobody knows whether it is the text; it lists the columns.
    """
    values = {column: [row[column] for row in rows if row.get(column) is not None] for column in rows[0]}
    means = {
        column: sum(map(len, found)) / len(found)
        for column, found in values.items()
        if found and all(isinstance(value, str) for value in found)
    }
    empty = [column for column, found in values.items() if not found and column not in other]
    ranked = sorted(means, key=lambda column: -means[column])
    if not ranked:
        fault = "has no column of text"
    elif empty:
        named = ", ".join(map(repr, empty))
        fault = f"has no value in its first {len(rows)} rows of {named}, which may be its text"
    elif len(ranked) > 1 and means[ranked[0]] <= 2 * means[ranked[1]]:
        fault = f"has two columns of similar length, {ranked[0]!r} and {ranked[1]!r}"
    else:
        return ranked[0]
    raise DataError(
        f"the dataset {dataset!r} {fault}; its columns: {', '.join(_described(values, means))}",
        where="data.dataset",
        allowed=", ".join([*ranked, *empty]) or "a dataset with a column of strings",
        next=f"--data.dataset-column {[*ranked, *empty][0]}" if ranked or empty else _for_talks(values),
    )


def _for_talks(values: Mapping[str, list[Any]]) -> str | None:
    talks = [c for c, found in values.items() if found and all(map(is_conversation, found))]
    return f"--chat-template own, for the conversations in {talks[0]}" if talks else None


def conversation_column(rows: list[Row], dataset: str) -> str:
    """The one column whose values are conversations, wherever there is a value.

    Raises:
        DataError: if there is none, or more than one; it lists the columns.
    """
    values = {column: [row[column] for row in rows if row.get(column)] for column in rows[0]}
    found = [c for c, some in values.items() if some and all(map(is_conversation, some))]
    if len(found) == 1:
        return found[0]
    fault = f"has several columns of conversations, {', '.join(found)}" if found else "has no conversations"
    raise DataError(
        f"the dataset {dataset!r} {fault}; its columns: {', '.join(rows[0])}",
        where="data.dataset",
        allowed="a column of lists of {role, content}, or of {from, value}",
        next=f"--data.dataset-column {found[0]}" if found else "leave --chat-template out for plain text",
    )


def _described(values: Mapping[str, list[Any]], means: Mapping[str, float]) -> Iterator[str]:
    for column, found in values.items():
        if column in means:
            yield f"{column} (text, {means[column]:.0f} characters)"
        else:
            yield column if found else f"{column} (no value)"
