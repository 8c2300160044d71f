"""The second pass: the text of windows, and where in them latents fire.

Shapes: Q questions, E windows, T positions.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, cast

import torch
from qsae_samples import POSITION_BITS, Pieces, Seen, seen
from qsae_samples import Text as Contexts
from torch import Tensor

from qsae_core.contracts import Accumulator, LanguageModel, Observation, Result, TokenBatch
from qsae_evaluation_autointerp.choice import Choice
from qsae_evaluation_autointerp.firings import Firings
from qsae_evaluation_autointerp.judge import Window


class Firing(NamedTuple):
    """Where a latent fires in a window."""

    at: tuple[int, ...]
    """Which of its tokens."""
    value: tuple[float, ...]


class Surroundings(Accumulator):
    """The windows around chosen places, and what one latent, or more of them, does there."""

    def __init__(self, firings: Firings, choice: Choice) -> None:
        self.firings, self.choice, self.config = firings, choice, firings.config
        model = cast(LanguageModel, firings.context.data.language_model())  # as Autointerp.observes says
        self.pieces = Pieces(model.decode)
        latents, places = [], []
        for chosen in choice.latents:
            own = torch.cat([chosen.top, chosen.ranks, chosen.positives, chosen.hard, choice.pool])
            places.append(own)
            latents.append(torch.full_like(own, chosen.latent))
        place, latent = torch.cat(places), torch.cat(latents)
        order = place.argsort(stable=True)
        self._place, self._latent = place[order], latent[order]
        self.windows: dict[int, Window] = {}
        self.firing: dict[tuple[int, int], Firing] = {}
        """(latent, place) -> where it fires in the window there; those where it is silent are not in it."""

    def update(self, observation: Observation) -> None:
        """Read the windows of a batch's contexts."""
        assert observation.tokens is not None  # as Autointerp.observes says
        batch = seen(observation, self.firings.options)
        if len(batch.place) == 0:
            return
        tokens, counted = observation.tokens, observation.tokens.counted.cpu()
        first = batch.context - int(counted.nonzero()[0, 0])
        text = Contexts(tokens, first, self.config.before, self.config.after)
        ends = torch.tensor([first, first + text.n_contexts]) << POSITION_BITS
        start, end = torch.searchsorted(self._place, ends).tolist()
        place, latent = self._place[start:end], self._latent[start:end]
        self._keep_firings(latent, place, text, batch, counted.flatten().nonzero()[:, 0])
        self._keep_windows(place.unique(), tokens, text)

    def _keep_firings(
        self, latent: Tensor, place: Tensor, text: Contexts, batch: Seen, position: Tensor
    ) -> None:
        """Args:
        position: where in the contexts, one after the other, each row of the batch is.
        """
        around = text.around(place)
        n_positions = text.n_contexts * text.n_positions
        position = position[batch.row]
        key, order = (batch.latent * n_positions + position).sort()
        starts = torch.searchsorted(key, latent * n_positions + around.left)
        ends = torch.searchsorted(key, latent * n_positions + around.right, right=True)
        fires = (starts < ends).nonzero()[:, 0]
        columns = (t[fires].tolist() for t in (latent, place, starts, ends, around.left))
        for j, where, start, end, left in zip(*columns, strict=True):
            entries = order[start:end]
            at = tuple((position[entries] - left).tolist())
            self.firing[j, where] = Firing(at, tuple(batch.value[entries].tolist()))

    def _keep_windows(self, place: Tensor, tokens: TokenBatch, text: Contexts) -> None:
        around, width = text.around(place), text.n_positions
        ids, real = tokens.ids.cpu(), tokens.attention.cpu()
        documents = text.documents.flatten()[around.middle]
        pieces: dict[int, list[str]] = {}
        columns = (t.tolist() for t in (place, documents, around.left, around.right))
        for where, document, left, right in zip(*columns, strict=True):
            row, start, end = left // width, left % width, right % width + 1
            if row not in pieces:
                found = iter(self.pieces.of(ids[row][real[row]].tolist()))
                pieces[row] = [next(found) if is_real else "" for is_real in real[row].tolist()]
            known = document if document >= 0 else -1 - (text.first + row)
            self.windows[where] = Window(
                tuple(ids[row, start:end].tolist()), tuple(pieces[row][start:end]), known
            )

    def merge(self, other: Surroundings) -> None:
        """Take into account what another one has read."""
        self.windows |= other.windows
        self.firing |= other.firing

    def result(self) -> Result:
        """What the judge makes of it."""
        from qsae_evaluation_autointerp.detection import Task, judged_tasks, tasks
        from qsae_evaluation_autointerp.findings import found

        shown = tasks(self)
        left_out = self.choice.left_out + Counter(reason for reason in shown if isinstance(reason, str))
        verdicts, fault = judged_tasks([t for t in shown if isinstance(t, Task)], self.firings.judge)
        return found(self.firings, self.choice._replace(left_out=left_out), verdicts, fault)
