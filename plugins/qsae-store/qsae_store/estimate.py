"""What a harvest will take, from a little of it."""

from __future__ import annotations

import pathlib
import shutil
import time
from typing import Any

from qsae_core.contracts import DataSource
from qsae_core.errors import DataError
from qsae_store.manifest import Plan
from qsae_store.shards import BLOCK
from qsae_store.storage import bytes_per_vector
from qsae_store.vectors import read_shard

PASSES = 3
"""Forward passes that are timed, behind one that is not."""
_TOKENS, _CONTEXTS = 4 * 4, 4 + 4 + 1
"""Bytes of a vector's row of ``tokens``; and of a position's token id, document and mark."""


def measure(source: DataSource, plan: Plan, out: pathlib.Path | None) -> dict[str, Any]:
    """Bytes, seconds and what they are made of.

    Args:
        out: where the store is to be; None: not on this disk.

    Raises:
        DataError: if the text has not one full context.
    """
    model = source.language_model()
    assert model is not None
    length = next(iter(source.contexts(1)))[0].ids.shape[1]
    at_once = max(1, model.forward_positions // length)
    stream = source.contexts(at_once)
    read_shard(model, next(stream)[0], plan, "training", 0, 0)  # the first pass has costs of its own
    started, vectors, positions = time.monotonic(), 0, 0
    for contexts, _ in (part for part, _ in zip(stream, range(PASSES), strict=False)):
        read_shard(model, contexts, plan, "training", 0, 0)
        vectors, positions = vectors + int(contexts.counted.sum()), positions + contexts.counted.numel()
    seconds = time.monotonic() - started
    share = vectors / positions if positions else 1.0
    known = [tokens for tokens in (plan.tokens, source.training_tokens) if tokens is not None]
    wanted = min(known, default=None)
    per_token = _TOKENS + _CONTEXTS / share
    per_token += sum(bytes_per_vector(plan.storage, place.width) + 8 / BLOCK for place in plan.places)
    total = None if wanted is None else wanted + plan.held_out_tokens
    if total is None:
        raise DataError("how much text there is is not known", next="give --tokens")
    rate = vectors / seconds if vectors else 0.0
    return {
        "vectors": wanted,
        "held_out_vectors": plan.held_out_tokens,
        "bytes_per_token": round(per_token),
        "bytes": round(per_token * total),
        "free": None if out is None else shutil.disk_usage(_existing(out)).free,
        "tokens_per_second": rate,
        "seconds": total / rate if rate else 0.0,
    }


def _existing(path: pathlib.Path) -> pathlib.Path:
    path = path.expanduser().absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
