"""What evaluations found: a block for each, shown without knowing any of them."""

from __future__ import annotations

import pathlib
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from qsae_cli.output import print_table
from qsae_cli.summary import HEADINGS

if TYPE_CHECKING:
    from qsae_core.contracts.evaluation import Cell, Result, Table

ROWS = 3
"""Rows of a table that are printed; the file has all."""
WIDTH = 110
"""Characters of a line where there is no terminal: more columns are in the file."""
CELL = 40
"""Characters of a cell."""
LEAST = 1e-9
"""Numbers nearer to zero are not told from it."""
GAP = 2

Values = Mapping[str, float | None]


def print_results(
    results: Mapping[str, Result],
    folder: pathlib.Path | None,
    *,
    brief: bool = False,
    beside: Mapping[str, Mapping[str, Result]] | None = None,
    unkept: Collection[str] = (),
) -> None:
    """Print a block for each evaluation: its values with what stands beside them, the names of its columns
    per latent, the first rows of its tables, and where the whole of it is.

    Args:
        results: evaluation name -> result.
        folder: where they are stored, one folder an evaluation; None: they are not.
        brief: leave out what the table of coders shows.
        beside: name of another coder -> its results, whose values stand beside these.
        unkept: evaluations of which the folder has an older result, and not this one.
    """
    for evaluation, result in results.items():
        others = {name: r[evaluation].values for name, r in (beside or {}).items() if evaluation in r}
        if brief and _in_table(result):
            continue
        click.echo()
        _print_values(evaluation, result, others)
        _print_columns(result)
        for title, table in result.tables.items():
            _print_rows(title, table)
        if folder is not None and (result.per_latent or result.tables or result.files):
            place = folder / evaluation
            click.echo(
                f"not kept: {place} has an older one" if evaluation in unkept else f"all of it: {place}"
            )


def print_layers(
    layers: Mapping[str, Mapping[str, Result]], folder: pathlib.Path | None, *, brief: bool = False
) -> None:
    """Print what was found of each layer's own coder: a table an evaluation, with a column a layer, as many
    as fit.

    Args:
        layers: layer -> evaluation name -> result.
        folder: where they are stored, below ``layers/``; None: they are not.
        brief: as of ``print_results``.
    """
    names = dict.fromkeys(
        name
        for results in layers.values()
        for name, result in results.items()
        if not (brief and _in_table(result))
    )
    for evaluation in names:
        of_layer = {layer: r[evaluation].values for layer, r in layers.items() if evaluation in r}
        values = [n for n in dict.fromkeys(n for v in of_layer.values() for n in v) if _defined(n, of_layer)]
        columns = [[number(v.get(name)) or "-" for name in values] for v in of_layer.values()]
        headings = [f"layer {layer}" for layer in of_layer]
        n = _fitting([f"{evaluation}, by layer", *headings], [values, *columns]) - 1
        if not values or n < 1:
            continue
        click.echo()
        rows = list(zip(values, *columns[:n], strict=True))
        print_table([f"{evaluation}, by layer", *(f"{heading}>" for heading in headings[:n])], rows)
        if n < len(headings):
            place = "--json has them" if folder is None else f"all of them: {folder / 'layers'}"
            click.echo(f"{n} of {len(headings)} layers; {place}")


def _in_table(result: Result) -> bool:
    """Whether the table of coders has what matters of it, and nothing stands beside that."""
    shown = {name for name, _, _ in HEADINGS}
    return not {*result.chance, *result.baseline} and bool(shown & result.values.keys())


def _defined(name: str, of_layer: Mapping[str, Values]) -> bool:
    return any(values.get(name) is not None for values in of_layer.values())


def _print_values(name: str, result: Result, others: Mapping[str, Values]) -> None:
    """Values that have something beside them as rows; all others, counts for the most part, one by one."""
    beside = {
        "by chance>": result.chance,
        "baseline>": result.baseline,
        "standard error>": result.uncertainty,
    }
    columns = {heading: values for heading, values in beside.items() if values}
    columns |= {f"{other}>": values for other, values in others.items()}
    known = {value_name: value for value_name, value in result.values.items() if value is not None}
    rows, alone = [], []
    for value_name, value in known.items():
        own = any(values.get(value_name) is not None for values in beside.values())
        if own or any(values.get(value_name) not in (value, None) for values in others.values()):
            cells = [number(values.get(value_name)) for values in columns.values()]
            rows.append([value_name, number(value), *cells])
        else:
            alone.append(f"{value_name} {number(value)}")
    heading = name if result.how is None else f"{name}, {result.how}"
    if rows:
        print_table([heading, "value>", *columns], rows)
    else:
        click.echo(heading)
    _print_list("", alone)
    _print_list("not defined: ", [n for n, value in result.values.items() if value is None])


def _print_columns(result: Result) -> None:
    """The columns per latent, each with its median."""
    said = []
    for column, values in result.per_latent.items():
        defined = values[~values.isnan()].double()
        said.append(f"{column} {number(float(defined.quantile(0.5)))}" if len(defined) else f"{column} -")
    _print_list("per latent, medians: ", said)


def _print_list(before: str, said: Sequence[str]) -> None:
    if said:
        text = before + ", ".join(said)
        click.echo(textwrap.fill(text, _width(), initial_indent="  ", subsequent_indent="    "))


def _print_rows(title: str, table: Table) -> None:
    """The first rows, and of these the first columns that fit into a line."""
    if not table.rows:
        click.echo(f"  {title}: no rows")
        return
    numeric = [
        all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.columns))
    ]
    rows = [[_text(cell) for cell in row] for row in table.rows[:ROWS]]
    n = max(1, _fitting(table.columns, list(zip(*rows, strict=True))))
    cut = [f"{len(rows)} of {len(table.rows):,} rows"] if len(table.rows) > len(rows) else []
    cut += [f"{n} of {len(table.columns)} columns"] if n < len(table.columns) else []
    headings = [f"{c}>" if right else c for c, right in zip(table.columns, numeric, strict=True)]
    print_table(headings[:n], [row[:n] for row in rows], title=f"  {', '.join([title, *cut])}")


def _fitting(headings: Sequence[str], columns: Sequence[Sequence[str | None]]) -> int:
    """How many of the columns fit into a line, the first ones first."""
    left, n = _width() + GAP, 0
    for heading, cells in zip(headings, columns, strict=True):
        left -= GAP + max(len(heading), *(len(cell or "-") for cell in cells)) if cells else 0
        if left < 0:
            break
        n += 1
    return n


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH


def _text(cell: Cell) -> str | None:
    if isinstance(cell, str):
        return textwrap.shorten(cell, CELL, placeholder="...") if len(cell) > CELL else cell
    return str(cell) if isinstance(cell, int) else number(cell)  # most are numbers of latents and tokens


def number(value: float | None) -> str | None:
    """As people read it: counts whole, what is next to nothing as less than something.

    ``32885.0`` as ``32,885``, ``0.98364`` as ``0.9836``, ``1e-113`` as ``<1e-9``; None stays None.
    """
    if value is None:
        return None
    if 0 < abs(value) < LEAST:
        return f"<{LEAST:.0e}".replace("e-0", "e-") if value > 0 else f">-{LEAST:.0e}".replace("e-0", "e-")
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
