"""Prompts that ask for a word's first letter, made of a language model's own tokens.

Shapes: B prompts, T positions, D width.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from qsae_core.contracts import DataSource, LanguageModel, TokenBatch

SEPARATOR, TEMPLATE = "\n", " has the first letter:"
"""A line is SEPARATOR, word, TEMPLATE, space, letter."""
EXAMPLES = 10
"""Lines before the word."""


class Vocabulary:
    """Texts of a language model's tokens.

    Args:
        texts: by token.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def words(self) -> list[int]:
        """Tokens that are ASCII letters alone, after one space or none."""
        letters = set(string.ascii_letters)
        return [
            i
            for i, text in enumerate(self.texts)
            if (word := text.removeprefix(" ")) and letters >= set(word)
        ]

    def letter(self, token: int) -> str:
        """The lower-case first letter of a word."""
        return self.texts[token].removeprefix(" ")[0].lower()


def unspelt(model: LanguageModel) -> str | None:
    """A part of the prompts that the model's tokens cannot spell; None where they can.

    Raises:
        QsaeError: if its tokenizer is not known.
    """
    parts = [SEPARATOR, TEMPLATE, *(f" {letter}" for letter in string.ascii_uppercase)]
    return next((part for part in parts if model.decode(model.encode(part)) != part), None)


def vocabulary_of(model: LanguageModel) -> Vocabulary:
    """The text of every token that the model predicts, each decoded alone.

    Raises:
        QsaeError: if its tokenizer is not known, or it has no logits, from which their number is known.
    """
    one = torch.zeros(1, 1, dtype=torch.int64)
    attention = torch.ones_like(one, dtype=torch.bool)
    n_tokens = model.logits(TokenBatch(one, attention, attention)).shape[-1]
    return Vocabulary([model.decode([i]) for i in range(n_tokens)])


def beginning(data: DataSource) -> list[int]:
    """What a context of the data begins with that does not count, such as BOS."""
    contexts, _ = next(iter(data.held_out_contexts(1, 1)))
    return [] if bool(contexts.counted[0, 0]) else [int(contexts.ids[0, 0])]


def prompts(
    words: Sequence[int],
    others: Sequence[int],
    vocabulary: Vocabulary,
    encode: Callable[[str], list[int]],
    start: list[int],
    seed: int,
) -> Iterator[list[int]]:
    """For each word a prompt that ends with it: ``EXAMPLES`` lines of random other words (all, where there
    are fewer) with their letters, and the line that it begins.

    In a causal model what follows a word does not change its vector, so the rest of its line is left out.
    """
    generator = np.random.default_rng(seed)
    newline, template = encode(SEPARATOR), encode(TEMPLATE)
    letters = {c: encode(f" {c.upper()}") for c in string.ascii_lowercase}
    for word in words:
        drawn = generator.choice(len(others), min(EXAMPLES + 1, len(others)), replace=False)
        examples = [others[i] for i in drawn if others[i] != word][:EXAMPLES]
        lines = [
            token
            for example in examples
            for token in (*newline, example, *template, *letters[vocabulary.letter(example)])
        ]
        yield [*start, *lines, *newline, word]


@torch.no_grad()
def vectors(
    data: DataSource, model: LanguageModel, rows: Sequence[list[int]]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Numbers of some prompts, and the vectors at their last token: at the data's source site and at its
    target site, ``[B, D]`` each. Prompts of one length are read together.
    """
    sites = data.source_sites[0], data.target_sites[0]
    by_length: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(number)
    for length, numbers in sorted(by_length.items()):
        at_once = max(1, model.forward_positions // length)
        for first in range(0, len(numbers), at_once):
            some = numbers[first : first + at_once]
            ids = torch.tensor([rows[i] for i in some])
            attention = torch.ones_like(ids, dtype=torch.bool)
            found = model.read(TokenBatch(ids, attention, attention), list(dict.fromkeys(sites)))
            x, y = (found[site][:, -1] for site in sites)
            yield torch.tensor(some), x, y
