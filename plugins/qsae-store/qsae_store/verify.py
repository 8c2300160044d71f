"""Whether a store's files are those that were written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from qsae_core.errors import DataError
from qsae_store.folder import Folder, is_damage, open_folder
from qsae_store.json_files import write_text
from qsae_store.manifest import MANIFEST, read_manifest
from qsae_store.plan import SIDES
from qsae_store.records import ShardRecord, data_file, read_record, record_file


class Damage(NamedTuple):
    """A file that is not as it was written."""

    shard: str
    file: str
    what: str


def find_damage(place: str) -> list[Damage]:
    """Every shard of a store that is missing, truncated or altered; of an incomplete one, of those there are.

    Raises:
        DataError: if there is no store, or its manifest cannot be read.
    """
    folder = open_folder(place)
    manifest = read_manifest(folder)
    if manifest.shards is not None:
        records = [record for side in SIDES for record in manifest.shards[side]]
        return [damage for record in records if (damage := _look(folder, record)) is not None]
    found: list[Damage | None] = []
    for file in sorted(name for name in folder.sizes() if name.startswith(SIDES) and name.endswith(".json")):
        name = file.removesuffix(".json")
        try:
            record = read_record(folder, name, whole=False)
        except DataError as error:
            found.append(Damage(name, file, error.what))
        else:
            found.append(None if record is None else _look(folder, record))
    return [damage for damage in found if damage is not None]


def _look(folder: Folder, record: ShardRecord) -> Damage | None:
    file = data_file(record.name)
    size = folder.size(file)
    if size is None:
        return Damage(record.name, file, "is missing")
    if size != record.size:
        return Damage(record.name, file, f"has {size:,} bytes and should have {record.size:,}")
    try:
        same = folder.sha256(file) == record.sha256
    except DataError as error:
        if not is_damage(error):
            raise
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
