"""docs/real-run.md: steps of real runs, in which latents die. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import real_run
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, percent, ratio, table
from benchmarks.settings import Settings
from benchmarks.sides import QSAE
from benchmarks.training_step import error

Result = dict[str, Any]


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    results = measured([real_run.NAME], settings)
    return write(page, results, [_text(results[real_run.NAME])]) if results else None


def _text(result: Result) -> str:
    """Steps in the middle of a run, of every side; a whole run of ``qsae train``."""
    middle, whole = result["middle"], result["whole"]
    first, last = middle["before"] + 1, middle["before"] + middle["timed"]
    columns = ["side", "tokens/s", "qsae is faster by", "x product", "dead"]
    return f"""\
# Steps of real runs

Early steps of a coder flatter every library: nothing is dead yet, and nothing is done about it. These are
later ones; [performance.md](performance.md) has the early ones and all else.

## In the middle of a run

The mean of steps {first} to {last} of a run of {middle["steps"]} on hidden states of the built-in
language model, at {_sizes(middle)}. Each side does what it has against dead latents:
qsae by its defaults, the peers with their own auxiliary loss and a window of an eighth of the run, since
their own of 10M tokens (SAELens: 1000 steps) is longer than it. Each peer has ten times its rate for long
runs. `dead` is the side's own count after the last of these steps.

{table(columns, _rows(middle))}

## A whole run

    {whole["command"]}

From the first step to the last, with reading and with choosing and watching the screen, but without
evaluation: {_took(whole)}.
The product is timed before and after it.
"""


def _rows(middle: Result) -> list[list[str]]:
    found = real_run.rows(middle)
    own = next((speed for record, speed, *_ in found if record["library"] == QSAE), None)
    rows = [
        [_who(r), count(speed), ratio(own / speed if own else None), ratio(products), percent(dead, 1)]
        for r, speed, products, dead in found
    ]
    failed = [r for r in middle["sides"] if error(r) is not None]
    return rows + [[_who(r), f"failed: {error(r)}", "-", "-", "-"] for r in failed]


def _who(record: Result) -> str:
    return f"{record['library']}, {record['what']}"


def _took(whole: Result) -> str:
    if "error" in whole:
        return f"failed: {whole['error']}"
    dead = percent(whole["dead"], 1)
    return f"{ratio(whole['products'])} products a step on average, {dead} of the latents dead at its end"


def _sizes(sizes: Result) -> str:
    names = {"batch_size": "B", "d": "d", "n_latents": "F", "k": "k"}
    return ", ".join(f"{short}={sizes[name]}" for name, short in names.items())
