"""What SAEBench 0.6.0's schemas ask of a result file: names and types, written down from its dataclasses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BASE = {
    "eval_type_id": str,
    "eval_config": dict,
    "eval_id": str,
    "datetime_epoch_millis": int,
    "eval_result_metrics": dict,
    "eval_result_details": list,
    "sae_bench_commit_hash": str,
    "sae_lens_id": str,
    "sae_lens_release_id": str,
    "sae_lens_version": None,
    "sae_cfg_dict": dict,
    "eval_result_unstructured": dict,
}
"""Of every file; None: null is allowed."""
METRICS: dict[str, dict[str, tuple[str, ...]]] = {
    "core": {
        "model_behavior_preservation": ("kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"),
        "model_performance_preservation": (
            *("ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae"),
        ),
        "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse", "cossim"),
        "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
        "sparsity": ("l0", "l1"),
        "token_stats": ("total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"),
        "misc_metrics": (
            *("freq_over_1_percent", "freq_over_10_percent"),
            *("normalized_freq_over_1_percent", "normalized_freq_over_10_percent"),
            *("average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim", "frac_alive"),
        ),
    },
    "absorption": {
        "mean": (
            *("mean_absorption_fraction_score", "mean_full_absorption_score", "mean_num_split_features"),
            *("std_dev_absorption_fraction_score", "std_dev_full_absorption_score"),
            "std_dev_num_split_features",
        )
    },
    "sparse_probing": {"llm": ("llm_test_accuracy",), "sae": ()},
    "sparse_probing_sae_probes": {"llm": (), "sae": ()},
}
"""Folder -> category -> metrics that have to be there."""
DETAILS = {
    "core": (
        *("index", "feature_density", "consistent_activation_heuristic", "encoder_bias", "encoder_norm"),
        *("encoder_decoder_cosine_sim", "max_decoder_cosine_sim", "max_encoder_cosine_sim"),
    ),
    "absorption": (
        *("first_letter", "mean_absorption_fraction", "full_absorption_rate", "num_full_absorption"),
        *("num_probe_true_positives", "num_split_features"),
    ),
    "sparse_probing": ("dataset_name", "llm_test_accuracy"),
    "sparse_probing_sae_probes": ("dataset_name",),
}
WHOLE = ("index", "total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance")
"""Numbers that have to be whole, and so does what begins with ``num_``."""
WORDS = ("first_letter", "dataset_name")


def faults(folder: str, content: dict[str, Any]) -> Iterator[str]:
    """In what a file is not as the schema asks; a null in a number's place is one."""
    for key, kind in BASE.items():
        if not (content[key] is None if kind is None else isinstance(content[key], kind)):
            yield key
    if content["eval_result_metrics"].keys() != METRICS[folder].keys():
        yield f"categories {sorted(content['eval_result_metrics'])}"
    for category, names in METRICS[folder].items():
        metrics = content["eval_result_metrics"][category]
        yield from _rows(f"{category}.", names, metrics)
        yield from (f"{category}.{name}" for name in metrics if not _fits(name, metrics[name]))
    for row in content["eval_result_details"]:
        yield from _rows("details.", DETAILS[folder], row)
        yield from (f"details.{name}" for name in row if not _fits(name, row[name]))


def _rows(where: str, names: tuple[str, ...], row: dict[str, Any]) -> Iterator[str]:
    yield from (f"{where}{name} is missing" for name in names if name not in row)


def _fits(name: str, value: Any) -> bool:
    if name in WORDS:
        return isinstance(value, str)
    if name.startswith("sae_top_") and value is None:
        return True
    whole = name in WHOLE or name.startswith("num_")
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)
