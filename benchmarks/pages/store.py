"""docs/store.md: training from a store. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
from statistics import fmean, stdev
from typing import Any

from benchmarks import store
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, table
from benchmarks.settings import Settings

Result = dict[str, Any]


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    results = measured([store.NAME, store.READING], settings)
    if store.NAME not in results:
        return None
    formats = results.get(store.READING, {"formats": []})["formats"]
    rates = {record["format"]: record["vectors_per_second"] for record in formats}
    return write(page, results, [_text(results[store.NAME], rates)])


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
