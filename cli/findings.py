"""What evaluations found beside the usual columns: shown without knowing any of them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from qsae_cli.output import print_table
from qsae_cli.summary import HEADINGS

if TYPE_CHECKING:
    from qsae_core.contracts.evaluation import Cell, Result, Table

ROWS = 10
"""Rows of a table that are printed; the file has all."""


def print_results(
    results: Mapping[str, Result],
    folder: pathlib.Path | None,
    layer: str | None = None,
    *,
    brief: bool = False,
    beside: Mapping[str, Mapping[str, Result]] | None = None,
) -> None:
    """Print what each evaluation found that the table of coders has no column for.

    Args:
        results: evaluation name -> result.
        folder: where they are stored, one folder an evaluation; None: they are not.
        layer: of whose coder, where there is one for each.
        brief: leave out standard errors of what the table of coders shows, and all that stands beside them.
        beside: name of another coder -> its results, whose values stand beside these.
    """
    others = beside or {}
    shown = {name for name, _, _ in HEADINGS}
    for evaluation, result in results.items():
        name = evaluation if layer is None else f"{evaluation}, layer {layer}"
        more = {*result.chance, *result.baseline, *(() if brief else result.uncertainty), *others}
        if more or not shown & result.values.keys():
            _print_values(
                name, result, {other: r[evaluation] for other, r in others.items() if evaluation in r}
            )
        if result.per_latent:
            _print_columns(name, result)
        for title, table in result.tables.items():
            _print_rows(f"{name}: {title}", table)
        if result.per_latent or result.tables or result.files:
            place = None if folder is None else folder / evaluation
            click.echo(f"all of it: {place}" if place else "not kept; --out DIR keeps all of it")


def _print_values(name: str, result: Result, others: Mapping[str, Result]) -> None:
    beside = {
        "by chance>": result.chance,
        "baseline>": result.baseline,
        "standard error>": result.uncertainty,
        **{f"{other}>": its.values for other, its in others.items()},
    }
    columns = {heading: values for heading, values in beside.items() if values}
    rows = [
        [value_name, _number(value), *(_number(values.get(value_name)) for values in columns.values())]
        for value_name, value in result.values.items()
    ]
    if rows:
        print_table([name, "value>", *columns], rows)


def _print_columns(name: str, result: Result) -> None:
    rows = []
    for column, values in result.per_latent.items():
        known = values[~values.isnan()].double()
        spread = [float(known.quantile(q)) for q in (0.0, 0.5, 1.0)] if len(known) else [None] * 3
        rows.append([column, f"{len(known):,} of {len(values):,}", *(_number(value) for value in spread)])
    print_table([f"{name}, per latent", "defined>", "least>", "median>", "largest>"], rows)


def _print_rows(title: str, table: Table) -> None:
    more = len(table.rows) - ROWS
    numeric = [
        all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.columns))
    ]
    headings = [f"{c}>" if n else c for c, n in zip(table.columns, numeric, strict=True)]
    rows = [[_text(cell) for cell in row] for row in table.rows[:ROWS]]
    print_table(headings, rows, title=title if more <= 0 else f"{title}, {ROWS} of {len(table.rows):,} rows")


def _text(cell: Cell) -> str | None:
    return cell if isinstance(cell, str) else _number(cell)


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
