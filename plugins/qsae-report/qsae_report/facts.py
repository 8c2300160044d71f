"""What a report is of, in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from qsae_report import words
from qsae_report.subject import Subject


def subtitle(subject: Subject) -> str:
    """``builtin · 2.resid_post · 300 steps · 30 November 2026``."""
    source = subject.description.get("source", {})
    steps = subject.coder.trained.get("steps")
    when = _day(subject.record.get("completed_at") or subject.record.get("started_at"))
    parts = [source.get("model"), _sites(source), f"{steps:,} steps" if steps else None, when]
    return " · ".join(str(part) for part in parts if part)


def facts(subject: Subject, n_latents: int) -> list[tuple[str, str]]:
    """Name and value of what identifies the coder and what it was trained and sampled on."""
    found = [*_of_coder(subject, n_latents), *_of_training(subject), *_of_samples(subject)]
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def _of_coder(subject: Subject, n_latents: int) -> Iterator[tuple[str, Any]]:
    config = subject.description["config"]
    yield "coder", subject.coder.name
    yield "where", str(subject.coder.folder)
    if subject.layer is not None:
        yield "layer", subject.layer
        others = ", ".join(subject.other_layers)
        yield "other layers", f"{others}; a report of one: qsae report {subject.path} --layer NAME"
    yield "latents", words.number(n_latents)
    sparsity = config.get("sparsity", {})
    yield "sparsity", _said(sparsity)
    for coder in subject.beside:
        yield "beside it", f"{coder.name} ({coder.folder})"


def _said(component: dict[str, Any]) -> str:
    """``topk, k 32``."""
    options = [f"{key} {value}" for key, value in component.items() if key != "use" and value is not None]
    return ", ".join([str(component.get("use", "")), *options])


def _of_training(subject: Subject) -> Iterator[tuple[str, Any]]:
    source = subject.description.get("source", {})
    yield "language model", source.get("model")
    yield "vectors", _sites(source)
    yield "text", source.get("text")
    yield "seed", subject.record.get("run", {}).get("seed")
    seconds = subject.coder.trained.get("training_seconds")
    yield "training time", None if seconds is None else f"{words.number(round(seconds))} s"
    yield "finished", subject.record.get("completed_at")
    commit = (subject.record.get("git") or {}).get("commit")
    yield "commit", commit


def _of_samples(subject: Subject) -> Iterator[tuple[str, Any]]:
    samples = subject.coder.samples
    if samples is None:
        yield "samples", f"none; qsae samples {subject.path} collects them"
        return
    about = samples.about
    left_out = [
        f"{about[key]:,} {name}"
        for key, name in (("n_special", "special"), ("n_skipped", "first"))
        if about.get(key)
    ]
    text = f"{samples.n_tokens:,} tokens of {about.get('measured', 'text')}"
    yield "samples", text + (f"; left out: {' and '.join(left_out)} tokens" if left_out else "")


def _sites(source: dict[str, Any]) -> str | None:
    read, written = source.get("source_sites"), source.get("target_sites")
    if not read:
        layer = source.get("layer")
        return None if layer is None else f"layer {layer}"
    here, there = ", ".join(read), ", ".join(written or read)
    return here if here == there else f"{here} → {there}"


def _day(text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    when = datetime.fromisoformat(text)
    return f"{when.day} {when:%B %Y}"
