"""DataSource: where the vectors come from. Shapes: B tokens, L layers, D width."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.contracts.held_out_part import HeldOutPart
from qsae_core.contracts.language_model import LanguageModel, Site, TokenBatch


@dataclass(frozen=True)
class Batch:
    """Vectors to encode and to reconstruct.

    Attributes:
        x: float32 ``[B, d_in]`` (``[B, L, d_in]`` from several layers): what the coder reads.
        y: float32 ``[B, d_out]``: what it should produce; the very tensor ``x`` for an SAE.
        token_ids: int64 ``[B]``, the token behind each vector, or None.
        documents: int64 ``[B]``, the number of the document that each is from, among those of its side of the
            split in one pass (``DataSource.contexts``), or None.
        positions: int64 ``[B]``, the place of each in the context that the language model read, or None.
    """

    x: Tensor
    y: Tensor
    token_ids: Tensor | None = None
    documents: Tensor | None = None
    positions: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, which: slice | Tensor) -> Batch:
        """Some of the vectors; ``y is x`` stays so."""
        return _made_of([self], lambda of_each: of_each[0][which])

    def layer(self, number: int) -> Batch:
        """Of vectors of several layers, on both sides, what a coder of one of them reads and reconstructs;
        ``y is x`` stays so."""
        x = self.x[:, number].contiguous()
        return replace(self, x=x, y=x if self.y is self.x else self.y[:, number].contiguous())

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on a device; ``y is x`` stays so."""
        return _made_of([self], lambda of_each: of_each[0].to(device, non_blocking=True))

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """The vectors of one source's batches, one batch behind the other; ``y is x`` stays so."""
        return (
            batches[0] if len(batches) == 1 else _made_of(batches, lambda of_each: torch.cat(list(of_each)))
        )


def _made_of(batches: Sequence[Batch], make: Callable[[Sequence[Tensor]], Tensor]) -> Batch:
    """One batch, each tensor of which is made of theirs; what one of them does not know is not known."""
    x = make([batch.x for batch in batches])
    y = x if batches[0].y is batches[0].x else make([batch.y for batch in batches])
    known = ([getattr(batch, name) for batch in batches] for name in ("token_ids", "documents", "positions"))
    return Batch(x, y, *(None if any(t is None for t in of_each) else make(of_each) for of_each in known))


