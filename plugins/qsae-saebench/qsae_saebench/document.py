"""What is alike in all of SAEBench's result files."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import qsae_core
from qsae_core.runs import coder_label, quantizers_of, read_json, stored_description
from qsae_saebench.results import Found, Stored

if TYPE_CHECKING:
    from torch import Tensor

SAEBENCH = "0.6.0"
"""Whose layout it is."""
NAMES = {"vanilla": "standard", "batchtopk": "batch_topk"}
"""Coders of which SAEBench has another word; its plots have a marker for each."""
HOOKED = ("resid_pre", "resid_mid", "resid_post")
"""Sites that TransformerLens, whose names SAEBench takes, calls the same."""

Metrics = Mapping[str, Mapping[str, float | int | None]]
"""Category -> metric -> value; null where it is not defined or was not measured."""


@dataclass(frozen=True)
class Document:
    """One result file, without what is the same for every evaluation.

    Attributes:
        type_id: what SAEBench calls the evaluation.
        folder: the one that its plots look for.
        found: evaluation -> what it is made of.
        metrics: by category.
        details: flat rows.
        config: what of SAEBench's options there is an answer to.
        deviation: metric, or several -> in what it is not SAEBench's.
    """

    type_id: str
    folder: str
    found: Mapping[str, Found]
    metrics: Metrics
    details: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    deviation: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The language model that it was measured with."""
        return str(next(iter(self.found.values())).about["model"])

    def undefined(self) -> list[str]:
        """``CATEGORY.METRIC`` of each metric that is null; ``details.COLUMN`` of each column that is null in
        every row."""
        names = [
            f"{c}.{name}" for c, values in self.metrics.items() for name, v in values.items() if v is None
        ]
        columns = list(self.details[0]) if self.details else []
        empty = [column for column in columns if all(row[column] is None for row in self.details)]
        return names + [f"details.{column}" for column in empty]

    def content(self, stored: Stored, architecture: str | None) -> dict[str, Any]:
        """The whole file."""
        millis = max(found.millis for found in self.found.values())
        return {
            "eval_type_id": self.type_id,
            "eval_config": {"model_name": self.model, **self.config},
            "eval_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.type_id}/{stored.file_name}/{millis}")),
            "datetime_epoch_millis": millis,
            "eval_result_metrics": {category: dict(values) for category, values in self.metrics.items()},
            "eval_result_details": [dict(row) for row in self.details],
            "sae_bench_commit_hash": f"none; qsae {qsae_core.__version__}, layout of SAEBench {SAEBENCH}",
            "sae_lens_id": stored.id,
            "sae_lens_release_id": stored.release,
            "sae_lens_version": None,
            "sae_cfg_dict": sae_config(stored, self.model, architecture),
            "eval_result_unstructured": {
                "qsae_deviation": dict(self.deviation),
                "qsae_undefined": self.undefined(),
                "qsae_evaluations": {name: dict(_about(found)) for name, found in self.found.items()},
            },
        }


def _about(found: Found) -> Iterator[tuple[str, Any]]:
    for key in ("version", "options", "plugin", "measured"):
        yield key, found.about[key]
    for key in ("uncertainty", "chance", "baseline"):
        yield key, {name: number(value) for name, value in getattr(found.result, key).items()}


def number(value: float | None) -> float | None:
    """A value, or None where there is none: JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def column(found: Found, name: str) -> list[float | None] | None:
    """A column with a value per latent; None where it was not stored."""
    stored: Tensor | None = found.result.per_latent.get(name)
    return None if stored is None else [number(value) for value in stored.tolist()]


def sae_config(stored: Stored, model: str, architecture: str | None) -> dict[str, Any]:
    """What SAEBench knows of an SAE by SAELens' names, and all that qsae does."""
    description = stored_description(stored.artifact)
    config, source, shape = description["config"], description.get("source") or {}, description["shape"]
    coder = config.get("sae") or config["transcoder"]
    found = {
        "architecture": architecture or architecture_of(config),
        "model_name": model,
        "d_in": shape["d_in"],
        "d_sae": coder["n_latents"],
        **_place(source.get("source_sites") or []),
        "context_size": source.get("context"),
        "dataset_path": source.get("text"),
        "dtype": "float32",
        "qsae": config,
    }
    if stored.run is not None and stored.run.metrics_file.exists():
        summary = read_json(stored.run.metrics_file)
        found |= {"training_tokens": summary["tokens"]} if "tokens" in summary else {}
    return found


def _place(sites: Sequence[str]) -> dict[str, Any]:
    """Of the site that it reads; ``2.resid_post`` is ``blocks.2.hook_resid_post``."""
    if not sites:  # of a coder that came without a record of its data
        return {"hook_layer": None, "hook_name": None}
    layer, _, site = sites[0].partition(".")
    return {
        "hook_layer": int(layer),
        "hook_name": f"blocks.{layer}.hook_{site}" if site in HOOKED else sites[0],
    }


def architecture_of(config: Mapping[str, Any]) -> str:
    """SAEBench's word for a coder, where it has one, and what quantizes it: ``batch_topk (ste)``."""
    coder = config.get("sae") or config["transcoder"]
    name = NAMES.get(coder["use"], coder["use"])
    if name == "matryoshka" and config["sparsity"]["use"] == "batchtopk":
        name = "matryoshka_batch_topk"
    return coder_label(name, quantizers_of(config)).removesuffix(" (none)")
