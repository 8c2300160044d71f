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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.removesuffix(">"), justify="right" if column.endswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    if title:
        click.echo(title)
    width = None if sys.stdout.isatty() else 10_000  # no wrapped rows for grep and less
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))
