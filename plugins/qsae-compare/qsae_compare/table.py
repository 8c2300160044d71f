"""The rows of ``qsae compare`` as a table for people, as records and as CSV."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import print_table
from qsae_core.runs import atomic_file

if TYPE_CHECKING:
    from qsae_compare.rows import Row

SHOWN = (
    ("bits_decoder", "b/w dec>", "{:.2f}"),
    ("bits_encoder", "enc>", "{:.2f}"),
    ("bits_whole", "all>", "{:.2f}"),
    ("bytes", "bytes>", "{:,.0f}"),
    ("times_smaller", "x fp32>", "{:.1f}"),
    ("l0", "L0>", "{:.1f}"),
    ("bits_per_token", "b/token>", "{:.0f}"),
    ("fvu", "FVU>", "{:.4f}"),
    ("delta_fvu_points", "ΔFVU>", "{:+.2f}"),
    ("predicted_delta_fvu_points", "predicted>", "{:+.2f}"),
    ("delta_ce", "ΔCE>", "{:+.4f}"),
    ("ce_recovered", "CE recovered>", "{:.1%}"),
    ("dead_fraction", "dead>", "{:.1%}"),
)
"""Columns of the table: name, heading, form; those that no row has are left out."""
SPREAD = {"fvu": "{:.4f}", "delta_fvu_points": "{:.2f}", "delta_ce": "{:.4f}"}
"""Columns that show their standard deviation."""
ALWAYS = ("bits_decoder", "bits_encoder", "bits_whole", "bytes", "times_smaller", "l0", "fvu")
LISTED = 3
"""Rows up to which the note about different data lists those of the data that most rows are on."""
OTHER_L0, FLOAT_VALUES, FROM_TWIN = "*", "†", "‡"


def show(rows: Sequence[Row]) -> None:
    """Print the table, and a sentence for every mark in it."""
    columns = [c for c in SHOWN if c[0] in ALWAYS or any(row.mean[c[0]] is not None for row in rows)]
    cells = [
        [row.label, len(row.members), *(_cell(row, name, form) for name, _, form in columns)] for row in rows
    ]
    print_table(["coder", "n>", *(heading for _, heading, _ in columns)], cells)
    click.echo(
        "b/w: bits stored per weight; b/token: bits of a token's code; FVU differences in points (hundredths)"
    )
    text = " ".join(str(cell) for line in cells for cell in line)
    for mark, sentence in _marks().items():
        if mark in text:
            click.echo(f"{mark} {sentence}")
    for sentence in _made_from(rows):
        click.echo(sentence)
    note = _of_different_data(rows)
    if note is not None:
        click.echo(note)
    for sentence in _measured_on(rows):
        click.echo(sentence)
    if any(row.mean["fvu"] is None for row in rows):
        click.echo("-: not measured; --evaluate measures it where the data has what it takes")


def _marks() -> dict[str, str]:
    from qsae_compare.rows import EQUAL_L0

    return {
        OTHER_L0: f"L0 differs from the baseline's by more than {EQUAL_L0:.0%}: not compared at equal L0",
        FLOAT_VALUES: "values are not quantized, and count 32 bits each",
        FROM_TWIN: "predicted from the float twin's atoms: the coder's own were not kept (--save-float)",
    }


def _made_from(rows: Sequence[Row]) -> list[str]:
    """A sentence for each row whose baseline is a coder that is not in the table."""
    shown = {str(m.folder) for row in rows for m in row.members if m.values}
    return [
        f"ΔFVU of {row.label}: beside {' and '.join(away)}, of which it was quantized, as measured then"
        for row in rows
        if any(m.made_from for m in row.members) and (away := [b for b in row.baseline if b not in shown])
    ]


def _measured_on(rows: Sequence[Row]) -> list[str]:
    """A sentence for all vectors that rows were measured on; with the rows, where they are not the same."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for vectors in dict.fromkeys(m.vectors for m in row.members if m.vectors):
            found.setdefault(vectors, []).append(row.label)
    if len(found) == 1:
        return [f"measured on {vectors}" for vectors in found]
    return [f"measured on {vectors}: {', '.join(labels)}" for vectors, labels in found.items()]


def _of_different_data(rows: Sequence[Row]) -> str | None:
    """A sentence where rows were measured on several data; the largest part is last, without a long list."""
    from qsae_compare.rows import by_data

    *others, (name, most) = sorted(by_data(rows), key=lambda part: len(part[1])) or [("", [])]
    if not others:
        return None
    parts = [f"on {data}: {', '.join(row.label for row in on_it)}" for data, on_it in others]
    listed = ", ".join(row.label for row in most)
    parts.append(f"on {name}: {listed if len(most) <= LISTED else f'the other {len(most)} rows'}")
    return f"FVUs of different data do not compare; {'; '.join(parts)}"


def _cell(row: Row, name: str, form: str) -> str | None:
    value, spread = row.mean[name], row.std[name]
    if value is None:
        return None
    text = form.format(value)
    if name in SPREAD and spread is not None:
        text += " ±" + SPREAD[name].format(spread)
    if name == "l0" and row.equal_l0 is False:
        text += OTHER_L0
    if name == "bits_per_token" and row.mean["bits_per_value"] == 32:
        text += FLOAT_VALUES
    if name == "predicted_delta_fvu_points" and "float twin" in row.errors_from:
        text += FROM_TWIN
    return text


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """JSON values of every row: means, standard deviations, and where its coders are."""
    return [
        {
            "label": row.label,
            "n": len(row.members),
            "seeds": [m.seed for m in row.members],
            "mean": dict(row.mean),
            "std": dict(row.std),
            "equal_l0": row.equal_l0,
            "paths": [str(m.folder) for m in row.members],
            "baseline": list(row.baseline),
            "predicted_from": list(row.errors_from),
            "measured_on": list(dict.fromkeys(m.vectors for m in row.members if m.vectors)),
        }
        for row in rows
    ]


def write_csv(rows: Sequence[Row], path: pathlib.Path) -> None:
    """One line a row: label, n, seeds, every column and its ``_std``, equal_l0; undefined cells are empty."""
    from qsae_compare.columns import COLUMNS

    numbers = [f"{column}{suffix}" for column in COLUMNS for suffix in ("", "_std")]
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["label", "n", "seeds", *numbers, "equal_l0"])
        writer.writeheader()
        for row in rows:
            values: dict[str, Any] = {column: row.mean[column] for column in COLUMNS}
            values |= {f"{column}_std": row.std[column] for column in COLUMNS}
            seeds = " ".join(str(m.seed) for m in row.members)
            writer.writerow(
                {"label": row.label, "n": len(row.members), "seeds": seeds, "equal_l0": row.equal_l0} | values
            )
