"""docs/quality.md from the results of ``quality``, ``quality-states`` and ``recovery``."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import quality, recovery, recovery_layers
from benchmarks.compare import best, working
from benchmarks.pages import about as page_about
from benchmarks.pages.quality_text import ABOUT_LAYERS, ABOUT_RECOVERY, DATA, INTRODUCTION, SETTINGS
from benchmarks.pages.tables import percent, table
from benchmarks.results import read
from benchmarks.settings import Settings

Result = dict[str, Any]
Record = dict[str, Any]
NAMES = (quality.NAME_STATES, quality.NAME, recovery.NAME, recovery_layers.NAME)


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without any result."""
    results = {name: result for name in NAMES if (result := read(name, settings)) is not None}
    if not results:
        return None
    parts = [INTRODUCTION, page_about.warnings(results, timed=False)]
    for name in (quality.NAME_STATES, quality.NAME):
        if name in results:
            parts.append(states_section(results[name]))
    if quality.NAME in results or quality.NAME_STATES in results:
        parts.append(SETTINGS)
    if recovery.NAME in results:
        parts.append(recovery_section(results[recovery.NAME]))
    if recovery_layers.NAME in results:
        parts.append(layers_section(results[recovery_layers.NAME]))
    missing = [name for name in NAMES if name not in results]
    parts += [f"Not measured: {', '.join(missing)}.\n"] if missing else []
    parts.append(page_about.section(results, DATA))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(part for part in parts if part))
    return page


def states_section(result: Result) -> str:
    """The verdict, every contender with every rate, and qsae with one thing changed."""
    plain = [record for record in result["contenders"] if record["plain"]]
    changed = [record for record in result["contenders"] if not record["plain"]]
    qsae = next((r for r in plain if r["library"] == "qsae" and best(r)), None)
    parts = [f"## FVU on hidden states: {result['title']}\n", f"{_sizes(result)}\n", verdict(plain), ""]
    parts += [contender_table(plain), "", failures(plain)]
    if qsae is not None and changed:
        parts += [change_table(qsae, changed), "", _command(qsae)]
    return "\n".join(part for part in parts if part is not None)


def verdict(records: list[Record]) -> str:
    """Whether qsae's best FVU, and that of its own rate, are at or below the best of the peers."""
    own = next((r for r in records if r["library"] == "qsae" and best(r)), None)
    peers = [r for r in records if r["library"] != "qsae" and best(r)]
    if own is None or not peers:
        return "Nothing to compare: one side has no numbers.\n"
    peer = min(peers, key=lambda record: _best(record)["fvu"])
    least, automatic = _best(own)["fvu"], [a for a in working(own) if a["label"] == "auto"]
    values = [("the best of its rates", least), *(("its own choice of rate", a["fvu"]) for a in automatic)]
    goal = _best(peer)["fvu"]
    said = "; ".join(f"with {what} {fvu:.4f}, {100 * (fvu - goal):+.2f} points" for what, fvu in values)
    reached = "at or below" if least <= goal else "**above**"
    return (
        f"qsae's FVU is {reached} the best of the peers, which is {peer['library']} ({peer['kind']}) with\n"
        f"{goal:.4f}: {said}.\n"
    )


def contender_table(records: list[Record]) -> str:
    """A line for each contender: FVU at each rate, then what the best of them has; the best FVU is bold."""
    values = [_best(record)["fvu"] for record in records if best(record)]
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


def change_table(own: Record, changed: list[Record]) -> str:
    """qsae's run at its own rate beside the same with one thing changed."""
    base = next((a for a in working(own) if a["label"] == "auto"), None)
    rows = [] if base is None else [["as it is", f"{base['fvu']:.4f}", "", percent(base["dead"], 1)]]
    for record in changed:
        found = best(record)
        what = record["kind"].partition(", ")[2]
        if found is None or base is None:
            rows.append([what, _error(record), "-", "-"])
            continue
        points = f"{100 * (found['fvu'] - base['fvu']):+.2f}"
        rows.append([what, f"{found['fvu']:.4f}", points, percent(found["dead"], 1)])
    title = "qsae at its own rate, with one thing changed:\n\n"
    return title + table(["change", "FVU", "points", "dead"], rows)


def recovery_section(result: Result) -> str:
    """Each contender's attempt of largest MCC, and of all attempts the range of L0."""
    records = [record for record in result["contenders"] if best(record)]
    rows = []
    for record in sorted(records, key=lambda r: -_best(r, "mcc")["mcc"]):
        found = _best(record, "mcc")
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
        f"{_sizes(result)} {source['features']} features, {source['mean_l0']:.1f} of them active on average. "
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
    for record in sorted(records, key=lambda r: -_best(r, "mcc")["mcc"]):
        found = _best(record, "mcc")
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


def failures(records: list[Record]) -> str:
    """Contenders without any number, with the reason."""
    lines = [f"* {r['library']}, {r['kind']}: {_error(r)}" for r in records if best(r) is None]
    return "\n".join(["Not driven, or without a number:\n", *lines, ""]) if lines else ""


def _best(record: Record, by: str = "fvu") -> dict[str, Any]:
    found = best(record, by)
    assert found is not None
    return found


def _error(record: Record) -> str:
    return next((str(a["error"]) for a in record["attempts"] if "error" in a), "no attempt")


def _tried(attempt: dict[str, Any]) -> str:
    """``x3 8.5e-04: 0.1234``."""
    value = "failed" if "error" in attempt else f"{attempt['fvu']:.4f}"
    rate = "" if attempt["lr"] == "auto" else f" ({attempt['lr']:.1e})"
    return f"{attempt['label']}{rate}: {value}"


def _sizes(result: Result) -> str:
    tokens = result["steps"] * result["batch_size"]
    return (
        f"d={result['d']}, F={result['n_latents']}, k={result['k']}, B={result['batch_size']}, "
        f"{result['steps']} steps ({tokens:,} vectors), measured on {result['held_out']:,} others."
    )


def _command(own: Record) -> str:
    found = next((a for a in own["attempts"] if a["label"] == "auto"), own["attempts"][0])
    return f"`{found['command']}`\n"
