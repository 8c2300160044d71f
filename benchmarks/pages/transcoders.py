"""docs/quality-transcoders.md from the results of ``quality-transcoder-KIND``, ``step-transcoder`` and
``step-cross-layer``."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import cross_layer_step, quality_transcoders, transcoder_step
from benchmarks.contenders import OTHER_SEEDS
from benchmarks.pages import cross_layer
from benchmarks.pages.page import measured, write
from benchmarks.pages.quality import (
    best_peer,
    change_table,
    contender_table,
    own_best,
    seed_table,
    verdict,
)
from benchmarks.pages.quality_text import DATA
from benchmarks.pages.records import best_of, failures, sizes
from benchmarks.pages.tables import count, percent, ratio, table
from benchmarks.quality_transcoders import MULTIPLES, with_skip
from benchmarks.settings import Settings
from benchmarks.training_step import error, products, tokens_per_second, working

Result = dict[str, Any]
Record = dict[str, Any]
STEPS = (transcoder_step.NAME, cross_layer_step.NAME)
NAMES = (*quality_transcoders.NAMES.values(), *STEPS)
SKIPS = {False: "without a skip connection", True: "with a skip connection"}
INTRODUCTION = """\
# Quality of transcoders

[quality.md](quality.md) asks of SAEs, and this page of transcoders: is what qsae trains as good as what the
library that people use for it trains? Both sides read what an MLP of a language model reads, predict what it
gives, and are measured alike, on documents that nobody trains on; how is said there. FVU is that of the MLP's
output: sum ||y - y_hat||^2 / sum ||y - mean||^2.
"""
_RATES = ", ".join(map(str, MULTIPLES))
SETTINGS = f"""\
qsae has its defaults and its automatic rate. sparsify has no scaling; its encoder's biases begin at -W_enc
mean(x), its decoder at zero, `b_dec` at mean(y), as its trainer has it, and the rate falls to zero from a
warm-up of 5% on: {_RATES} times 2e-4 / sqrt(F / 2^14), its own for long runs. A `matryoshka-transcoder`
is also three smaller ones (1/16, 3/16 and 7/16 of its latents), and its loss asks for all of them.
How the latents of qsae's transcoders begin, and how fast their biases learn, was chosen in trials on the
text of the standard library, of which `code` is made. Nothing was tuned to `news` and `talk`.
"""


MEMORY = """\
*Memory kept*: huge pages where they can be had, and glibc keeps what is freed. `qsae train` sees to that by
itself; sparsify is measured as it comes too, and **x sparsify** is against the faster of the two.
"""


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without any result."""
    results = measured(NAMES, settings)
    if not results:
        return None
    step, layers = (results.get(name) for name in STEPS)
    states = [result for name, result in results.items() if name not in STEPS]
    sections = [INTRODUCTION]
    sections += [summary(states), *map(states_section, states), SETTINGS] if states else []
    sections += [step_section(step)] if step is not None else []
    sections += [cross_layer.section(layers)] if layers is not None else []
    timed = step is not None or layers is not None
    return write(page, results, sections, wanted=NAMES, data=DATA, timed=timed)


def summary(results: list[Result]) -> str:
    """qsae's ``transcoder`` at its own rate beside sparsify's best, a line for each text and skip."""
    rows = []
    for result in results:
        for skip, how in SKIPS.items():
            records = _plain(result, skip)
            own, peer = own_best(records), best_peer(records)
            row = [f"{result['title']}: {result['kind']}, {how}"]
            row += ["-", "-"] if own is None else [f"{own['fvu']:.4f}", percent(own["dead"], 1)]
            if peer is None:
                rows.append([*row, "-", "-", "-", "-"])
                continue
            found = best_of(peer)
            points = "-" if own is None else f"{100 * (own['fvu'] - found['fvu']):+.2f}"
            row += [f"{found['fvu']:.4f}", percent(found["dead"], 1), points]
            rows.append([*row, f"{peer['kind']}, {found['label']}"])
    columns = ["states", "qsae: FVU", "dead", "sparsify: FVU", "dead", "points", "which"]
    return "\n".join(["## Beside sparsify\n", table(columns, rows), ""])


def states_section(result: Result) -> str:
    """Verdict, contenders and seeds, without and with a skip connection."""
    parts = [f"## {result['title']}: {result['kind']}\n", f"{sizes(result)}\n"]
    for skip, how in SKIPS.items():
        plain = _plain(result, skip)
        seeds = [r for r in result["contenders"] if r["kind"].endswith(OTHER_SEEDS) and _skips(r) == skip]
        parts += [f"### {how.capitalize()}\n", verdict(plain), contender_table(plain), ""]
        parts += [failures(plain), seed_table(plain, seeds), ""]
        own = next((record for record in plain if record["library"] == "qsae"), None)
        if own is not None:
            others = [
                r for r in result["contenders"] if not r["plain"] and r not in seeds and _skips(r) == skip
            ]
            parts += [change_table(own, others), ""] if others else []
            parts.append(f"`{own['attempts'][0]['command']}`\n")
    return "\n".join(part for part in parts if part is not None)


def step_section(result: Result) -> str:
    """Speed of every side, and how many times sparsify's with the same skip connection."""
    (shape,) = result["shapes"]
    rows = []
    for record in shape["sides"]:
        what = [record["library"], record["what"]]
        if (reason := error(record)) is not None:
            rows.append([*what, reason, "-", "-"])
            continue
        speed = tokens_per_second(record, shape["batch_size"])
        peers = [r for r in working(shape, "sparsify") if r["options"]["skip"] == record["options"]["skip"]]
        times = speed / tokens_per_second(peers[0], shape["batch_size"]) if peers else None
        rows.append([*what, count(speed), ratio(times), ratio(products(record))])
    columns = ["library", "side", "tokens/s", "x sparsify", "steps / product"]
    title = f"B={shape['batch_size']}, d={shape['d']}, F={shape['n_latents']}, k={shape['k']}; medians."
    return "\n".join(["## Training step\n", f"{title}\n", table(columns, rows, texts=2), "", MEMORY])


def _plain(result: Result, skip: bool) -> list[Record]:
    return [record for record in result["contenders"] if record["plain"] and _skips(record) == skip]


def _skips(record: Record) -> bool:
    return with_skip(record["kind"])
