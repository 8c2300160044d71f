"""SAEBench's own programs on one SAE, with texts and a model that are here.

Nothing of SAEBench is replaced. It reads texts, those of this Python's own library, from folders that have
the names of data sets, and the model from one that is added to TransformerLens' list of names.
"""

from __future__ import annotations

import json
import pathlib
import sysconfig
from typing import Any

import sae_bench.evals.core.main as core
import sae_bench.evals.sparse_probing.main as sparse_probing
import transformer_lens.loading_from_pretrained as loading
from sae_lens import SAE

MODEL, TEXTS, LABELLED = "lm", "texts", "fancyzhx/ag_news"
"""Names of folders here; the last one is one of SAEBench's data sets, of four classes."""
PACKAGES = ("asyncio", "email", "unittest", "multiprocessing")
"""Of Python's library, in place of the four classes."""
CONTEXT, PROMPTS, SPLICED, MEASURED = 64, 8, 2, 4
"""Tokens of a prompt, prompts of a batch, and batches."""
Metrics = dict[str, float]


def write_texts() -> None:
    """One text for each module of the library, and passages labelled by their package."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    write(
        pathlib.Path(TEXTS) / "train.jsonl", [{"text": read(file)} for file in sorted(library.glob("*.py"))]
    )
    passages: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for label, package in enumerate(PACKAGES):
        for number, file in enumerate(sorted((library / package).rglob("*.py"))):
            text, split = read(file), "test" if number % 3 == 2 else "train"
            found = [text[at : at + 300] for at in range(0, len(text) - 300, 300)]
            passages[split] += [{"text": passage, "label": label} for passage in found]
    for split, rows in passages.items():
        write(pathlib.Path(LABELLED) / f"{split}.jsonl", rows)


def link_model(folder: pathlib.Path) -> None:
    """SAEBench makes folders of the model's name, so it is one below this."""
    pathlib.Path(MODEL).symlink_to(folder)
    loading.OFFICIAL_MODEL_NAMES.append(MODEL)


def read(file: pathlib.Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def write(file: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


# --- what it computes


def measure_core(name: str, sae: SAE) -> dict[str, Any]:
    """The file that ``core`` wrote."""
    core.multiple_evals(
        selected_saes=[(name, sae)],
        n_eval_reconstruction_batches=SPLICED,
        n_eval_sparsity_variance_batches=MEASURED,
        eval_batch_size_prompts=PROMPTS,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset=TEXTS,
        context_size=CONTEXT,
        output_folder="core",
        device="cpu",
    )
    return result(f"core/{name}_custom_sae_eval_results.json")


def measure_probing(name: str, sae: SAE) -> dict[str, Any]:
    """The file that ``sparse_probing`` wrote."""
    config = sparse_probing.SparseProbingEvalConfig(
        model_name=MODEL,
        dataset_names=[LABELLED],
        probe_train_set_size=400,
        probe_test_set_size=200,
        context_length=CONTEXT,
        llm_batch_size=32,
        llm_dtype="float32",
    )
    # each SAE's own activations: where they are there already, the seed of its probes is another
    place = f"artifacts/{name}"
    sparse_probing.run_eval(config, [(name, sae)], "cpu", "sparse_probing", artifacts_path=place)
    return result(f"sparse_probing/{name}_custom_sae_eval_results.json")


def result(file: str) -> dict[str, Any]:
    """SAEBench logs what fails, and goes on."""
    assert pathlib.Path(file).exists(), f"SAEBench wrote no {file}; why is in the log"
    found: dict[str, Any] = json.loads(pathlib.Path(file).read_text())
    return found


def numbers(found: dict[str, Any]) -> Metrics:
    """Every number that SAEBench measured: ``GROUP.METRIC``, and of each latent ``details.COLUMN``."""
    values = {
        f"{group}.{name}": value
        for group, metrics in found["eval_result_metrics"].items()
        for name, value in metrics.items()
        if value is not None
    }
    for row in found["eval_result_details"]:
        at = row.get("index", row.get("dataset_name"))
        values |= {f"{at}.{name}": value for name, value in row.items() if isinstance(value, float)}
    return values


def compare(ours: Metrics, theirs: Metrics, what: str, tolerance: float) -> float:
    """The largest difference, relative where values are above 1; fails above the tolerance."""
    assert ours.keys() == theirs.keys(), f"{what}: {ours.keys() ^ theirs.keys()}"
    differences = {name: abs(ours[name] - theirs[name]) / max(1.0, abs(theirs[name])) for name in ours}
    worst = max(differences, key=differences.__getitem__)
    assert differences[worst] <= tolerance, f"{what}: {worst}: {ours[worst]} and {theirs[worst]}"
    return differences[worst]
