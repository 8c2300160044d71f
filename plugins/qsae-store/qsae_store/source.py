"""The data source ``store``: vectors that were harvested, shuffled over the whole store.

Shapes: N vectors, L places, D width, C contexts, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Batch, Columns, DataSource, ShuffledBlocks, Site, TokenBatch, batches_of
from qsae_core.errors import DataError
from qsae_store import StoreConfig
from qsae_store.folder import open_folder
from qsae_store.held_out import HeldOutShards
from qsae_store.lacking import completing, lacking
from qsae_store.manifest import read_manifest, written_shards
from qsae_store.model import StoredModel
from qsae_store.places import stored_sites
from qsae_store.plan import SIDES, Side
from qsae_store.reader import Reader
from qsae_store.records import ShardRecord
from qsae_store.shards import BLOCK

if TYPE_CHECKING:
    import pathlib

    from qsae_core.conformance import Case


class StoreSource(DataSource):
    """Vectors of a store; the training stream is a ``ShuffledBlocks``.

    A shard's vectors are in random order, so that a block is a sample of the shard's contexts, and a pool of
    blocks one of the whole store. A block's bytes are compared with their checksum as they are read.

    Raises:
        DataError: on a store that cannot be read, is damaged, or has not the places that are asked for.
    """

    for_one_layer = "--layer N and --site SITE, one of the stored (qsae cache info DIR)"
    for_several_layers = "--layers 3,6,9, which are stored; or --sites 3.mlp_in,6.resid_mid"
    for_targets = "--source-layer N --target-layer N, of a store that has mlp_in and mlp_out"
    prefetch = 2

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        options = self._options = cast(StoreConfig, config)
        self._folder = open_folder(options.path, options.cache_dir)
        self._manifest = read_manifest(self._folder)
        self._shards = written_shards(self._folder, self._manifest)
        for side, shards in self._shards.items():
            if not any(record.vectors for record in shards):
                raise DataError(
                    f"the harvest has not written one {side} vector",
                    where=options.path,
                    next=f"{completing(self._manifest.plan, self._folder.place)} goes on where it stopped",
                )
        self._warning = lacking(self._folder, self._manifest, self._shards)
        self._chosen = stored_sites(options, self._manifest)
        widths = {Site(place.layer, place.site): place.width for place in self._manifest.plan.places}
        self.d_in, self.d_out = self._chosen.widths(widths.__getitem__)
        self.layers_in, self.layers_out = len(self._chosen.sources), len(self._chosen.targets)
        self.model_name, self.layer = str(self._manifest.model["name"]), self._chosen.path_name
        self._everything = False
        self._begin()
        self._model: StoredModel | None = None
        self._context = self._reader.shard(self._shards["held-out"][0]).shape("ids")[1]

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Small stores of the built-in model: one place, a pair, several layers."""
        from qsae_store.samples import conformance_cases

        return conformance_cases(folder)

    # -- the training stream

    def _begin(self) -> None:
        """At the first of the shards that are read."""
        plan, options = self._manifest.plan, self._options
        widths = (self.d_in, self.d_out)
        self._reader = Reader(self._folder, self._shards, plan.storage, self._chosen, widths)
        self._stream = ShuffledBlocks(
            self._reader,
            self._reader.blocks(),
            options.shuffle_blocks,
            self.seed,
            norms=options.max_norm_multiple,
            vectors=lambda columns: columns[:-1],
        )

    def next_batch(self, size: int) -> Batch:
        """The next vectors of the shuffled stream; raises DataError where bytes are not those that were
        written.
        """
        return self.next_part(size, 0, 1)

    def next_part(self, size: int, rank: int, world: int) -> Batch:
        """Every ``world``-th vector; blocks of others are not read, but where outlying norms are left out."""
        columns = self._stream.take_part(size, rank, world)
        return self._batch(columns[:-1], columns[-1])

    def _batch(self, sides: Columns, tokens_N4: Tensor) -> Batch:
        x = sides[0] if self.layers_in > 1 else sides[0].squeeze(1)
        y = x if len(sides) == 1 else sides[1] if self.layers_out > 1 else sides[1].squeeze(1)
        token_ids, documents, _, positions = tokens_N4.long().T
        return Batch(x, y, token_ids, documents, positions)

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, and by what the store is known again."""
        return {**self._stream.place(), "store": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue there; in a store that has grown since, with the shards that it had.

        Raises:
            DataError: if the store is another one now.
        """
        began = len(state["store"])
        if 0 < began < len(self._fingerprint) and state["store"] == self._fingerprint[:began]:
            self._keep_to(began)
        if state["store"] != self._fingerprint:
            raise DataError(
                "the store is another one than when the run was interrupted",
                where=self._folder.place,
                allowed="the same store",
                next="bring it back, or start the run again with --overwrite",
            )
        self._stream.go_to(state)

    def _keep_to(self, count: int) -> None:
        """Train on the first shards alone."""
        there = self._stream.rows
        self._reader.close()
        self._shards = {**self._shards, "training": self._shards["training"][:count]}
        self._begin()
        self._warning = (
            f"the run goes on with the {self._stream.rows:,} training vectors with which it began; the store "
            f"{self._folder.place} has {there:,} by now, and --overwrite begins again with all of them"
        )

    @property
    def _fingerprint(self) -> list[str]:
        """Of the shards that are trained on."""
        return [record.sha256[:16] for record in self._shards["training"]]

    # -- the held-out side

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """Held-out vectors in the order of the text."""
        for columns in batches_of(self._first_rows(n_tokens), batch_size):
            yield self._batch(columns[:-1], columns[-1])

    def _first_rows(self, n_tokens: int) -> Iterator[Columns]:
        for side, record in self._measured():
            for start in range(0, record.vectors, BLOCK):
                if n_tokens < 1:
                    return
                stop = min(start + BLOCK, start + n_tokens, record.vectors)
                yield self._reader.in_order(side, record, start, stop)
                n_tokens -= stop - start

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """Held-out contexts and the vectors that are stored of them."""
        for side, record in self._measured():
            start = 0
            for some in self._reader.contexts(record, max(1, batch_size // self._context)):
                if n_tokens < 1:
                    return
                needed = int((some.counted.sum(1).cumsum(0) < n_tokens).sum()) + 1
                part = some.rows(slice(needed))
                count = int(part.counted.sum())
                columns = self._reader.in_order(side, record, start, start + count)
                yield part, self._batch(columns[:-1], columns[-1])
                start, n_tokens = start + count, n_tokens - count

    def _measured(self) -> Iterator[tuple[Side, ShardRecord]]:
        """The shards that evaluations read, held-out ones first."""
        for side in SIDES if self._everything else SIDES[:1]:
            yield from ((side, record) for record in self._shards[side])

    def held_out_part(self) -> HeldOutShards:
        """The held-out documents of the store."""
        return HeldOutShards(self._folder.place, self._manifest, self._measured, self._take_all)

    def _take_all(self) -> None:
        self._everything = True

    def contexts(
        self, n_contexts: int, place: Mapping[str, Any] | None = None, *, held_out: bool = False
    ) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        """The contexts that were harvested; those of training in the order of the harvest's own seed."""
        before = int((place or {"contexts": 0})["contexts"])
        behind = 0
        for record in self._shards["held-out" if held_out else "training"]:
            first, behind = max(0, before - behind), behind + record.contexts
            if before < behind:
                for part in self._reader.contexts(record, n_contexts, first):
                    before += len(part.ids)
                    yield part, {"contexts": before}

    # -- what it is

    def language_model(self) -> StoredModel:
        """The model that was harvested from, which is opened when it is first asked for something."""
        if self._model is None:
            path = self._options.model_path
            self._model = StoredModel(self._manifest, path, self.device, self._folder.place)
        return self._model

    @property
    def training_tokens(self) -> int | None:
        """Training vectors; None where those with outlying norms are left out."""
        return None if self._options.max_norm_multiple is not None else self._stream.rows

    def left_out(self) -> str | None:
        """How many vectors with outlying norms."""
        return self._stream.left_out()

    def warning(self) -> str | None:
        """What is read of a store that is not complete."""
        return self._warning

    def describe(self) -> dict[str, Any]:
        """The store, and what its own source said of itself."""
        plan = self._manifest.plan
        return {
            **self._manifest.record,
            "source": "store",
            "store": self._folder.place,
            "harvested_from": dict(plan.source),
            "source_sites": [str(site) for site in self.source_sites],
            "target_sites": [str(site) for site in self.target_sites],
            "storage": plan.storage,
            "complete": self._manifest.shards is not None,
            "training_vectors": self._stream.rows,
            "held_out_vectors": sum(record.vectors for record in self._shards["held-out"]),
            "outlying_norms": self.left_out() or "trained on",
        }

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """Where ``x`` was read."""
        return self._chosen.sources

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """Where ``y`` was read."""
        return self._chosen.targets

    def close(self) -> None:
        """Close the files, and let pool and model go."""
        self._stream.close()
        self._reader.close()
        self._model = None
