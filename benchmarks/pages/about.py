"""The page's part about where, when and how all was measured; and what to distrust."""

from __future__ import annotations

from typing import Any

from benchmarks import activations
from benchmarks.pages.tables import gigabytes, table

Result = dict[str, Any]
BUSY = 0.3
"""Load per core from which on a machine was not idle."""


def warnings(results: dict[str, Result], *, timed: bool = True) -> str:
    """A sentence where numbers are not worth citing; or nothing.

    Args:
        timed: whether any of the numbers is a time, so that it matters what else the machine did.
    """
    about = {name: result["about"] for name, result in results.items()}
    lines = []
    if any(a["quick"] for a in about.values()):
        lines.append("**Quick run: small shapes and few repeats. It shows that everything runs, no more.**\n")
    busy = {n: a["load_before"] for n, a in about.items() if a["load_before"] > BUSY * a["machine"]["cores"]}
    # within one call the load before a benchmark is that of the one before it
    first = min(about, key=lambda name: about[name]["date"], default=None)
    if timed and first in busy:
        lines.append(
            f"**The machine was not idle: load {busy[first]:.1f} on {about[first]['machine']['cores']} cores "
            "when it began.**\n"
        )
    if len({_machine_key(a) for a in about.values()}) > 1:
        lines.append("**The benchmarks were not all measured on one machine; see below.**\n")
    return "\n".join(lines)


def section(results: dict[str, Result], data: str) -> str:
    """Machine, software, calls, and a sentence about the data."""
    parts = ["## Machine\n"]
    by_machine: dict[str, list[str]] = {}
    for name, result in results.items():
        by_machine.setdefault(_machine_key(result["about"]), []).append(name)
    for names in by_machine.values():
        if len(by_machine) > 1:
            parts.append(f"{', '.join(names)}:\n")
        parts += [_machine(results[names[0]]["about"], results), ""]
    rows = [
        [
            name,
            a["date"],
            f"{a['minutes']:.1f}",
            f"{a['load_before']:.2f}",
            f"`{a['command']}`",
            str(a["seed"]),
        ]
        for name, a in ((name, result["about"]) for name, result in results.items())
    ]
    columns = ["benchmark", "date (UTC)", "minutes", "load before", "command", "seed"]
    parts += [table(columns, rows, texts=2), "", data]
    return "\n".join(parts)


DATA = f"""\
Activations: sums of {activations.ACTIVE} of {activations.N_ATOMS} random unit atoms with coefficients
0.5 + |N(0, 1)|, plus noise of standard deviation {activations.NOISE} in each dimension; the same file for all
sides.
"""


def _machine_key(about: dict[str, Any]) -> str:
    machine = about["machine"]
    return str([machine[key] for key in ("cpu", "cores", "flags", "memory_bytes", "kernel", "python")])


def _machine(about: dict[str, Any], results: dict[str, Result]) -> str:
    machine = about["machine"]
    memory = machine["memory_bytes"]
    rows = [
        ["CPU", f"{machine['cpu']}, {machine['cores']} cores"],
        ["instruction sets", ", ".join(machine["flags"])],
        ["memory", gigabytes(memory) if memory else "unknown"],
        ["transparent huge pages", str(machine["huge_pages"])],
        ["system", f"{machine['system']}, Linux {machine['kernel']}"],
        ["threads", f"{about['threads']} on every side"],
        ["Python", machine["python"]],
        ["versions", ", ".join(f"{n} {v}" for n, v in machine["versions"].items())],
        ["commit", str(machine["commit"])],
        ["peers", ", ".join(_peers(results)) or "none measured"],
    ]
    return table(["", ""], rows, texts=2)


def _peers(results: dict[str, Result]) -> list[str]:
    """``sae-lens 6.54.12 (torch 2.13.0, Python 3.11.7)`` of each peer that ran."""
    records = [r for shape in results.get("step", {"shapes": []})["shapes"] for r in shape["sides"]]
    records += [r for result in results.values() for r in result.get("middle", {"sides": []})["sides"]]
    measured = [r for record in records if record["library"] != "qsae" for r in record["rounds"]]
    measured += [contender for result in results.values() for contender in result.get("contenders", [])]
    names = [
        f"{r['distribution']} {r['version']} (torch {r['torch']}, Python {r['python']})"
        for r in measured
        if "version" in r
    ]
    return list(dict.fromkeys(names))
