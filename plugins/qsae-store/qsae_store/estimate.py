"""What a harvest will take, from a little of it."""

from __future__ import annotations

import itertools
import pathlib
import shutil
import time
from typing import Any

from qsae_core.contracts import DataSource
from qsae_core.errors import DataError
from qsae_store.plan import Plan
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
        DataError: if nothing of the first contexts counts, or how much text there is is not known.
    """
    model = source.language_model()
    assert model is not None
    length = next(iter(source.contexts(1)))[0].ids.shape[1]
    at_once = max(1, model.forward_positions // length)
    parts = [contexts for contexts, _ in itertools.islice(source.contexts(at_once), 1 + PASSES)]
    read_shard(model, parts[0], plan, "training", 0, 0)  # the first pass has costs of its own
    started, timed = time.monotonic(), parts[1:] or parts
    for contexts in timed:
        read_shard(model, contexts, plan, "training", 0, 0)
    seconds = time.monotonic() - started
    vectors = sum(int(contexts.counted.sum()) for contexts in timed)
    if not vectors:
        raise DataError("no position of the first contexts counts", next="other --roles, or other text")
    share = vectors / sum(contexts.counted.numel() for contexts in timed)
    known = [tokens for tokens in (plan.tokens, source.training_tokens) if tokens is not None]
    wanted = min(known, default=None)
    per_token = _TOKENS + _CONTEXTS / share
    per_token += sum(bytes_per_vector(plan.storage, place.width) + 8 / BLOCK for place in plan.places)
    total = None if wanted is None else wanted + plan.held_out_tokens
    if total is None:
        raise DataError("how much text there is is not known", next="give --tokens")
    rate = vectors / seconds
    return {
        "vectors": wanted,
        "held_out_vectors": plan.held_out_tokens,
        "bytes_per_token": round(per_token),
        "bytes": round(per_token * total),
        "free": None if out is None else shutil.disk_usage(_existing(out)).free,
        "tokens_per_second": rate,
        "seconds": total / rate,
    }


def _existing(path: pathlib.Path) -> pathlib.Path:
    path = path.expanduser().absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
