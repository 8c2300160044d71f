"""docs/end-to-end.md: from a text to a trained SAE. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from benchmarks.end_to_end_sides import NAME
from benchmarks.pages.end_to_end_text import differences
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, gigabytes, percent, ratio, table
from benchmarks.settings import Settings

Result = dict[str, Any]
PARTS = (
    ("start: interpreter, imports", r"start"),
    ("model and text opened", r"open"),
    ("language model, for training", r"(begin|training/batches|harvest)/language model"),
    ("waiting for its vectors: tokens, order, copies, files", r"training/batches|harvest"),
    ("statistics and initial values", r"begin"),
    ("encode, select, decode, loss", r"training/steps/loss"),
    ("backward, choice of the screen, counters", r"training/steps"),
    ("Adam", r"training/steps/Adam"),
    ("reading held-out vectors and measuring on them, while it trains", r"training(/(language|measured).*)?"),
    ("a state to resume from, and the coder, saved", r"training/resume state|finish/artifact"),
    ("evaluation at the end: language model", r"finish/.*language model"),
    ("evaluation at the end: all else", r"finish(/evaluation)?"),
)
"""What a row of the table is called -> the paths of its parts; the first row that fits takes a part."""


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    results = measured([NAME], settings)
    return write(page, results, [_text(results[NAME])]) if results else None


def _text(result: Result) -> str:
    records = result["contenders"]
    own = [r for r in records if r["library"] == "qsae" and "error" not in r]
    columns = ["side", "seconds", "x qsae", "coder saved after", "tokens/s", "FVU", "L0", "dead", "memory"]
    return f"""\
# From a text to a trained SAE

What a user waits for: from the start of a command to its end, from a text file and a language model on disk
to a trained TopK SAE. {result["model"]}, residual stream behind layer {result["layer"]} (d={result["d"]});
F={result["n_latents"]:,}, k={result["k"]}, B={result["batch_size"]}, {result["steps"]} steps:
{result["tokens"]:,} tokens of Python's standard library, read in contexts of {result["context"]}. One run of
each side, one after the other.

{table(columns, _rows(result))}

{_failures(records)}FVU, L0 and dead latents are those of each saved SAE, as its library loads it, on the
same {result["held_out"]:,} states of other documents, in float32, without BOS and EOS. Measuring that is in
nobody's seconds. What `qsae train` measures by itself, on the way and at its end, is in its seconds; the
peers measure nothing. Each library has its own defaults, also for the learning rate:
[quality.md](quality.md) compares their errors at the best rate of each. Memory is the largest resident set.

## Where qsae's time goes

{_shares(own)}

On a CPU no batch is read ahead, since that would take cores from the steps: to wait for a batch is to read
it.

{_commands(own)}
## Where the peers' time goes

Seconds until the library is imported, from there until model and text are open, and until the coder is saved.
sparsify tokenizes all of the text before it trains; SAELens and qsae do so as they need it.

{_stages(records)}

## What each side does

{differences(result)}
"""


def _rows(result: Result) -> list[list[str]]:
    found = [record for record in result["contenders"] if "error" not in record]
    own = next((r["seconds"] for r in found if r["library"] == "qsae"), None)
    return [
        [
            _who(record),
            count(record["seconds"]),
            ratio(record["seconds"] / own if own else None),
            count(record["ready_seconds"]),
            count(result["tokens"] / record["seconds"]),
            f"{record['fvu']:.4f}",
            f"{record['l0']:.1f}",
            percent(record["dead"], 1),
            gigabytes(record["peak_bytes"]),
        ]
        for record in found
    ]


def _who(record: Result) -> str:
    return f"{record['library']}, {record['kind']}"


def _failures(records: list[Result]) -> str:
    lines = [f"* {_who(record)}: failed: {record['error']}" for record in records if "error" in record]
    return "\n".join([*lines, "", ""]) if lines else ""


def by_row(parts: dict[str, float]) -> dict[str, float]:
    """Seconds of each row of the table; every part is in one of them.

    Raises:
        ValueError: for a part that no row takes.
    """
    found = dict.fromkeys((name for name, _ in PARTS), 0.0)
    for path, seconds in parts.items():
        row = next((name for name, pattern in PARTS if re.fullmatch(pattern, path)), None)
        if row is None:
            raise ValueError(f"no row takes the part {path!r}")
        found[row] += seconds
    return found


def _shares(own: list[Result]) -> str:
    """A column for each command of each of qsae's sides: seconds, and shares of the command."""
    taken = {
        f"{record['kind']}: qsae {command}": by_row(parts)
        for record in own
        for command, parts in record["parts"].items()
    }
    rows = [
        [name, *(_seconds(seconds[name], sum(seconds.values())) for seconds in taken.values())]
        for name, _ in PARTS
        if any(seconds[name] for seconds in taken.values())
    ]
    total = ["together", *(f"{sum(seconds.values()):.1f}" for seconds in taken.values())]
    return table(["seconds", *taken], [*rows, total])


def _seconds(value: float, whole: float) -> str:
    return f"{value:.1f} ({percent(value / whole, 0)})" if value else "-"


def _commands(own: list[Result]) -> str:
    return "".join(f"    {line}\n" for record in own for line in record["commands"])


def _stages(records: list[Result]) -> str:
    found = [record for record in records if "stages" in record]
    names = list(dict.fromkeys(name for record in found for name in record["stages"]))
    rows = [[_who(record), *(f"{record['stages'][name]:.1f}" for name in names)] for record in found]
    return table(["side", *names], rows)
