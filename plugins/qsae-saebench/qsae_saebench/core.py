"""``core``: reconstruction, what the language model loses, sparsity, and every latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qsae_saebench.document import Document, column, number
from qsae_saebench.results import Found, Stored
from qsae_saebench.weights import encoder_columns

NEEDED = ("reconstruction", "loss-recovered", "sparsity", "similarity")
CATEGORIES: dict[str, dict[str, tuple[str, str]]] = {
    "model_performance_preservation": {
        "ce_loss_score": ("loss-recovered", "ce_recovered"),
        "ce_loss_with_ablation": ("loss-recovered", "ce_zero"),
        "ce_loss_with_sae": ("loss-recovered", "ce_sae"),
        "ce_loss_without_sae": ("loss-recovered", "ce_clean"),
    },
    "reconstruction_quality": {
        "explained_variance": ("reconstruction", "explained_variance"),
        "explained_variance_legacy": ("reconstruction", "explained_variance_legacy"),
        "mse": ("reconstruction", "mse"),
        "cossim": ("reconstruction", "cosine"),
    },
    "shrinkage": {
        "l2_norm_in": ("reconstruction", "l2_norm_in"),
        "l2_norm_out": ("reconstruction", "l2_norm_out"),
        "l2_ratio": ("reconstruction", "l2_ratio"),
        "relative_reconstruction_bias": ("reconstruction", "relative_reconstruction_bias"),
    },
    "sparsity": {"l0": ("sparsity", "l0"), "l1": ("sparsity", "l1")},
}
"""Category -> metric -> the evaluation, and its value, that it is."""
COMPUTED = ("kl", "ce_loss", "l2_norms", "sparsity_metrics", "variance_metrics")
PER_LATENT = ("featurewise_density_statistics", "featurewise_weight_based_metrics")
CONFIG = {
    **{f"compute_{name}": True for name in (*COMPUTED, *PER_LATENT)},
    "exclude_special_tokens_from_reconstruction": True,
}
"""Options of SAEBench's evaluation that describe this one."""
DEVIATION = {
    "explained_variance": "1 - sum ||r||^2 / sum ||x - mean x||^2 over all vectors; SAEBench divides by "
    "S - (S/d)^2 with S = E||x||^2, which is not centred and depends on the unit of x",
    "explained_variance_legacy": "with batches of qsae's size; only with the option `legacy` of the metric "
    "reconstruction",
    "mse": "E||r||^2; SAEBench divides once more by the number of vectors in a batch",
    "relative_reconstruction_bias": "a ratio of sums over all vectors; SAEBench averages those of batches",
    "l1": "mean of sum_j |f_j| ||w_j||; SAEBench's is the signed sum of f_j",
    "feature_density, freq_over_*, normalized_freq_over_*, frac_alive": "a latent fires where f != 0; in "
    "SAEBench where f > 0, though its l0 counts f != 0",
    "ce_loss_*, kl_div_*": "vectors are replaced, and set to zero, where no special token is, and "
    "predictions are scored between such positions; SAEBench zeroes those of special tokens too, which makes "
    "the damage of the ablation larger",
    "total_tokens_*": "tokens that were counted; SAEBench counts ignored ones too",
    "encoder_bias, encoder_norm": "of the encoder over the data's own vectors, with normalisation and "
    "rotation folded in; null for coders that have no such form",
    "consistent_activation_heuristic": "not measured",
    "eval_config.dataset": "the text that qsae measured on, in qsae_evaluations",
}


def core(stored: Stored, others: Sequence[str] = ()) -> Document:
    """Of a coder of which ``NEEDED`` is stored.

    Raises:
        ArtifactError: if one of these is not.
    """
    found = stored.need(NEEDED, others)
    metrics = {"model_behavior_preservation": _divergence(found["loss-recovered"])}
    for category, names in CATEGORIES.items():
        metrics[category] = {
            name: number(found[evaluation].result.values.get(value))
            for name, (evaluation, value) in names.items()
        }
    details = _latents(stored, found)
    metrics["token_stats"] = {
        "total_tokens_eval_reconstruction": _count(found["loss-recovered"]),
        "total_tokens_eval_sparsity_variance": _count(found["sparsity"]),
    }
    metrics["misc_metrics"] = _misc(found, details)
    return Document("core", "core", found, metrics, details, CONFIG, DEVIATION)


def _divergence(found: Found) -> dict[str, float | None]:
    with_zeros, with_sae = (number(found.result.values[name]) for name in ("kl_zero", "kl"))
    score = None
    if with_zeros is not None and with_zeros > 0 and with_sae is not None:
        score = (with_zeros - with_sae) / with_zeros
    return {
        "kl_div_score": score,
        "kl_div_with_ablation": with_zeros,
        "kl_div_with_sae": with_sae,
    }


def _misc(found: dict[str, Found], details: list[dict[str, Any]]) -> dict[str, float | None]:
    sparsity, similarity = found["sparsity"].result.values, found["similarity"].result.values
    dead = number(sparsity["dead_fraction"])
    cosines = [row["max_encoder_cosine_sim"] for row in details]
    defined = [cosine for cosine in cosines if cosine is not None]
    return {
        "freq_over_1_percent": number(sparsity["density_over_1pct"]),
        "freq_over_10_percent": number(sparsity["density_over_10pct"]),
        "normalized_freq_over_1_percent": number(sparsity["normalized_density_over_1pct"]),
        "normalized_freq_over_10_percent": number(sparsity["normalized_density_over_10pct"]),
        "average_max_encoder_cosine_sim": sum(defined) / len(defined) if defined else None,
        "average_max_decoder_cosine_sim": number(similarity["average_max_decoder_cosine_sim"]),
        "frac_alive": None if dead is None else 1 - dead,
    }


def _latents(stored: Stored, found: dict[str, Found]) -> list[dict[str, Any]]:
    """A row for each latent."""
    density = column(found["sparsity"], "density")
    assert density is not None  # which that evaluation always stores
    nothing: list[float | None] = [None] * len(density)
    encoder = encoder_columns(stored.artifact)
    columns = {
        "feature_density": density,
        "consistent_activation_heuristic": nothing,
        "encoder_bias": encoder.bias if encoder else nothing,
        "encoder_norm": encoder.norm if encoder else nothing,
        "encoder_decoder_cosine_sim": column(found["similarity"], "encoder_decoder_cosine") or nothing,
        "max_decoder_cosine_sim": column(found["similarity"], "nearest_cosine") or nothing,
        "max_encoder_cosine_sim": encoder.max_cosine if encoder else nothing,
    }
    return [
        {"index": index, **dict(zip(columns, row, strict=True))}
        for index, row in enumerate(zip(*columns.values(), strict=True))
    ]


def _count(found: Found) -> int:
    return int(found.result.values["n_tokens"] or 0)
