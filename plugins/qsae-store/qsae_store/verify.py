"""Whether a store's files are those that were written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from qsae_store.folder import DamagedError, Folder, open_folder
from qsae_store.json_files import MANIFEST, write_text
from qsae_store.manifest import read_manifest
from qsae_store.plan import SIDES
from qsae_store.records import ShardRecord, data_file, read_record, read_sums, record_file


class Damage(NamedTuple):
    """A file that is not as it was written."""

    shard: str
    file: str
    what: str


def find_damage(place: str) -> list[Damage]:
    """Every shard of a store that is missing, truncated or altered, and every record of one; of an incomplete
    store, of those there are.

    Raises:
        DataError: if there is no store, or its manifest or any file cannot be read.
    """
    folder = open_folder(place)
    manifest = read_manifest(folder)
    if manifest.shards is not None:
        records = [record for side in SIDES for record in manifest.shards[side]]
        found = [(_record(folder, record.name, record), _data(folder, record)) for record in records]
        return [damage for both in found for damage in both if damage is not None]
    damaged = []
    for file in sorted(name for name in folder.sizes() if name.startswith(SIDES) and name.endswith(".json")):
        name = file.removesuffix(".json")
        damage = _record(folder, name)
        if damage is None and (record := read_record(folder, name, whole=False)) is not None:
            damage = _data(folder, record)
        damaged += [] if damage is None else [damage]
    return damaged


def _record(folder: Folder, name: str, expected: ShardRecord | None = None) -> Damage | None:
    """What is wrong with the record of a shard.

    Args:
        expected: what the manifest of a complete store has of it.
    """
    file = record_file(name)
    try:
        found = read_record(folder, name, whole=False)
        if found is None:
            return Damage(name, file, "is missing")
        read_sums(folder, name)
    except DamagedError as error:
        return Damage(name, file, error.what)
    same = expected is None or found == expected
    return None if same else Damage(name, file, f"has been altered: {MANIFEST} says otherwise")


def _data(folder: Folder, record: ShardRecord) -> Damage | None:
    """What is wrong with the vectors of a shard."""
    file = data_file(record.name)
    size = folder.size(file)
    if size is None:
        return Damage(record.name, file, "is missing")
    if size != record.size:
        return Damage(record.name, file, f"has {size:,} bytes and should have {record.size:,}")
    try:
        same = folder.sha256(file) == record.sha256
    except DamagedError as error:
        return Damage(record.name, file, error.what)
    return None if same else Damage(record.name, file, "has been altered: its checksum is another one")


def drop_damaged(place: str, damaged: Sequence[Damage]) -> None:
    """Remove damaged shards with their records; the harvest writes them again, and the store is not complete
    until then."""
    folder = open_folder(place)
    begun = dataclasses.replace(read_manifest(folder), shards=None, statistics=None)
    write_text(folder, MANIFEST, begun.to_json())
    for found in damaged:
        folder.remove(record_file(found.shard))
        folder.remove(data_file(found.shard))
