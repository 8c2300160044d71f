"""What the pages of quality say of one contender's record."""

from __future__ import annotations

from typing import Any

from benchmarks.compare import best

Record = dict[str, Any]


def best_of(record: Record, by: str = "fvu") -> dict[str, Any]:
    """A contender's attempt of least FVU, or of largest ``by``; it has one."""
    found = best(record, by)
    assert found is not None
    return found


def error(record: Record) -> str:
    """Why a contender has no number."""
    return next((str(a["error"]) for a in record["attempts"] if "error" in a), "no attempt")


def failures(records: list[Record]) -> str:
    """Contenders without any number, with the reason."""
    lines = [f"* {r['library']}, {r['kind']}: {error(r)}" for r in records if best(r) is None]
    return "\n".join(["Not driven, or without a number:\n", *lines, ""]) if lines else ""


def sizes(result: dict[str, Any]) -> str:
    """Of all coders of a comparison, and of what they are trained and measured on."""
    tokens = result["steps"] * result["batch_size"]
    return (
        f"d={result['d']}, F={result['n_latents']}, k={result['k']}, B={result['batch_size']}, "
        f"{result['steps']} steps ({tokens:,} vectors), measured on {result['held_out']:,} others."
    )
