"""docs/recovery.md from the results of ``recovery`` and ``recovery-layers``."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import recovery, recovery_layers
from benchmarks.compare import best, working
from benchmarks.pages.page import measured, write
from benchmarks.pages.records import best_of, failures, sizes
from benchmarks.pages.recovery_text import ABOUT_LAYERS, ABOUT_RECOVERY, DATA, INTRODUCTION
from benchmarks.pages.tables import percent, table
from benchmarks.settings import Settings

Result = dict[str, Any]
NAMES = (recovery.NAME, recovery_layers.NAME)


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without any result."""
    results = measured(NAMES, settings)
    if not results:
        return None
    sections = {recovery.NAME: recovery_section, recovery_layers.NAME: layers_section}
    own = [section(results[name]) for name, section in sections.items() if name in results]
    return write(page, results, [INTRODUCTION, *own], wanted=NAMES, data=DATA, timed=False)


def recovery_section(result: Result) -> str:
    """Each contender's attempt of largest MCC, and of all attempts the range of L0."""
    records = [record for record in result["contenders"] if best(record)]
    rows = []
    for record in sorted(records, key=lambda r: -best_of(r, "mcc")["mcc"]):
        found = best_of(record, "mcc")
        l0 = [attempt["l0"] for attempt in working(record)]
        rows.append(
            [
                record["library"],
                record["kind"],
                *(f"{found[name]:.3f}" for name in ("mcc", "mmcs", "fvu")),
                f"{found['l0']:.1f}",
                percent(found["dead"], 1),
                str(found["label"]),
                f"{min(l0):.1f} to {max(l0):.1f}" if len(l0) > 1 else "-",
            ]
        )
    columns = ["library", "SAE", "MCC", "MMCS", "FVU", "L0", "dead", "at", "L0 of all its runs"]
    source, chance = result["source"], result["chance"]
    data = (
        f"{sizes(result)} {source['features']} features, {source['mean_l0']:.1f} of them active on average. "
        f"Random directions have an MCC of {chance['mcc']:.3f} and an MMCS of {chance['mmcs']:.3f}.\n"
    )
    parts = ["## Recovery of a known dictionary\n", data, table(columns, rows, texts=2), "", ABOUT_RECOVERY]
    if result["several_layers"]:
        parts.append(
            f"{', '.join(result['several_layers'])} read several layers, so they have other data, and\n"
            "a table of their own: benchmark `recovery-layers`.\n"
        )
    return "\n".join([*parts, failures(result["contenders"])])


def layers_section(result: Result) -> str:
    """Each SAE's attempt of largest MCC, beside that of as many random directions."""
    records = [record for record in result["contenders"] if best(record)]
    rows = []
    for record in sorted(records, key=lambda r: -best_of(r, "mcc")["mcc"]):
        found = best_of(record, "mcc")
        scores = [f"{found[name]:.3f}" for name in ("mcc", "chance", "mmcs", "fvu")]
        rest = [f"{found['l0']:.1f}", percent(found["dead"], 1), str(found["label"])]
        rows.append([record["kind"], str(record["n_latents"]), *scores, *rest])
    columns = ["SAE", "latents", "MCC", "random MCC", "MMCS", "FVU", "L0", "dead", "at"]
    tokens = result["steps"] * result["batch_size"]
    data = (
        f"The features of the table above in {result['layers']} layers of width {result['d']}: in each, "
        f"their directions are turned\nby another rotation. k={result['k']}, B={result['batch_size']}, "
        f"{result['steps']} steps ({tokens:,} tokens), measured on {result['held_out']:,} others.\n"
    )
    parts = [
        f"## Recovery of a dictionary in {result['layers']} layers\n",
        data,
        table(columns, rows, texts=1),
    ]
    return "\n".join([*parts, "", ABOUT_LAYERS, failures(result["contenders"])])
