"""docs/evaluation-speed.md: core numbers of an SAE beside SAEBench's, all of them from the JSON file."""

from __future__ import annotations

import pathlib
from statistics import median
from typing import Any

from benchmarks import evaluation
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, table
from benchmarks.settings import Settings

Result = dict[str, Any]
SAME = (
    ("ce_loss_without_sae", "loss-recovered", "ce_clean"),
    ("ce_loss_with_sae", "loss-recovered", "ce_sae"),
    ("ce_loss_with_ablation", "loss-recovered", "ce_zero"),
    ("ce_loss_score", "loss-recovered", "ce_recovered"),
    ("kl_div_with_sae", "loss-recovered", "kl"),
    ("kl_div_with_ablation", "loss-recovered", "kl_zero"),
    ("l0", "reconstruction", "l0"),
    ("cossim", "reconstruction", "cosine"),
    ("l2_ratio", "reconstruction", "l2_ratio"),
    ("relative_reconstruction_bias", "reconstruction", "relative_reconstruction_bias"),
    ("explained_variance", "reconstruction", "explained_variance"),
)
"""Name there; evaluation and name here."""


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    results = measured([evaluation.NAME], settings)
    if evaluation.NAME not in results:
        return None
    return write(page, results, [_text(results[evaluation.NAME])])


def _text(result: Result) -> str:
    models = "\n".join(_of_model(found) for found in result["models"])
    return f"""\
# How long an evaluation takes

    qsae evaluate RUN --eval reconstruction --eval loss-recovered --eval sparsity --eval similarity

and SAEBench's `core` with everything that it computes, of one TopK SAE (F={count(result["n_latents"])},
k={result["k"]}): reconstruction, sparsity and cosines over {count(result["tokens"])} tokens, losses with the
SAE in place over {count(result["spliced_tokens"])} of them. Same model in float32, matrices, contexts and
threads, timed from when all of it is loaded; the sides take turns. Where the language model is large beside
the SAE, both wait for its passes most of the time: three over the spliced tokens there; four here, one of
them for the loss with means in place, which share the layers before the SAE.
{models}"""


def _of_model(found: Result) -> str:
    rounds = found["rounds"]
    ours, theirs = ([r[side] for r in rounds] for side in ("qsae", "SAEBench"))
    return f"""
## {found["model"]}, layer {found["layer"]}

{count(found["contexts"])} contexts, {len(rounds)} round(s).

{_times(ours, theirs)}

{_values(ours, theirs)}
"""


def _times(ours: list[Result], theirs: list[Result]) -> str:
    own = _seconds(ours)
    rows = [["qsae", f"{own:.1f}", "", _memory(ours)]]
    if any("error" in record for record in theirs):
        reason = next(record["error"] for record in theirs if "error" in record)
        return table(["", "seconds", "", "memory"], rows) + f"\n\n* SAEBench: failed: {reason}"
    version, its = theirs[0]["version"], _seconds(theirs)
    rows.append([f"SAEBench {version}", f"{its:.1f}", f"{its / own:.1f} times as long", _memory(theirs)])
    return table(["median of the rounds", "seconds", "", "memory"], rows)


def _seconds(records: list[Result]) -> float:
    return median(record["seconds"] for record in records)


def _memory(records: list[Result]) -> str:
    return f"{max(record['peak_bytes'] for record in records) / 1e9:.1f} GB"


def _values(ours: list[Result], theirs: list[Result]) -> str:
    if "values" not in theirs[0]:
        return ""
    here, there = ours[0]["values"], theirs[0]["values"]
    rows = [
        [own if own == other else f"{own} ({other})", f"{here[name][own]:.5g}", f"{there[other]:.5g}"]
        for other, name, own in SAME
    ]
    text = """
What both compute. SAEBench's explained variance subtracts no mean; its losses with zeros are of zeros at
special tokens too, and count predictions by the token that is read, where qsae counts them by the one that is
predicted."""
    return text.strip() + "\n\n" + table(["here (there)", "qsae", "SAEBench"], rows)
