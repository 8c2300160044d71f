"""LanguageModel: vectors at its sites, read and replaced; and text that it goes on with.

Shapes: B contexts, T positions, D width, V tokens.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.errors import ConfigError, DataError
from qsae_core.places import SITE_NAMES


@dataclass(frozen=True)
class TokenBatch:
    """Contexts of a language model.

    Attributes:
        ids: int64 ``[B, T]``.
        counted: bool ``[B, T]``: positions that training and metrics use (no BOS, padding, other specials).
        attention: bool ``[B, T]``: positions that are real input; all true for packed text.
        documents: int64 ``[B, T]``: the number of the document that each token is from, -1 for a token of
            none; None where that is not known.
        segments: int64 ``[B, T]``, ascending: the parts of a context that do not see each other. Each is
            read as if it were alone, its positions counted from 0. None: a context is one part.
    """

    ids: Tensor
    counted: Tensor
    attention: Tensor
    documents: Tensor | None = None
    segments: Tensor | None = None

    def rows(self, which: slice | Tensor) -> TokenBatch:
        """Some of the contexts."""
        documents, segments = (None if t is None else t[which] for t in (self.documents, self.segments))
        return TokenBatch(self.ids[which], self.counted[which], self.attention[which], documents, segments)

    def behind_vectors(self, device: str | torch.device = "cpu") -> dict[str, Tensor | None]:
        """What stands behind the vectors at the counted positions, in order: the ``token_ids``, ``documents``
        and ``positions`` of a ``Batch``, int64 ``[N]`` each; documents are None where they are not known."""
        documents = None if self.documents is None else self.documents[self.counted].to(device)
        positions = self.counted.nonzero()[:, 1].to(device)
        return {
            "token_ids": self.ids[self.counted].to(device),
            "documents": documents,
            "positions": positions,
        }


class Site(NamedTuple):
    """A place in a language model where one vector a position passes; equal to the tuple of its parts."""

    layer: int
    """Counted from 0."""
    name: str
    """``resid_pre``, ``attn_out``, ``resid_mid``, ``mlp_in``, ``mlp_out`` or ``resid_post``."""

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}"

    def is_after(self, other: Site) -> bool:
        """Whether a model computes it later than another; of names that are not known, by the layers."""
        if self.layer != other.layer or not {self.name, other.name}.issubset(SITE_NAMES):
            return self.layer > other.layer
        return SITE_NAMES.index(self.name) > SITE_NAMES.index(other.name)


class Edit(NamedTuple):
    """What is put in place of the vectors at a site, while a forward pass runs."""

    replace: Callable[[Tensor, Mapping[Site, Tensor]], Tensor]
    """``(vectors [B, T, D], {site that is read: its vectors [B, T, D']}) -> [B, T, D]``, all float32.

    The sites that are read have the vectors that the same pass goes on with: edited, where they are edited
    too. In generation T is the number of new positions alone.
    """
    reads: tuple[Site, ...] = ()
    """Sites that the model computes before the edited one."""


Edits = Mapping[Site, Edit]


class LanguageModel(abc.ABC):
    """A language model whose vectors can be read and replaced at its sites."""

    name: str
    """Short name for paths and tables (``smollm2-135m``)."""
    forward_positions: int = 4096
    """Positions that one forward pass over many contexts takes best."""

    @abc.abstractmethod
    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Vectors float32 ``[B, T, D]`` at the sites, from one forward pass that ends after the last.

        Raises:
            QsaeError: if there is no such layer or site, or the batch has segments and the model cannot keep
                them apart.
        """

    @abc.abstractmethod
    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        """Logits ``[B, T, V]`` with the vectors at the sites replaced; everything downstream sees it.

        Raises:
            QsaeError: if there is no such layer or site, an edit reads a site that is not computed before the
                one that it edits (``not_before``), or the model cannot keep the batch's segments apart.
        """

    def logits_each(self, batch: TokenBatch, several: Sequence[Edits | None]) -> Iterator[Tensor]:
        """``logits`` under each of several sets of edits in their order, each computed when it is asked for.

        A model may compute what lies before the edits of several passes once.

        Raises:
            QsaeError: as ``logits``.
        """
        for edits in several:
            yield self.logits(batch, edits)

    @property
    @abc.abstractmethod
    def predicts_next(self) -> bool:
        """True for causal models (position t predicts token t + 1); False for encoders (no such loss)."""

    @property
    def has_logits(self) -> bool:
        """Whether ``logits`` can be had; False for a model that was saved without its head."""
        return True

    @property
    def max_positions(self) -> int | None:
        """Positions that a context has at most; None where no limit is known."""
        return None

    def fingerprint(self) -> str | None:
        """By which these very weights are known again; None where they are not."""
        return None

    def extend(self, ids: Tensor, cache: Any, edits: Edits) -> tuple[Tensor, Any]:
        """Go on from a cache by some positions: what ``generate`` calls, for models that can.

        Args:
            ids: int64 ``[B, T]``, the tokens at the new positions.
            cache: what the last call gave; None at the first position. It is used up.
            edits: as for ``logits``; they see the new positions alone.

        Returns:
            Logits ``[B, V]`` of the last position, and the cache behind it.

        Raises:
            QsaeError: as ``logits``; and if there are more positions than the model takes.
        """
        raise DataError(f"the language model {self.name} cannot generate text")

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        n_tokens: int,
        edits: Edits | None = None,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Tensor:
        """int64 ``[B, T + n_tokens]``, on the CPU: contexts, gone on with while the edits hold.

        Each position is computed once, and an edit sees it once: the whole prompt first, then one new
        position at a time. The last token is drawn and not computed.

        Args:
            prompt: int64 ``[B, T]``: contexts of one length, of 1 or more, without padding.
            temperature: 0: always the likeliest token; else tokens are drawn from ``softmax(logits / t)``.
            seed: of what is drawn.

        Raises:
            QsaeError: as ``extend``; if the model is no causal one; if an argument is none of the above.
        """
        _check_generation(self, prompt, n_tokens, temperature)
        generator = torch.Generator().manual_seed(seed)
        found, new, cache = [prompt.cpu()], prompt, None
        for _ in range(n_tokens):
            logits_BV, cache = self.extend(new, cache, edits or {})
            new = _drawn(logits_BV.float().cpu(), temperature, generator)
            found.append(new)
        return torch.cat(found, dim=1)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of tokens, special ones included.

        Args:
            ids: of one context.

        Raises:
            QsaeError: if the model's tokenizer is not known.
        """
        raise self._no_tokenizer()

    def partial_bytes(self, token: int) -> bytes | None:
        """The bytes of a token that is not whole characters, and decodes to U+FFFD by itself; None of other
        tokens, and where the tokenizer does not say."""
        return None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with none before or behind it (``begin_id``).

        Raises:
            QsaeError: if the model's tokenizer is not known.
        """
        raise self._no_tokenizer()

    @property
    def begin_id(self) -> int | None:
        """The token that a context begins with (BOS); None where the tokenizer has none.

        Raises:
            QsaeError: if the model's tokenizer is not known.
        """
        raise self._no_tokenizer()

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that stand for no text: those of a beginning, an end, padding and the like; not the one for
        text that the tokenizer does not know.

        Raises:
            QsaeError: if the model's tokenizer is not known.
        """
        raise self._no_tokenizer()

    def _no_tokenizer(self) -> DataError:
        return DataError(f"the tokenizer of the language model {self.name} is not known")


def not_before(edited: Site, read: Site, order: Sequence[str]) -> ConfigError:
    """The error for an edit that reads a site which is not computed before the one that it edits.

    Args:
        order: the names of a layer's sites, as the model computes them.
    """
    return ConfigError(
        f"the edit at {edited} reads {read}, which the language model does not compute before it",
        allowed=f"sites of earlier layers; within a layer, earlier ones of {' -> '.join(order)}",
        next="an edit is given the vectors of its own site first",
    )


def _check_generation(model: LanguageModel, prompt: Tensor, n_tokens: int, temperature: float) -> None:
    if not model.predicts_next:
        raise DataError(
            f"{model.name} is an encoder: it does not go on with a text", allowed="a causal language model"
        )
    if prompt.dim() != 2 or prompt.dtype != torch.int64 or not prompt.shape[1]:
        raise DataError(
            f"the prompt is {list(prompt.shape)} of {prompt.dtype}",
            allowed="int64 [B, T]: contexts of one length of at least 1",
            next="ids[None] of a single context",
        )
    if n_tokens < 0 or not temperature >= 0:
        raise ConfigError(
            f"{n_tokens} tokens at temperature {temperature} cannot be generated",
            allowed="0 tokens or more, at a temperature of 0 or more",
        )


def _drawn(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """int64 ``[B, 1]``: the next token of each context."""
    if temperature == 0:
        return logits_BV.argmax(1, keepdim=True)
    below_the_largest = logits_BV.double() - logits_BV.double().amax(1, keepdim=True)
    chances = (below_the_largest / temperature).softmax(1)  # so divided, nothing overflows but towards 0
    return torch.multinomial(chances, 1, generator=generator)
