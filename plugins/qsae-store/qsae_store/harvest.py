"""Harvesting: the language model's vectors at all places, shard by shard, resumable after any end.

What a shard holds depends on the plan and on its number alone. It is written under a temporary name and
renamed, and a record beside it says that it is whole and where the text goes on. So a harvest that was killed
goes on with the first shard that has no record, and several processes take turns: process r of n writes the
shards r, r + n, ...
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from safetensors import SafetensorError

from qsae_core.contracts import DataSource, TokenBatch
from qsae_core.errors import DataError, QsaeError
from qsae_core.runs import is_full
from qsae_store.folder import Folder, sha256_of
from qsae_store.json_files import MANIFEST, write_text
from qsae_store.manifest import Manifest, read_manifest
from qsae_store.plan import SIDES, Plan, Side
from qsae_store.records import (
    ShardRecord,
    data_file,
    read_record,
    read_sums,
    record_file,
    shard_name,
    write_record,
)
from qsae_store.shards import write_shard
from qsae_store.text import Text, as_many_as_needed
from qsae_store.vectors import read_shard


class Progress(NamedTuple):
    """What a harvest has done so far."""

    side: Side
    shard: str
    vectors: int
    """Of the side, in all shards so far, whoever wrote them."""
    limit: int | None
    new_vectors: int
    """That this process has harvested."""
    seconds: float
    """That it took for these."""


Watch = Callable[[Progress], None]


class Harvest:
    """One process's part of a harvest.

    Args:
        folder: where the store is.
        manifest: what ``begin`` gave.
        source: gives the text; its language model is read.
        rank: of this process.
        world: how many processes there are.
        watch: told of every shard that this process has written.
    """

    def __init__(
        self,
        folder: Folder,
        manifest: Manifest,
        source: DataSource,
        *,
        rank: int = 0,
        world: int = 1,
        watch: Watch = lambda progress: None,
    ) -> None:
        model = source.language_model()
        assert model is not None
        self.folder, self.manifest, self.source, self.model = folder, manifest, source, model
        self.rank, self.world, self._watch = rank, world, watch
        self._new, self._seconds = 0, 0.0

    def run(self) -> bool:
        """Harvest; the last of the processes to end completes the manifest.

        Returns:
            whether this process has completed it; else others are still at work, one of them has died, or
            one has completed it that ended at the same time.

        Raises:
            DataError: for text that gives no context, or no vector; as ``read_shard``; if a shard cannot be
                written, with what stays and how to go on.
        """
        slots = {side: list(self._side(side)) for side in SIDES}
        for side, found in slots.items():
            if not found:
                raise DataError(
                    f"the {side} text has not one full context",
                    where=str(self.manifest.plan.source),
                    next="more text, or a smaller --context",
                )
        # what others had not written when this process passed by may be there by now
        records = {side: [self._record(side, *slot) for slot in found] for side, found in slots.items()}
        shards = {side: tuple(r for r in found if r is not None) for side, found in records.items()}
        if any(len(shards[side]) < len(found) for side, found in records.items()):
            return False
        for side, written in shards.items():
            if not any(record.vectors for record in written):
                raise DataError(
                    f"no position of the {side} text counts",
                    where=str(self.manifest.plan.source),
                    next="other --roles, or other text",
                )
        with self.folder.one_by_one(MANIFEST):
            if _digests(read_manifest(self.folder).shards) == _digests(shards):
                return False
            numbers = statistics(self.manifest.plan, shards["training"], self.folder)
            complete = dataclasses.replace(self.manifest, shards=shards, statistics=numbers)
            write_text(self.folder, MANIFEST, complete.to_json())
        return True

    def _record(self, side: Side, name: str, before: int, record: ShardRecord | None) -> ShardRecord | None:
        return record or self._whole(name, before, self.manifest.plan.limit(side))

    def _side(self, side: Side) -> Iterator[tuple[str, int, ShardRecord | None]]:
        """Write this process's shards of a side. Gives every shard's name, the vectors before it, and its
        record; None for one that another process is to write."""
        limit = self.manifest.plan.limit(side)
        text = Text(self.source, self.manifest.plan.shard_contexts, side)
        number = vectors = 0
        while limit is None or vectors < limit:
            name = shard_name(side, number)
            before, record = vectors, self._whole(name, vectors, limit)
            if record is not None:
                text.go_to(record.behind)
                vectors += record.vectors
            else:
                contexts = text.take()
                if contexts is None:
                    return
                whole, contexts = contexts, as_many_as_needed(contexts, limit, vectors)
                vectors += int(contexts.counted.sum())
                if number % self.world == self.rank:
                    ends = text.has_ended and len(contexts.ids) == len(whole.ids)
                    record = self._write(side, number, contexts, text.behind, ends)
                    self._watch(Progress(side, name, vectors, limit, self._new, self._seconds))
            yield name, before, record
            if record is not None and record.ends:
                return
            number += 1

    def _whole(self, name: str, before: int, limit: int | None) -> ShardRecord | None:
        """The record of a shard that need not be written again; None where it must.

        Args:
            before: vectors of the shards before it.
        """
        record = read_record(self.folder, name)
        if record is None:
            return None
        # a store that was to hold fewer vectors ends in a shard with fewer contexts
        full = record.contexts == self.manifest.plan.shard_contexts
        is_last = limit is not None and before + record.vectors >= limit
        return record if full or is_last or record.ends else None

    def _write(
        self, side: Side, number: int, contexts: TokenBatch, behind: Mapping[str, Any], ends: bool
    ) -> ShardRecord:
        name, plan, started = shard_name(side, number), self.manifest.plan, time.monotonic()
        made = read_shard(self.model, contexts, plan, side, number, number * plan.shard_contexts)
        written: list[tuple[int, str]] = []

        def fill(path: pathlib.Path) -> None:
            write_shard(path, made.tensors)
            written.append((path.stat().st_size, sha256_of(path)))

        try:
            self.folder.remove(record_file(name))
            self.folder.write(data_file(name), fill)
            size, digest = written[-1]
            vectors = int(contexts.counted.sum())
            record = ShardRecord(name, len(contexts.ids), vectors, size, digest, behind, ends, made.norms)
            write_record(self.folder, record, made.sums)
        except (QsaeError, OSError, SafetensorError) as error:
            raise _stopped(error, self.folder, name) from error
        self._new, self._seconds = self._new + record.vectors, self._seconds + time.monotonic() - started
        return record


def _digests(shards: Mapping[Side, tuple[ShardRecord, ...]] | None) -> list[str] | None:
    return None if shards is None else [record.sha256 for side in SIDES for record in shards[side]]


def _stopped(error: Exception, folder: Folder, name: str) -> DataError:
    what = error.what if isinstance(error, QsaeError) else str(error)
    mended = "free some space" if is_full(error) else "mend that"
    return DataError(
        f"the harvest stops at {name}: {what}",
        where=folder.place,
        allowed="the shards before it stay as they are, and may be trained on",
        next=f"{mended}, and run the same command again: it goes on with that shard",
    )


def statistics(plan: Plan, shards: tuple[ShardRecord, ...], folder: Folder) -> dict[str, dict[str, Any]]:
    """Place -> ``mean`` (a vector), ``rms`` (of the centred vectors, per dimension) and the mean, least and
    largest norm of the training vectors, of which there is one at least, before they were rounded."""
    shards = tuple(shard for shard in shards if shard.vectors)
    n_vectors = sum(shard.vectors for shard in shards)
    sums = [read_sums(folder, shard.name) for shard in shards]
    found: dict[str, dict[str, Any]] = {}
    for place in plan.places:
        norms = [shard.norms[place.name] for shard in shards]
        mean = [
            math.fsum(column) / n_vectors for column in zip(*(one[place.name] for one in sums), strict=True)
        ]
        squares = sum(one["squares"] for one in norms) / n_vectors
        found[place.name] = {
            "rms": math.sqrt(max(0.0, squares - math.fsum(m * m for m in mean)) / place.width),
            "mean_norm": sum(one["sum"] for one in norms) / n_vectors,
            "least_norm": min(one["least"] for one in norms),
            "largest_norm": max(one["largest"] for one in norms),
            "mean": mean,
        }
    return found
