"""The page's other parts: fidelity of the screens, time to the first step, scaling."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.pages.step import KERNELS
from benchmarks.pages.tables import count, gigabytes, percent, ratio, table

Result = dict[str, Any]
VARIED = {"n_latents": "F", "d": "d", "k": "k", "batch_size": "B"}


def fidelity_section(result: Result) -> str:
    """FVU of each screen beside that of the exact path."""
    runs, data = result["runs"], result["data"]
    exact = runs[0].get("fvu")
    rows = []
    for run in runs:
        who = f"{KERNELS[run['kernels']]}, " + ("exact" if run["screen"] == "none" else run["screen"])
        who += ", another seed" if run["seed"] else ""
        if "error" in run:
            rows.append([who, f"failed: {run['error']}", *["-"] * 4])
            continue
        points = None if exact is None else 100 * (run["fvu"] - exact)
        difference = "-" if points is None else f"{points:+.3f}"
        recalls = [percent(run[name], 3) for name in ("recall_last", "recall_least")]
        rows.append([who, percent(run["fvu"], 3), difference, *recalls, str(run["logged"])])
    columns = ["run", "FVU", "points from exact", "recall, last", "recall, least", "times measured"]
    return f"""\
## What a screen costs

Held-out FVU after the same steps on the same data (sums of {data["active"]} of {data["n_atoms"]} random
atoms, d={data["d"]}), from the same weights; the last row shows what another seed changes. Recall is the
share of the exact top k that the screened code has, measured by the trainer on a few tokens of each logged
step.

{table(columns, rows)}

`qsae train --sae topk {result["arguments"]}`
"""


def startup_section(result: Result) -> str:
    """Wall time of one-step runs, and the stages up to the first step."""
    columns: list[str] = []
    rows = []
    for kind in result["kinds"]:
        stages = [s["stages"] for s in kind.get("stages", []) if "stages" in s]
        if "error" in kind or not stages:
            rows.append([kind["data"], f"failed: {kind.get('error', 'no stages')}"])
            continue
        ends = {name: median(s[name] for s in stages) for name in stages[0]}
        columns = list(ends)
        durations = [end - before for end, before in zip(ends.values(), [0.0, *ends.values()], strict=False)]
        rows.append([kind["data"], f"{median(kind['wall_seconds']):.1f}", *(f"{d:.2f}" for d in durations)])
    rows = [[*row, *["-"] * (len(columns) + 2 - len(row))] for row in rows]
    return f"""\
## Time to the first step

`qsae train --sae topk --steps 1` with each kind of data and otherwise the defaults: seconds of the whole
command, and of its stages in a second run.

{table(["data", "command", *columns], rows)}

Commands that train nothing, with every plugin of the repository installed; the least CPU time of several
processes.

{table(["process", "CPU seconds"], [[s["name"], f"{s['cpu_seconds']:.3f}"] for s in result["short"]])}
"""


def scaling_section(result: Result, plots: list[str]) -> str:
    """One table for each size that is varied, and the plots."""
    reference = ", ".join(f"{short}={result['reference'][name]}" for name, short in VARIED.items())
    parts = ["## Scaling\n", f"qsae's step where one size varies and the others are those of {reference}.\n"]
    parts += [f"![tokens per second and peak memory]({name})\n" for name in plots]
    for varied, short in VARIED.items():
        points = [p for p in result["points"] if p["varied"] == varied]
        sides = list(dict.fromkeys(p["side"] for p in points))
        columns = [short]
        for side in sides:
            columns += [f"{side}: tokens/s", "x product", "peak memory"]
        rows = []
        for value in dict.fromkeys(p[varied] for p in points):
            at_value = {p["side"]: p for p in points if p[varied] == value}
            rows.append([str(value), *(cell for side in sides for cell in _point(at_value[side]))])
        parts += [table(columns, rows, texts=0), ""]
    return "\n".join(parts)


def _point(point: Result) -> list[str]:
    if "error" in point:
        return [f"failed: {point['error']}", "-", "-"]
    products = median(point["seconds"]) / median(point["product_seconds"])
    return [count(point["tokens_per_second"]), ratio(products), gigabytes(point["peak_bytes"])]


def _cell(value: Any) -> str:
    return count(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
