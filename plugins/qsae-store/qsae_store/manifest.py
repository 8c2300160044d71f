"""What a store is to hold and holds: ``manifest.json``. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qsae_core.errors import DataError
from qsae_store.folder import Folder
from qsae_store.json_files import MANIFEST, checked, read_json, unreadable
from qsae_store.plan import SIDES, Plan, Side
from qsae_store.records import ShardRecord, data_file, read_record, shard_name

FORMAT = 1
OF_MODEL = ("name", "fingerprint", "predicts_next", "has_logits")
"""What is known of the language model."""


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``.

    Attributes:
        plan: what the store is to hold.
        model: ``OF_MODEL`` of the language model.
        record: what the data source says of itself (``DataSource.describe``).
        held_out: by which its text is known again (``HeldOutPart.record``), or None.
        shards: side -> what was written of it; None while the harvest is not complete.
        statistics: place -> numbers over its training vectors, ``mean`` one a dimension; None likewise.
    """

    plan: Plan
    model: Mapping[str, Any]
    record: Mapping[str, Any]
    held_out: Mapping[str, Any] | None
    shards: Mapping[Side, tuple[ShardRecord, ...]] | None = None
    statistics: Mapping[str, Mapping[str, float | list[float] | None]] | None = None

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False) + "\n"


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a store.

    Raises:
        DataError: if there is none, or it is no manifest that this version reads.
    """
    if folder.size(MANIFEST) is None:
        raise DataError(
            f"there is no {MANIFEST}",
            where=folder.place,
            allowed="a folder that qsae cache wrote",
            next="qsae cache --model MODEL --layers 3,6,9 --out DIR",
        )
    where = f"{folder.place}: {MANIFEST}"
    tree = read_json(folder, MANIFEST)
    version = tree.pop("format", None)
    if version != FORMAT:
        raise DataError(
            f"is of format {version!r}", where=where, allowed=str(FORMAT), next="pip install -U qsae-store"
        )
    try:
        return _manifest(tree)
    except (KeyError, ValueError) as error:
        raise unreadable(folder, MANIFEST, error) from error


def _manifest(tree: dict[str, Any]) -> Manifest:
    manifest = checked(Manifest, tree)
    needed: list[tuple[Mapping[Any, Any], tuple[str, ...]]]
    needed = [(manifest.plan.source, ("use",)), (manifest.model, OF_MODEL)]
    if manifest.shards is not None:
        needed.append((manifest.shards, SIDES))
    for part, keys in needed:
        if missing := [key for key in keys if key not in part]:
            raise KeyError(missing[0])
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Whether places are those that are stored, and numbers are numbers.

    Raises:
        ValueError: with the entry.
    """
    plan = manifest.plan
    names = [place.name for place in plan.places]
    if not names or len(set(names)) < len(names):
        raise ValueError("plan.places: none, or one twice")
    if not plan.sources or not {*plan.sources, *plan.targets} <= set(names):
        raise ValueError("plan.sources and plan.targets: not among plan.places")
    for place, numbers in (manifest.statistics or {}).items():
        wrong = [key for key, value in numbers.items() if isinstance(value, list) != (key == "mean")]
        if wrong:
            raise ValueError(f"statistics.{place}.{wrong[0]}: is of another type")


def written_shards(folder: Folder, manifest: Manifest) -> dict[Side, list[ShardRecord]]:
    """Every shard that is there, in order: of a store that is complete or not.

    Of an incomplete one, those before the first that is missing.

    Raises:
        DataError: if the manifest of a complete store names a shard that is missing or has another size.
    """
    if manifest.shards is None:
        return {side: _first_ones(folder, side) for side in SIDES}
    sizes = folder.sizes()
    for record in (record for side in SIDES for record in manifest.shards[side]):
        size = sizes.get(data_file(record.name))
        if size != record.size:
            what = "is missing" if size is None else f"has {size:,} bytes and should have {record.size:,}"
            raise DataError(
                what,
                where=f"{folder.place}: {data_file(record.name)}",
                allowed="the store as qsae cache wrote it",
                next=f"qsae cache verify {folder.place} lists all that is damaged",
            )
    return {side: list(manifest.shards[side]) for side in SIDES}


def _first_ones(folder: Folder, side: Side) -> list[ShardRecord]:
    found: list[ShardRecord] = []
    while (record := read_record(folder, shard_name(side, len(found)))) is not None:
        found.append(record)
    return found