class DataSource(abc.ABC):
    """A stream of training vectors and a separate held-out stream.

    Built as ``Class(config, seed=..., device=...)``. The training stream has no end: it starts over, shuffled
    anew, when it has given all it has. Its order depends on the config and the seed alone.
    """

    d_in: int
    d_out: int
    layers_in: int = 1
    """Layers read at once; above 1, ``x`` is ``[B, L, d_in]``."""
    layers_out: int = 1
    model_name: str
    """For result paths: the model's or the file's short name."""
    layer: str
    """For result paths: the layer (``"9"``), or what stands for it (``"tensors"``)."""
    for_one_layer: ClassVar[str | None] = None
    """What a user gives this source for vectors of one layer (``--layer N``), where it can read several."""
    for_several_layers: ClassVar[str | None] = None
    """What a user gives it for vectors of several layers; None where it has one layer alone."""
    for_targets: ClassVar[str | None] = None
    """What a user gives it for targets of their own, which transcoders need; None where it has none."""
    prefetch: int = 0
    """Batches that ``train.prefetch: auto`` reads ahead in another thread while a GPU trains; 0: none.

    From the first step to the last, that thread alone uses the source. What it gives must hang on nothing
    that the training step uses too, such as the global generators.
    """

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.seed, self.device = config, seed, device

    @abc.abstractmethod
    def next_batch(self, size: int) -> Batch:
        """The next ``size`` vectors of the training stream, on the CPU or on ``device``.

        Raises:
            DataError: on NaN or infinity, naming the file or text and the row.
        """

    def next_part(self, size: int, rank: int, world: int) -> Batch:
        """Of the next ``size * world`` vectors of the training stream those with number ``rank`` modulo
        ``world``; behind that the stream stands where it stands in a process that took others of them.

        A source that can leave the others unread does so.
        """
        return self.next_batch(size * world).rows(slice(rank, None, world))

    @abc.abstractmethod
    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """At most ``n_tokens`` vectors that training never sees, always the same ones in the same order."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """JSON values from which ``load_state_dict`` of an equal source goes on with the same next batch."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""

    def divide(self, rank: int, world: int) -> bool:
        """Give, from now on, what falls to one of several training processes (``shard``), if the source can.

        Each training vector falls to one process alone, in each pass; held-out vectors stay the same in all.
        Called before anything is read. A state is that of one process then, and resumes as that one.

        Returns:
            False, and nothing is changed, where each process is to read everything and to keep its rows.
        """
        return False

    @property
    def training_tokens(self) -> int | None:
        """Vectors of one pass over the training stream; None where that is not known (streaming text)."""
        return None

    def describe(self) -> dict[str, Any]:
        """JSON values for the run's record: where from, what is counted and what is left out."""
        return {}

    def left_out(self) -> str | None:
        """A sentence on vectors that training left out so far, beside those that never count; None: none."""
        return None

    def warning(self) -> str | None:
        """A sentence on what has to be known before these vectors are trained on or measured with, such as
        that there are fewer than were asked for; None: nothing."""
        return None

    def language_model(self) -> LanguageModel | None:
        """The model behind the vectors, or None (tensor files, synthetic data)."""
        return None

    @classmethod
    def language_model_of(cls, config: ComponentConfig, *, device: str = "cpu") -> LanguageModel | None:
        """The model that a source of this config has behind its vectors, without its text; None: it has none.

        Raises:
            DataError: if it cannot be loaded.
        """
        return None

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """Held-out contexts and the vectors at their counted positions, in order, from one forward pass: the
        fewest contexts that hold ``n_tokens`` counted positions, or all there are; always the same ones in
        the same order. Only where ``language_model()`` is not None.

        Args:
            batch_size: positions that are read at once, in whole contexts; one context at least.
        """
        raise NotImplementedError("this data source has no language model")

    def contexts(
        self, n_contexts: int, place: Mapping[str, Any] | None = None, *, held_out: bool = False
    ) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        """The text of one side of the split, once, from its beginning or from a place in it, with its
        documents numbered; no vector is computed. Only where ``language_model()`` is not None.

        So vectors can be harvested at any sites, in parts that do not depend on where one begins: what comes
        behind a place is the same, numbers of documents included, whoever asks for it.

        Args:
            n_contexts: contexts of a part; the last one may have fewer.
            place: where to begin, as a call with the same options gave it; None: at the beginning.
            held_out: of the held-out documents, in their own order; else of those to train on, in the order
                of the seed's first pass.

        Yields:
            the contexts, and the place behind them: JSON values.
        """
        raise NotImplementedError("this data source has no language model")

    def held_out_part(self) -> HeldOutPart | None:
        """What ``held_out`` gives, and how a later evaluation knows this data again; None: the source cannot
        tell its data from other data, and its held-out vectors are what is measured wherever it is chosen."""
        return None

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """Where ``x`` is read in the language model: ``layers_in`` sites of width ``d_in`` each, in the order
        of ``x``; empty where it does not come from a language model."""
        return ()

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """Where ``y`` is read: ``layers_out`` sites of width ``d_out`` each; the source sites where ``y`` is
        ``x``. A coder's output can take their vectors' place (``Edit``)."""
        return ()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What each of the layers that are read at once is called, in the order of ``x``: its number in the
        language model, the site with it where two sites are of one layer, or else its place in ``x``."""
        sites = self.source_sites
        if len({site.layer for site in sites}) == self.layers_in:
            return tuple(str(site.layer) for site in sites)
        return tuple(map(str, sites or range(self.layers_in)))

    def close(self) -> None:  # noqa: B027 (most sources hold nothing open)
        """Release files, threads and models."""
