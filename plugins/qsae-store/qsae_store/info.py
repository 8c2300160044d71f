"""What a store holds."""

from __future__ import annotations

from typing import Any

from qsae_store.folder import open_folder
from qsae_store.lacking import lacking
from qsae_store.manifest import read_manifest, written_shards
from qsae_store.plan import SIDES


def describe(place: str) -> dict[str, Any]:
    """JSON values on the store at a path or URL.

    Raises:
        DataError: if there is none, or a shard is missing or has another size.
    """
    folder = open_folder(place)
    manifest = read_manifest(folder)
    shards = written_shards(folder, manifest)
    plan, statistics = manifest.plan, manifest.statistics or {}
    places = []
    for stored in plan.places:
        numbers = {k: v for k, v in statistics.get(stored.name, {}).items() if k != "mean"}
        places.append({"place": stored.name, "width": stored.width, **numbers})
    return {
        "store": place,
        "model": manifest.model["name"],
        "source": dict(plan.source),
        "storage": plan.storage,
        "complete": manifest.shards is not None,
        "lacking": lacking(folder, manifest, shards),
        "shards": sum(len(shards[side]) for side in SIDES),
        "bytes": sum(record.size for side in SIDES for record in shards[side]),
        "training_vectors": sum(record.vectors for record in shards["training"]),
        "held_out_vectors": sum(record.vectors for record in shards["held-out"]),
        "tokens_asked_for": plan.tokens,
        "seed": plan.seed,
        "places": places,
    }
