"""``sparse_probing_sae_probes``: probes on the labelled prompts of sae-probes."""

from __future__ import annotations

from qsae_saebench.document import Document, number
from qsae_saebench.results import Found
from qsae_saebench.sparse_probing import KNOWN_K, tasks

EVALUATION = "sae-probes"
MEASURES = ("accuracy", "auc", "f1")
DEVIATION = {
    "dataset_names": "SAEBench's default is all 113 tasks, and its means are over these; here those of the "
    "option `tasks`",
    "examples": "a prompt that stands in a file several times counts once, unless the option `repeats` is "
    "given; sae-probes has such prompts in training and in test. At most `prompts` of a task are read, at "
    "most `context` tokens of each; there all, and 1024",
    "probes": "L2 penalty, on latents divided by their mean magnitude, and standardised vectors; SAEBench's "
    "default is L1 on latents as they are. Rows to choose C by are balanced",
    "random_seed": "draws other prompts than the same number does there",
    "sae_test_accuracy": "not measured, and left out",
}


def refusal(found: Found) -> str | None:
    """Why this cannot stand under sae-probes' name; None where it can."""
    if found.about["options"]["data"] is not None:
        return "its prompts are those of a folder of your own, and not those of the package sae-probes"
    return None


def sae_probes(found: Found) -> Document:
    """The means over tasks, and each task, of what ``refusal`` has nothing against."""
    options, values = found.about["options"], found.result.values
    ks = [k for k in options["k"] if k in KNOWN_K]
    metrics = {
        "llm": {f"llm_test_{name}": number(values[f"dense_{name}"]) for name in MEASURES},
        "sae": {
            f"sae_top_{k}_test_{name}": number(values[f"top_{k}_{name}"]) for k in ks for name in MEASURES
        },
    }
    details = tasks(found, ks, MEASURES)
    config = {
        "random_seed": options["seed"],
        "dataset_names": [row["dataset_name"] for row in details],
        "reg_type": "l2",
        "setting": "normal",
        "ks": ks,
        "binarize": False,
        "include_llm_baseline": True,
        "baseline_method": "logreg",
    }
    type_id = "sparse_probing_sae_probes"
    return Document(type_id, type_id, {EVALUATION: found}, metrics, details, config, DEVIATION)
