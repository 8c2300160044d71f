"""The second pass: what is around the examples, and which latents fire together.

Shapes: C contexts, T positions, E examples, W positions of a window, N entries of codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from qsae_core.contracts import Accumulator, LanguageModel, Observation, TokenBatch
from qsae_samples.choice import choose
from qsae_samples.firings import Seen, seen
from qsae_samples.kept import POSITION_BITS, first_of_run, hashed
from qsae_samples.pairs import Pairs
from qsae_samples.text import Pieces

if TYPE_CHECKING:
    from qsae_samples.evaluation import SamplesResult
    from qsae_samples.firings import Firings

HASHES = 1 << 62
"""How many values ``hashed`` has."""


class Windows(NamedTuple):
    """Windows in the text of a part; int64, where they begin among its tokens, how long they are, and where
    in them the position is that they are around."""

    number: Tensor
    start: Tensor
    length: Tensor
    peak: Tensor


class Part(NamedTuple):
    """What is kept of one batch; places in the text are counted from its own first token."""

    first_place: int
    ids: Tensor
    """int64, of each token that is in a window."""
    pieces: list[str]
    stretch_start: Tensor
    """Where tokens begin that follow each other in one document of one context."""
    stretch_place: Tensor
    stretch_document: Tensor
    examples: Windows
    n_active: Tensor
    """Of each example; the next two hold one after the other."""
    active_at: Tensor
    active_value: Tensor
    random: Windows
    code_token: Tensor
    """Of all codes in random windows: which token, latent and value."""
    code_latent: Tensor
    code_value: Tensor


class Surroundings(Accumulator):
    """The windows around the examples that the first pass has found."""

    def __init__(self, firings: Firings) -> None:
        self.firings, self.config = firings, firings.config
        self.chosen, self.random = choose(firings), firings.random.entries()
        self._order = self.chosen.place.argsort(stable=True)
        self._random_order = self.random.place.argsort(stable=True)
        model = cast(LanguageModel, firings.context.data.language_model())  # as ``observes`` says
        self.pieces = Pieces(model.decode)
        self.one_context: TokenBatch | None = None
        self.parts: list[Part] = []
        self.pairs = Pairs(firings.n_latents)

    def update(self, observation: Observation) -> None:
        """Keep what is around the examples of a batch's contexts."""
        assert observation.tokens is not None  # as ``observes`` says
        batch = seen(observation, self.config)
        if len(batch.place):
            self.one_context = observation.tokens.rows(slice(0, 1))
            self._count_pairs(batch)
            self.parts.append(self._part(observation.tokens, batch))

    def _count_pairs(self, batch: Seen) -> None:
        share = min(1.0, self.config.cofiring_pairs / max(1, self.firings.n_pairs))
        drawn = hashed(batch.place, self.config.seed + 1) < int(share * HASHES)
        taken = drawn[batch.row]
        if self.config.cofiring:
            self.pairs.update(batch.row[taken], batch.latent[taken])

    def _part(self, tokens: TokenBatch, batch: Seen) -> Part:
        counted = tokens.counted.cpu()
        first = batch.context - int(counted.nonzero()[0, 0])
        text = Text(tokens, first, self.config.before, self.config.after)
        examples = _within(self.chosen.place, self._order, text)
        random = _within(self.random.place, self._random_order, text)
        around = [text.around(self.chosen.place[examples]), text.around(self.random.place[random])]
        kept = text.kept(around)
        index = kept.cumsum(0) - 1
        position = counted.flatten().nonzero()[:, 0][batch.row]  # of each entry of the codes
        active = _active(around[0], self.chosen.latent[examples], batch, position, len(kept))
        place = kept.nonzero()[:, 0]
        begins = first_of_run(text.run.flatten()[place], place - torch.arange(len(place)))
        of_random = text.kept(around[1:])[position]
        return Part(
            first << POSITION_BITS,
            tokens.ids.cpu().flatten()[place],
            self._pieces_of(tokens, kept.view(tokens.ids.shape)),
            begins.nonzero()[:, 0],
            text.places(place[begins]),
            text.documents.flatten()[place[begins]],
            _windows(examples, around[0], index),
            *active,
            _windows(random, around[1], index),
            index[position[of_random]],
            batch.latent[of_random],
            batch.value[of_random],
        )

    def _pieces_of(self, tokens: TokenBatch, kept: Tensor) -> list[str]:
        found: list[str] = []
        ids, real = tokens.ids.cpu(), tokens.attention.cpu()
        for row in kept.any(1).nonzero()[:, 0].tolist():
            pieces = iter(self.pieces.of(ids[row][real[row]].tolist()))
            whole = [next(pieces) if is_real else "" for is_real in real[row].tolist()]
            found += [piece for piece, wanted in zip(whole, kept[row].tolist(), strict=True) if wanted]
        return found

    def merge(self, other: Surroundings) -> None:
        """Take into account what another one has seen."""
        self.parts += other.parts
        self.one_context = self.one_context or other.one_context
        self.pairs.merge(other.pairs)

    def result(self) -> SamplesResult:
        """The samples."""
        from qsae_samples.evaluation import SamplesResult

        return SamplesResult.of(self)


