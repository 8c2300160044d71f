"""What a store is to hold and holds: ``manifest.json``, and a record beside each shard. Imports no torch."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

from qsae_core.errors import DataError
from qsae_store.folder import Folder

Storage = Literal["bf16", "fp16", "fp32", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
Side = Literal["training", "held-out"]
SIDES: tuple[Side, ...] = ("held-out", "training")
"""In the order in which they are harvested."""
FORMAT, MANIFEST, _SUMS = 1, "manifest.json", "sums"


class StoredPlace(NamedTuple):
    """A place of the language model whose vectors are stored."""

    layer: int
    site: str
    width: int

    @property
    def name(self) -> str:
        """``9.resid_post``: the name of its tensors."""
        return f"{self.layer}.{self.site}"


@dataclass(frozen=True)
class Plan:
    """What decides every byte of a store.

    Attributes:
        source: block of the data source whose text and language model are read.
        seed: of the order of training text, and of the order of vectors within a shard.
        places: whose vectors are stored.
        sources: names of the places that the source reads as ``x``, which the store gives where nothing is
            chosen.
        targets: names of those that it reads as ``y``; none where ``y`` is ``x``.
        storage: their number format.
        shard_contexts: contexts of a shard; the last one of a side may have fewer.
        tokens: training vectors of a place, in whole contexts; None: one pass over the text.
        held_out_tokens: held-out vectors of a place, in whole contexts; at most.
    """

    source: Mapping[str, Any]
    seed: int
    places: tuple[StoredPlace, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    storage: Storage
    shard_contexts: int
    tokens: int | None
    held_out_tokens: int

    def limit(self, side: Side) -> int | None:
        """Vectors of a place that are asked for."""
        return self.tokens if side == "training" else self.held_out_tokens


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a shard that is written whole: the JSON file beside it.

    Attributes:
        name: of its file, without ``.safetensors``.
        contexts: C.
        vectors: of each place.
        size: bytes.
        sha256: of the file.
        behind: where the text goes on (``DataSource.contexts``).
        ends: whether there is no text behind it.
        norms: place -> ``sum``, ``least`` and ``largest`` of the vectors' norms, and ``squares``, their
            squares' sum.
    """

    name: str
    contexts: int
    vectors: int
    size: int
    sha256: str
    behind: Mapping[str, Any]
    ends: bool
    norms: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``.

    Attributes:
        plan: what the store is to hold.
        model: ``name``, ``fingerprint``, ``predicts_next`` and ``has_logits`` of the language model.
        record: what the data source says of itself (``DataSource.describe``).
        held_out: by which its text is known again (``HeldOutPart.record``), or None.
        shards: side -> what was written of it; None while the harvest is not complete.
        statistics: place -> numbers over its training vectors; None likewise.
    """

    plan: Plan
    model: Mapping[str, Any]
    record: Mapping[str, Any]
    held_out: Mapping[str, Any] | None
    shards: Mapping[Side, tuple[ShardRecord, ...]] | None = None
    statistics: Mapping[str, Mapping[str, float]] | None = None

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False) + "\n"


def shard_name(side: Side, number: int) -> str:
    """``training-00012``."""
    return f"{side}-{number:05d}"


def data_file(name: str) -> str:
    """The file with a shard's tensors."""
    return f"{name}.safetensors"


def record_file(name: str) -> str:
    """The file with a shard's record."""
    return f"{name}.json"


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
    tree = _read_json(folder, MANIFEST)
    version = tree.pop("format", None)
    if version != FORMAT:
        raise DataError(
            f"is of format {version!r}", where=where, allowed=str(FORMAT), next="pip install -U qsae-store"
        )
    try:
        return _manifest(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(where, error) from error


def _manifest(tree: dict[str, Any]) -> Manifest:
    plan = dict(tree.pop("plan"))
    plan["places"] = tuple(StoredPlace(*place) for place in plan["places"])
    plan |= {side: tuple(plan[side]) for side in ("sources", "targets")}
    shards = tree.pop("shards")
    if shards is not None:
        shards = {side: tuple(ShardRecord(**record) for record in shards[side]) for side in SIDES}
    return Manifest(plan=Plan(**plan), shards=shards, **tree)


def _unreadable(where: str, error: Exception) -> DataError:
    return DataError(
        f"cannot be read ({type(error).__name__}: {error})",
        where=where,
        allowed="the file as qsae cache wrote it",
        next="copy the store again from its source",
    )


def write_text(folder: Folder, name: str, text: str) -> None:
    """A text file, whole or not at all."""

    def fill(path: pathlib.Path) -> None:
        path.write_text(text, encoding="utf-8")

    folder.write(name, fill)


def write_record(folder: Folder, record: ShardRecord, sums: Mapping[str, list[float]]) -> None:
    """Say that a shard is written whole.

    Args:
        sums: place -> the sum of its vectors, of which the manifest keeps the mean over all shards.
    """
    tree = {**asdict(record), _SUMS: sums}
    write_text(folder, record_file(record.name), json.dumps(tree, indent=1, allow_nan=False) + "\n")


def read_record(folder: Folder, name: str, *, whole: bool = True) -> ShardRecord | None:
    """The record of a shard that is written whole; None where it is not.

    Args:
        whole: whether a record counts only beside a file of its size.

    Raises:
        DataError: if there is a record that cannot be read.
    """
    if folder.size(record_file(name)) is None:
        return None
    tree = _read_json(folder, record_file(name))
    tree.pop(_SUMS, None)
    try:
        record = ShardRecord(**tree)
    except TypeError as error:
        raise _unreadable(f"{folder.place}: {record_file(name)}", error) from error
    return record if not whole or folder.size(data_file(name)) == record.size else None


def read_sums(folder: Folder, name: str) -> dict[str, list[float]]:
    """Place -> the sum of a shard's vectors."""
    sums: dict[str, list[float]] = _read_json(folder, record_file(name))[_SUMS]
    return sums


def _read_json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        tree = json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"{folder.place}: {name}", error) from error
    if not isinstance(tree, dict):
        raise _unreadable(f"{folder.place}: {name}", TypeError(f"a {type(tree).__name__}"))
    return tree


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
