"""docs/quality.md from the results of ``quality`` and ``quality-KIND``."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import quality
from benchmarks.compare import best, working
from benchmarks.contenders import OTHER_SEEDS
from benchmarks.pages.page import measured, write
from benchmarks.pages.quality_text import ABOUT_ALONE, ABOUT_SUMMARY, DATA, INTRODUCTION, SETTINGS
from benchmarks.pages.records import best_of, error, failures, sizes
from benchmarks.pages.tables import percent, table
from benchmarks.settings import Settings

Result = dict[str, Any]
Record = dict[str, Any]
NAMES = (*quality.NAMES.values(), quality.NAME)


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without any result."""
    results = measured(NAMES, settings)
    if not results:
        return None
    found = list(results.values())
    sections = [INTRODUCTION, summary(found), alone_section(found), *map(states_section, found), SETTINGS]
    return write(page, results, sections, wanted=NAMES, data=DATA, timed=False)


def summary(results: list[Result]) -> str:
    """qsae at its own rate beside the best of the peers, a line for each text."""
    rows = []
    for result in results:
        plain = [record for record in result["contenders"] if record["plain"]]
        own, peer = own_best(plain), best_peer(plain)
        row = [_text_of(result), str(result["n_latents"])]
        row += ["-", "-"] if own is None else [f"{own['fvu']:.4f}", percent(own["dead"], 1)]
        if peer is None:
            rows.append([*row, "-", "-", "-", "-"])
            continue
        found = best_of(peer)
        row += [f"{found['fvu']:.4f}", percent(found["dead"], 1)]
        points = "-" if own is None else f"{100 * (own['fvu'] - found['fvu']):+.2f}"
        rows.append([*row, points, f"{peer['library']} ({peer['kind']}), {found['label']}"])
    columns = ["states", "F", "qsae: FVU", "dead", "best peer: FVU", "dead", "points", "which"]
    return "\n".join(["## Beside the best of the peers\n", table(columns, rows), "", ABOUT_SUMMARY])


def alone_section(results: list[Result]) -> str:
    """qsae at larger sizes, a line for each text and seed."""
    rows = []
    for result in results:
        attempts = [attempt for record in result["alone"]["contenders"] for attempt in record["attempts"]]
        for attempt in attempts:
            row = [_text_of(result), str(attempt["seed"])]
            if "error" in attempt:
                rows.append([*row, str(attempt["error"]), "-"])
            else:
                rows.append([*row, f"{attempt['fvu']:.4f}", percent(attempt["dead"], 1)])
    used = list(dict.fromkeys(sizes(result["alone"]) for result in results))
    columns = ["states", "seed", "FVU", "dead"]
    return "\n".join(["## qsae alone, larger\n", *used, "", table(columns, rows), "", ABOUT_ALONE])


def states_section(result: Result) -> str:
    """The verdict, every contender with every rate, seeds, and qsae with one thing changed."""
    plain = [record for record in result["contenders"] if record["plain"]]
    seeds = [record for record in result["contenders"] if record["kind"].endswith(OTHER_SEEDS)]
    changed = [record for record in result["contenders"] if not record["plain"] and record not in seeds]
    parts = [f"## {_text_of(result)}\n", f"{sizes(result)}\n", verdict(plain), contender_table(plain), ""]
    parts += [failures(plain), seed_table(plain, seeds), ""]
    own = next((record for record in plain if record["library"] == "qsae"), None)
    if own is not None:
        parts += [change_table(own, changed), ""] if changed else []
        parts.append(f"`{own['attempts'][0]['command']}`\n")
    return "\n".join(part for part in parts if part is not None)


def verdict(records: list[Record]) -> str:
    """Whether the FVU of qsae's own rate is at or below the best of the peers."""
    own, peer = own_best(records), best_peer(records)
    if own is None or peer is None:
        return "Nothing to compare: one side has no numbers.\n"
    goal = best_of(peer)["fvu"]
    reached = "at or below" if own["fvu"] <= goal else "**above**"
    return (
        f"qsae's FVU, {own['fvu']:.4f} at its own rate, is {reached} the best of the peers, which is\n"
        f"{peer['library']} ({peer['kind']}) with {goal:.4f}: {100 * (own['fvu'] - goal):+.2f} points.\n"
    )


def contender_table(records: list[Record]) -> str:
    """A line for each contender: FVU at each rate, then what the best of them has; the best FVU is bold."""
    values = [best_of(record)["fvu"] for record in records if best(record)]
    rows = []
    for record in records:
        found = best(record)
        tried = ", ".join(_tried(attempt) for attempt in record["attempts"])
        if found is None:
            rows.append([record["library"], record["kind"], tried, *["-"] * 4])
            continue
        fvu = f"{found['fvu']:.4f}"
        shown = f"**{fvu}**" if found["fvu"] == min(values) else fvu
        rest = [found["label"], f"{found['l0']:.1f}", percent(found["dead"], 1)]
        rows.append([record["library"], record["kind"], tried, shown, *rest])
    columns = ["library", "coder", "learning rate: FVU", "best FVU", "at", "L0", "dead"]
    return table(columns, rows, texts=3)


def seed_table(plain: list[Record], seeds: list[Record]) -> str | None:
    """FVU and dead share of each seed, of those that have several; None where none has."""
    rows = []
    for record in seeds:
        names = record["library"], record["kind"].removesuffix(OTHER_SEEDS)
        first = next(best_of(r) for r in plain if (r["library"], r["kind"]) == names)
        attempts = [first, *working(record)]
        fvus = ", ".join(f"{attempt['fvu']:.4f}" for attempt in attempts)
        shares = ", ".join(percent(attempt["dead"], 1) for attempt in attempts)
        rows.append([*names, first["label"], fvus, shares])
    if not rows:
        return None
    columns = ["library", "coder", "at", "FVU of each seed", "dead"]
    return "The same with other seeds, the one above first:\n\n" + table(columns, rows, texts=3)


def change_table(own: Record, changed: list[Record]) -> str:
    """qsae's run at its own rate beside the same with one thing changed."""
    base = next((a for a in working(own) if a["label"] == "auto"), None)
    rows = [] if base is None else [["as it is", f"{base['fvu']:.4f}", "", percent(base["dead"], 1)]]
    for record in changed:
        found = best(record)
        what = record["kind"].partition(", ")[2]
        if found is None or base is None:
            rows.append([what, error(record), "-", "-"])
            continue
        points = f"{100 * (found['fvu'] - base['fvu']):+.2f}"
        rows.append([what, f"{found['fvu']:.4f}", points, percent(found["dead"], 1)])
    title = "qsae at its own rate, with one thing changed:\n\n"
    return title + table(["change", "FVU", "points", "dead"], rows)


def own_best(records: list[Record]) -> dict[str, Any] | None:
    """qsae's attempt, which is at its own rate."""
    return next((found for r in records if r["library"] == "qsae" and (found := best(r))), None)


def best_peer(records: list[Record]) -> Record | None:
    """The record of the peers with the least FVU."""
    peers = [r for r in records if r["library"] != "qsae" and best(r)]
    return min(peers, key=lambda record: best_of(record)["fvu"], default=None)


def _text_of(result: Result) -> str:
    return f"{result['title']}: {result['kind']}"


def _tried(attempt: dict[str, Any]) -> str:
    """``x3 8.5e-04: 0.1234``."""
    value = "failed" if "error" in attempt else f"{attempt['fvu']:.4f}"
    rate = "" if attempt["lr"] == "auto" else f" ({attempt['lr']:.1e})"
    return f"{attempt['label']}{rate}: {value}"
