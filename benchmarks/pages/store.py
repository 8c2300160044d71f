"""docs/store.md: training from a store. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
from statistics import fmean, stdev
from typing import Any

from benchmarks import store
from benchmarks.pages import about
from benchmarks.pages.tables import count, table
from benchmarks.results import read
from benchmarks.settings import Settings

Result = dict[str, Any]


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    result = read(store.NAME, settings)
    if result is None:
        return None
    reading = read(store.READING, settings)
    results = {store.NAME: result} | ({} if reading is None else {store.READING: reading})
    rates = {
        record["format"]: record["vectors_per_second"] for record in (reading or {"formats": []})["formats"]
    }
    parts = [_text(result, rates), about.warnings(results), about.section(results, "")]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(part for part in parts if part))
    return page


def _text(result: Result, rates: dict[str, float]) -> str:
    exact = result["formats"][0]
    formats = [
        [
            record["format"],
            f"{record['bytes'] / exact['bytes']:.3f}",
            count(rates[record["format"]]) if record["format"] in rates else "",
            *_fvu(record),
            f"{100 * (fmean(record['fvu']) - fmean(exact['fvu'])):+.3f}",
        ]
        for record in result["formats"]
    ]
    orders = [[record["order"], *_fvu(record)] for record in result["orders"]]
    sizes = (
        f"B={result['batch_size']}, F={count(result['n_latents'])}, k={result['k']}, {result['steps']} steps"
    )
    return f"""\
# Training from a store

    {result["harvest"]}

A TopK SAE ({sizes}: one pass) on {count(result["tokens"])} vectors, {len(exact["fvu"])} seed(s). Every coder
is measured on the {count(result["held_out"])} held-out vectors of the store in float32, of other documents.

## Number formats

`vectors/s` is what one process reads in batches of {result["batch_size"]}, checksums included, from the page
cache. The model computes in {result["computed_in"]}, which other formats of 16 bits or more may hold exactly.

{table(["format", "bytes", "vectors/s", "FVU", "spread over seeds", "points of FVU"], formats)}

## Order

The same vectors in other orders: permuted in a file, all of them; and in the text's order, where
{count(result["window"])} neighbours at a time are shuffled.

{table(["order", "FVU", "spread over seeds"], orders)}
"""


def _fvu(record: dict[str, Any]) -> list[str]:
    values = record["fvu"]
    return [f"{fmean(values):.5f}", f"{stdev(values):.5f}" if len(values) > 1 else ""]
