"""The page's part about packed weights: decoding alone, and whole coders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.pages.tables import count, ratio, table

Result = dict[str, Any]
WAYS = ("compiled", "torch, fast", "torch, exact")
CODER = "ternary, 4-bit encoder"


class Target(NamedTuple):
    """What packed weights are to reach, as a ratio to float32."""

    text: str
    value: float
    measure: Callable[[Result], float | None]


def section(result: Result) -> str:
    """Targets, the decode table, and what ``qsae bench`` printed."""
    parts = [
        "## Inference from packed weights\n",
        targets(result),
        "",
        LIMITS,
        decode_table(result["decode"]),
        "",
    ]
    parts += ["### Whole coders\n", NOTES, *(coder_table(*item) for item in result["coders"].items())]
    return "\n".join(parts)


NOTES = """\
Encode and decode of an untrained coder, batch by batch, beside the same coder with its weights as float32
through plain torch (a dense product, topk, embedding_bag), normalisation and rotation folded into them.
Bytes are those of the weights that one token makes a call read.
"""


def targets(result: Result) -> str:
    """Each target, and whether this run reached it."""
    rows = []
    for target in TARGETS:
        value = target.measure(result)
        reached = "not measured" if value is None else "yes" if value >= target.value else "no"
        rows.append([target.text, f"{target.value:g}", ratio(value), reached])
    return table(["times float32, at least", "target", "measured", "reached"], rows)


LIMITS = """\
A batch of one is bound by reading the encoder. An int8 screen reads a quarter of float32's bytes, so four
times is the limit where float32's product runs at the speed of memory, and a fixed quarter of a millisecond
of Python comes on top. With indices drawn by Zipf's law most rows of the float32 matrix come out of the
cache, and packed codes save less.
"""


def decode_table(decode: Result) -> str:
    """Tokens per second of float32, and how many times as fast each way is."""
    if "error" in decode:
        return f"Decoding rows failed: {decode['error']}"
    rows = []
    for row in decode["rows"]:
        seconds = row["seconds"]
        times = [ratio(seconds["fp32"] / seconds[way]) for way in WAYS]
        speed = count(row["batch_size"] / seconds["fp32"])
        rows.append([row["weights"], row["law"], f"{row['batch_size']:,}", speed, *times])
    title = (
        f"Decoding {decode['k']} of {decode['n_latents']} rows of width {decode['d']} beside float32 "
        "`embedding_bag` with the unpacked matrix, indices drawn evenly or by Zipf's law. `compiled` and "
        "`torch, exact` give the same bits as that; `torch, fast` is torch's byte bag, in float32 sums."
    )
    columns = ["weights", "indices", "batch", "fp32 tokens/s", *(f"x, {way}" for way in WAYS)]
    return f"{title}\n\n{table(columns, rows, texts=2)}"


def coder_table(name: str, bench: Result) -> str:
    """One call of ``qsae bench``."""
    if "error" in bench:
        return f"`{bench['command']}` gave nothing: {bench['error']}\n"
    rows = [
        [
            row["operation"],
            f"{row['batch_size']:,}",
            count(row["tokens_per_second"]),
            count(row["fp32_tokens_per_second"]),
            ratio(row["times_fp32"]),
            count(row["bytes_per_token"]),
            count(row["fp32_bytes_per_token"]),
        ]
        for row in bench["rows"]
    ]
    columns = ["", "batch", "tokens/s", "fp32 tokens/s", "x fp32", "bytes/token", "fp32 bytes/token"]
    agreement = (
        f"{100 * bench['same_entries']:.3f}% of float32's active entries found, reconstructions differ by "
        f"{bench['relative_difference']:.1e}"
    )
    return f"**{name}**: `{bench['command']}`; {agreement}.\n\n{table(columns, rows)}\n"


def _decode(weights: str, way: str, least_batch: int) -> Callable[[Result], float | None]:
    """The worst ratio of a kind of weights over batch sizes and laws."""

    def measure(result: Result) -> float | None:
        rows = result["decode"].get("rows", [])
        ratios = [
            row["seconds"]["fp32"] / row["seconds"][way]
            for row in rows
            if row["weights"] == weights and row["batch_size"] >= least_batch
        ]
        return min(ratios, default=None)

    return measure


def _both(batch_size: int) -> Callable[[Result], float | None]:
    def measure(result: Result) -> float | None:
        rows = result["coders"].get(CODER, {}).get("rows", [])
        found = [r for r in rows if (r["operation"], r["batch_size"]) == ("both", batch_size)]
        return found[0]["times_fp32"] if found else None

    return measure


TARGETS = (
    Target("ternary decode, compiled, batch 64 and more", 3, _decode("ternary", "compiled", 64)),
    Target("1-bit decode, compiled, batch 64 and more", 4, _decode("1 bit", "compiled", 64)),
    Target("ternary decode, torch alone (fast), batch 64 and more", 1, _decode("ternary", "torch, fast", 64)),
    Target("8-bit decode, torch alone (fast), batch 64 and more", 2, _decode("8 bits", "torch, fast", 64)),
    Target("encode and decode, ternary, batch 1", 10, _both(1)),
    Target("encode and decode, ternary, batch 64", 5, _both(64)),
    Target("encode and decode, ternary, batch 4096", 2, _both(4096)),
)
