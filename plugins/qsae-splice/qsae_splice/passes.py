"""A forward pass, as edits see it: which tokens, at which absolute positions, and which are the prompt's.

Shapes: B sequences, T positions of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import TokenBatch
from qsae_core.errors import ConfigError
from qsae_splice.positions import Positions


class Known(NamedTuple):
    """What a user may say of all passes."""

    special: Callable[[], frozenset[int]]
    """Tokens that are never edited; looked up once they are asked for."""
    prompt_tokens: int | Tensor | None = None
    """Real positions of each prompt, int64 ``[B]`` or one number for all."""


class Pass(NamedTuple):
    """The new positions of a pass; what a cache holds is behind them."""

    ids: Tensor
    """int64 ``[B, T]``."""
    places: Tensor
    """int64 ``[B, T]``: absolute positions, from 0 at the first real token of a sequence (or segment)."""
    prompt: Tensor
    """int64 ``[B, 1]`` or ``[B, T]``: how many real positions the prompt has."""
    open: Tensor
    """bool ``[B, T]``: what may be edited: real tokens that are not special."""

    def to(self, device: torch.device) -> Pass:
        """The same pass on a device."""
        return Pass(*(tensor.to(device) for tensor in self))

    def at(self, positions: Positions, text_of: Callable[[int], str]) -> Tensor:
        """bool ``[B, T]``: where an edit holds.

        Args:
            text_of: the text of a token.
        """
        return self.open & self._named(positions, text_of)

    def _named(self, positions: Positions, text_of: Callable[[int], str]) -> Tensor:
        word = positions.word
        if word == "prompt":
            return self.places < self.prompt
        if word == "generated":
            return self.places >= self.prompt
        if word == "last":
            return self.places == self.prompt - 1
        if word == "range":
            start, stop = self._counted(positions.start or 0), positions.stop
            within = self.places >= start
            return within if stop is None else within & (self.places < self._counted(stop))
        if word == "token":
            assert positions.pattern is not None
            ids, number = self.ids.unique(return_inverse=True)
            found = [positions.pattern.search(text_of(int(i))) is not None for i in ids]
            return torch.tensor(found, device=number.device)[number]
        return torch.ones_like(self.open)

    def _counted(self, number: int) -> Tensor:
        """From the sequence's beginning, or back from the end of the prompt."""
        return torch.full_like(self.prompt, number) if number >= 0 else self.prompt + number


def whole_pass(batch: TokenBatch, prompt_tokens: int | Tensor | None) -> Pass:
    """A pass over contexts from their beginning; of a batch with segments each segment is one.

    Args:
        prompt_tokens: real positions of each prompt, int64 ``[B]`` or one number for all; None: everything
            is prompt.
    """
    real_BT = batch.attention.long()
    segment_BT = torch.zeros_like(batch.ids)
    if batch.segments is not None:
        segment_BT[:, 1:] = (batch.segments[:, 1:] != batch.segments[:, :-1]).long().cumsum(1)
    lengths_BT = torch.zeros_like(batch.ids).scatter_add(1, segment_BT, real_BT)
    before_BT = lengths_BT.cumsum(1) - lengths_BT  # real positions of the segments before
    places_BT = real_BT.cumsum(1) - 1 - before_BT.gather(1, segment_BT)
    prompt = lengths_BT.gather(1, segment_BT)
    if prompt_tokens is not None:
        prompt = prompt_lengths(prompt_tokens, batch.ids)
    return Pass(batch.ids, places_BT, prompt, batch.counted & batch.attention)


def next_pass(ids: Tensor, seen: int, prompt: Tensor, special: Collection[int]) -> Pass:
    """A pass over sequences without padding that goes on behind ``seen`` positions.

    Args:
        prompt: int64 ``[B, 1]``.
        special: tokens that are never edited.
    """
    places_BT = (torch.arange(ids.shape[1], device=ids.device) + seen).expand_as(ids)
    return Pass(ids, places_BT, prompt.to(ids.device), not_special(ids, special))


def not_special(ids: Tensor, special: Collection[int]) -> Tensor:
    """bool, of the shape of the ids."""
    return ~torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype, device=ids.device))


def prompt_lengths(prompt_tokens: int | Tensor, ids: Tensor) -> Tensor:
    """int64 ``[B, 1]``.

    Raises:
        ConfigError: if they are as many as there are sequences, nor one number.
    """
    lengths = torch.as_tensor(prompt_tokens, dtype=torch.int64, device=ids.device).reshape(-1, 1)
    if len(lengths) not in (1, len(ids)):
        raise ConfigError(
            f"there are {len(lengths)} lengths of prompts and {len(ids)} sequences",
            where="prompt_tokens",
            allowed="one number, or one for each sequence",
        )
    return lengths.expand(len(ids), 1)
