"""``sparse_probing``: accuracies of probes, on qsae's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qsae_saebench.document import Document, number
from qsae_saebench.results import Found

EVALUATION = "sparse-probing"
KNOWN_K = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of latents for which SAEBench's files have a place."""
DEVIATION = {
    "tasks": "properties of tokens of Python source, which are computed; SAEBench has texts of eight data "
    "sets. Compare with coders that qsae measured on the same text, not with published numbers",
    "examples": "single tokens; SAEBench averages codes over a text",
    "probes": "latents are scaled before they are ranked, C is chosen on a validation part, parts are whole "
    "documents; SAEBench chooses the dense probe's best epoch on its test part",
    "sae_test_accuracy, llm_top_k_test_accuracy": "not measured, and left out",
}


def sparse_probing(found: Found) -> Document:
    """The means over tasks, and each task."""
    values, ks = found.result.values, [k for k in found.about["options"]["k"] if k in KNOWN_K]
    metrics = {
        "llm": {"llm_test_accuracy": number(values["dense_accuracy"])},
        "sae": {f"sae_top_{k}_test_accuracy": number(values[f"top_{k}_accuracy"]) for k in ks},
    }
    config = {
        "random_seed": found.about["options"]["seed"],
        "k_values": ks,
    }
    details = tasks(found, ks, ["accuracy"], "python-source/")
    config["dataset_names"] = [row["dataset_name"] for row in details]
    return Document(
        "sparse_probing", "sparse_probing", {EVALUATION: found}, metrics, details, config, DEVIATION
    )


def tasks(found: Found, ks: Sequence[int], measures: Sequence[str], source: str = "") -> list[dict[str, Any]]:
    """A row for each task that was measured; without those of which there were too few examples.

    Args:
        measures: names that probes' numbers have here and there.
        source: what stands before the names of tasks.
    """
    table = found.result.tables["tasks"]
    rows: dict[Any, dict[str, Any]] = {}
    for cells in table.rows:
        row = dict(zip(table.columns, cells, strict=True))
        if row["dense_accuracy"] is None:
            continue
        of_vectors = {f"llm_test_{name}": row[f"dense_{name}"] for name in measures}
        task = rows.setdefault(row["task"], {"dataset_name": f"{source}{row['task']}", **of_vectors})
        if row["k"] in ks:
            task |= {f"sae_top_{row['k']}_test_{name}": row[name] for name in measures}
    return list(rows.values())
