"""``absorption_first_letter``: as SAEBench, where enough letters are known to the language model."""

from __future__ import annotations

from typing import Any

from qsae_saebench.document import Document, number
from qsae_saebench.results import Found

EVALUATION = "absorption"
LEAST_F1 = 0.6
"""Of the dense probe, for a letter to count; SAEBench's ``min_GT_probe_f1``."""
MEANS = (
    "mean_absorption_fraction_score",
    "mean_full_absorption_score",
    "mean_num_split_features",
    "std_dev_absorption_fraction_score",
    "std_dev_full_absorption_score",
    "std_dev_num_split_features",
)
COUNTS = ("num_full_absorption", "num_probe_true_positives", "num_split_features")
DEVIATION = {
    "words": "a sample of words (option `words`), in prompts that end with the word",
    "projections": "codes times the norms of decoder rows; SAEBench takes rows to be of unit norm",
    "probes": "begun at 0, seeded, in float64; a batch of a sparse probe is a sixteenth of the words at most",
}


def refusal(found: Found) -> str | None:
    """Why SAEBench would write nothing here; None where it would."""
    if number(found.result.values[MEANS[0]]) is not None:
        return None
    table = found.result.tables.get("not_applicable")
    return str(table.rows[0][0]) if table is not None and table.rows else "it has no value"


def absorption(found: Found) -> Document:
    """Of an evaluation against which ``refusal`` has nothing."""
    values, table = found.result.values, found.result.tables["letters"]
    letters = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    details = [_letter(row) for row in letters if float(row["probe_f1"] or 0) > LEAST_F1]
    config = {
        "random_seed": found.about["options"]["seed"],
        "min_GT_probe_f1": LEAST_F1,
    }
    metrics = {"mean": {name: number(values[name]) for name in MEANS}}
    return Document(
        "absorption_first_letter", "absorption", {EVALUATION: found}, metrics, details, config, DEVIATION
    )


def _letter(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "first_letter": row["letter"],
        "mean_absorption_fraction": row["mean_absorption_fraction"],
        "full_absorption_rate": row["full_absorption_rate"],
        **{name: row[name] for name in COUNTS},
    }
