"""The record beside a shard, which says that it is written whole. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from qsae_store.folder import Folder
from qsae_store.json_files import DIGEST, checked, digest_of, read_json, unreadable, write_text
from qsae_store.plan import Side

_SUMS = "sums"


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
        norms: place -> ``sum``, ``least`` and ``largest`` of the vectors' norms (these two None where there
            are no vectors), and ``squares``, their squares' sum.
    """

    name: Annotated[str, Field(pattern=r"^(held-out|training)-[0-9]{5,}$")]
    contexts: NonNegativeInt
    vectors: NonNegativeInt
    size: NonNegativeInt
    sha256: str
    behind: Mapping[str, Any]
    ends: bool
    norms: Mapping[str, Mapping[str, Any]]


def shard_name(side: Side, number: int) -> str:
    """``training-00012``."""
    return f"{side}-{number:05d}"


def data_file(name: str) -> str:
    """The file with a shard's tensors."""
    return f"{name}.safetensors"


def record_file(name: str) -> str:
    """The file with a shard's record."""
    return f"{name}.json"


def write_record(folder: Folder, record: ShardRecord, sums: Mapping[str, list[float]]) -> None:
    """Say that a shard is written whole.

    Args:
        sums: place -> the sum of its vectors, of which the manifest keeps the mean over all shards.
    """
    tree = {**asdict(record), _SUMS: sums}
    tree[DIGEST] = digest_of(json.loads(json.dumps(tree)))
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
    tree = read_json(folder, record_file(name))
    tree.pop(_SUMS, None)
    try:
        record = checked(ShardRecord, tree)
    except ValueError as error:
        raise unreadable(folder, record_file(name), error) from error
    return record if not whole or folder.size(data_file(name)) == record.size else None


def read_sums(folder: Folder, name: str) -> dict[str, list[float]]:
    """Place -> the sum of a shard's vectors.

    Raises:
        DataError: if its record cannot be read, or has none.
    """
    sums: dict[str, list[float]] = read_json(folder, record_file(name)).get(_SUMS, {})
    if not isinstance(sums, dict) or not sums:
        raise unreadable(folder, record_file(name), KeyError(_SUMS))
    return sums
