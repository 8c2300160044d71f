"""What commands print: JSON for programs, tables for people. Errors and progress go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(function: Function) -> Function:
    """The ``--json`` flag, passed to the command as ``as_json``; every command that prints a table has it."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(function)


def print_json(data: Any) -> None:
    """Print JSON values to stdout, indented; an undefined number is null.

    Raises:
        ValueError: on NaN or infinity, which JSON does not have.
    """
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table to stdout: wrapped to a terminal's width; one line a row where stdout is no terminal.

    Args:
        columns: headings; one that ends with ``>`` is right-aligned (``"FVU>"``).
        rows: cells; None shows as ``-``, other values as ``str`` gives them.
        title: a line above the table.
    """
    if title:
        click.echo(title)
    headings = [column.removesuffix(">") for column in columns]
    right = [column.endswith(">") for column in columns]
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_wrapped(headings, right, cells)
    else:
        _print_lines(headings, right, cells)


def _print_lines(headings: list[str], right: list[bool], cells: list[list[str]]) -> None:
    """For pipes and files, where a row must stay one line; also spares them the time to import rich."""
    lines = [headings, *([" ".join(cell.split()) for cell in row] for row in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        click.echo("  ".join(padded).rstrip())


def _print_wrapped(headings: list[str], right: list[bool], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading, is_right in zip(headings, right, strict=True):
        table.add_column(Text(heading), justify="right" if is_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