class Around(NamedTuple):
    """Windows in a batch's contexts, int64 ``[E]``: flat positions of the ends and of the middle."""

    left: Tensor
    right: Tensor
    """The last position that is in it."""
    middle: Tensor


class Text:
    """The contexts of a batch, as windows see them.

    Args:
        first: the number of the first context.
        before, after: positions of a window.
    """

    def __init__(self, tokens: TokenBatch, first: int, before: int, after: int) -> None:
        self.first, self.before, self.after = first, before, after
        self.n_contexts, self.n_positions = tokens.ids.shape
        real = tokens.attention.cpu()
        documents = torch.full(real.shape, -1) if tokens.documents is None else tokens.documents.cpu()
        self.documents = documents.to(torch.int64)
        begins = torch.ones_like(real)
        for tensor in (real, self.documents, tokens.segments):
            if tensor is not None:
                begins[:, 1:] &= tensor.cpu()[:, 1:] == tensor.cpu()[:, :-1]
        begins[:, 1:] = ~begins[:, 1:]
        begins[:, 0] = True
        self.run = begins.flatten().cumsum(0).view(real.shape)  # positions that a window may hold together

    def around(self, place: Tensor) -> Around:
        """The window around each place, within the same document and context."""
        middle = ((place >> POSITION_BITS) - self.first) * self.n_positions
        middle = middle + (place & ((1 << POSITION_BITS) - 1))
        run = self.run.flatten()
        start = torch.searchsorted(run, run[middle])
        end = torch.searchsorted(run, run[middle], right=True) - 1
        left = torch.maximum(middle - self.before, start)
        return Around(left, torch.minimum(middle + self.after, end), middle)

    def kept(self, windows: list[Around]) -> Tensor:
        """bool ``[C * T]``: the positions in any window."""
        changes = torch.zeros(self.n_contexts * self.n_positions + 1, dtype=torch.int64)
        for around in windows:
            ones = torch.ones_like(around.left)
            changes.index_add_(0, around.left, ones).index_add_(0, around.right + 1, -ones)
        return changes.cumsum(0)[:-1] > 0

    def places(self, flat: Tensor) -> Tensor:
        """The places of flat positions."""
        context = flat // self.n_positions + self.first
        return (context << POSITION_BITS) | (flat % self.n_positions)


def _within(place: Tensor, order: Tensor, text: Text) -> Tensor:
    """int64: the numbers of the places that are in a batch's contexts, in the order of places."""
    ends = torch.tensor([text.first, text.first + text.n_contexts]) << POSITION_BITS
    start, end = torch.searchsorted(place[order], ends).tolist()
    return order[start:end]


def _windows(number: Tensor, around: Around, index: Tensor) -> Windows:
    start = index[around.left]
    return Windows(number, start, around.right - around.left + 1, index[around.middle] - start)


def _active(
    around: Around, latent: Tensor, batch: Seen, position: Tensor, n_positions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How many activations each example's latent has in its window; where in it, and which, one example
    after the other."""
    key, order = (batch.latent * n_positions + position).sort()
    begin = latent * n_positions
    start = torch.searchsorted(key, begin + around.left)
    count = torch.searchsorted(key, begin + around.right, right=True) - start
    number = torch.arange(len(latent)).repeat_interleave(count)
    entry = torch.arange(len(number)) - (count.cumsum(0) - count)[number] + start[number]
    entry = order[entry]
    return count, position[entry] - around.left[number], batch.value[entry]
