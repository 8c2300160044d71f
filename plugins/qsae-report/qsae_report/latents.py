"""What a page holds of every latent, as arrays that it unpacks. Shapes: F latents, C columns, E examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qsae_samples import FULL, unpacked

from qsae_report.differences import of_samples
from qsae_report.labels import labels
from qsae_report.payload import Block, block, value_block

if TYPE_CHECKING:
    from qsae_samples import Samples

    from qsae_report.neighbours import Counterparts, Neighbours
    from qsae_report.subject import Coder, Subject

Array = NDArray[Any]
OF_OTHERS = 5
"""Strongest examples that are shown of a counterpart in another coder."""
ROWS = 10_000
"""Rows of an evaluation's table that a page holds; where there are more, it says so."""


def columns(coder: Coder, n_latents: int) -> tuple[list[tuple[str, str]], NDArray[np.float32]]:
    """Evaluation and name of every column per latent, and float32 ``[C, F]``; NaN where it is not defined."""
    names, found = [], []
    for stored in coder.evaluations.values():
        for name, tensor in sorted((stored.result.per_latent if stored.result else {}).items()):
            if len(tensor) == n_latents:
                names.append((stored.name, name))
                found.append(tensor.numpy().astype(np.float32))
    return names, np.stack(found) if found else np.zeros((0, n_latents), dtype=np.float32)


def about(subject: Subject, n_latents: int, beside: Mapping[str, Counterparts]) -> dict[str, Any]:
    """JSON values that a page needs at once."""
    samples = subject.coder.samples
    names, _ = columns(subject.coder, n_latents)
    return {
        "latents": n_latents,
        "samples": None if samples is None else {"tokens": samples.n_tokens, **samples.about},
        "columns": [list(name) for name in names],
        "labels": [list(label) for label in labels(subject.coder.evaluations, n_latents)],
        "others": [
            _other(subject, coder, beside[coder.name]) for coder in subject.beside if coder.name in beside
        ],
    }


def _other(subject: Subject, coder: Coder, found: Counterparts) -> dict[str, Any]:
    return {
        "name": coder.name,
        "latents": len(found.back),
        "samples": None if coder.samples is None else {"tokens": coder.samples.n_tokens},
        "differs": of_samples(subject, coder),
    }


def blocks(
    subject: Subject, n_latents: int, near: Neighbours | None, beside: Mapping[str, Counterparts]
) -> list[Block]:
    """Everything that a page unpacks after it has been shown."""
    _, values = columns(subject.coder, n_latents)
    found = [block("columns", {"values": values})]
    samples = subject.coder.samples
    if samples is not None:
        found += [*_of_samples("", samples), _numbers(samples), *_logits(samples)]
    if near is not None:
        similar = {"nearest": near.which, "nearest_cosine": near.cosines}
        found.append(block("nearest", similar))
    for number, coder in enumerate(c for c in subject.beside if c.name in beside):
        partners = beside[coder.name]
        found.append(block(f"other-{number}", {"which": partners.which, "cosine": partners.cosines}))
        if coder.samples is not None:
            found += _of_samples(f"other-{number}-", coder.samples, at_most=OF_OTHERS)
    return found


def _numbers(samples: Samples) -> Block:
    """What is known of each latent beside its examples."""
    a = samples.arrays
    return block(
        "latents",
        {
            "count": a["count"].astype(np.float64),
            "mean": a["mean"],
            "largest": a["largest"],
            "histogram": a["histogram"],
            "histogram_top": a["histogram_top"],
            "group_floor": a["group_floor"],
            "cofiring": a["cofiring_latent"],
            "cofiring_share": a["cofiring_share"],
        },
    )


def _of_samples(prefix: str, samples: Samples, at_most: int | None = None) -> list[Block]:
    """Examples, and the text that they are windows of.

    Args:
        at_most: of each latent the strongest so many alone.
    """
    a = samples.arrays
    kept = np.ones(len(a["example_group"]), dtype=bool) if at_most is None else _strongest(samples, at_most)
    entries = np.repeat(kept, a["example_active"])
    offsets = np.concatenate([[0], np.cumsum(kept)])[a["example_offsets"]]
    of_examples = {
        name: a[f"example_{name}"][kept] for name in ("group", "start", "length", "peak", "active")
    }
    examples = {
        "offsets": offsets.astype(np.uint32),
        **of_examples,
        "at": a["active_at"][entries],
        "value": a["active_value"][entries],
        "unit": (a["largest"] / np.float32(FULL)).astype(np.float32),
    }
    text = {
        "tokens": a["tokens"],
        "stretch_start": a["stretch_start"],
        "stretch_document": a["stretch_document"],
        "stretch_context": a["stretch_context"],
        "stretch_position": a["stretch_position"],
    }
    return [
        block(f"{prefix}examples", examples),
        block(f"{prefix}text", text),
        value_block(f"{prefix}pieces", _texts(a, "vocabulary")),
    ]


def _strongest(samples: Samples, at_most: int) -> NDArray[np.bool_]:
    """bool ``[E]``: examples of the strongest group, the first so many of each latent."""
    offsets = samples.arrays["example_offsets"]
    rank = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    kept: NDArray[np.bool_] = (samples.arrays["example_group"] == 0) & (rank < at_most)
    return kept


def _texts(arrays: Mapping[str, Array], name: str) -> dict[str, Any]:
    """The text of each token of a table, and the bytes of those that are a part of a character, as
    ``\\xe2\\x80``; files of before do not have these."""
    stored = arrays.get(f"{name}_bytes")
    parts = [] if stored is None else unpacked(stored)
    spelled = {number: _escaped(bytes.fromhex(raw)) for number, raw in enumerate(parts) if raw}
    return {"texts": unpacked(arrays[f"{name}_text"]), "bytes": spelled}


def _escaped(raw: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in raw)


def _logits(samples: Samples) -> list[Block]:
    """Raised and lowered tokens, where there are any."""
    a = samples.arrays
    if "logit_token" not in a:
        return []
    return [
        block("logits", {"token": a["logit_token"], "value": a["logit_value"]}),
        value_block("logit-texts", _texts(a, "logit")),
    ]


def tables(coder: Coder) -> dict[str, dict[str, Any]]:
    """Evaluation -> table -> ``columns``, ``rows`` (``ROWS`` at most) and ``total``."""
    return {
        stored.name: {
            name: {
                "columns": table.columns,
                "rows": [list(row) for row in table.rows[:ROWS]],
                "total": len(table.rows),
            }
            for name, table in stored.result.tables.items()
        }
        for stored in coder.evaluations.values()
        if stored.result is not None
    }
