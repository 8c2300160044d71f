"""Which of a task's prompts are read, and which of these train. Shapes: M drawn prompts."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsae_core.contracts import LanguageModel
from qsae_evaluation_sparse_probing import SaeProbesConfig
from qsae_evaluation_sparse_probing.prompts import Labelled

TRAIN_MOST, TEST_LEAST = 1024, 100
"""Of n prompts ``min(n - TEST_LEAST, TRAIN_MOST)`` train, as in sae-probes; the others test."""

Tokens = tuple[int, ...]


class Spelled(NamedTuple):
    """A prompt as the language model reads it."""

    tokens: Tokens
    """The last one is no special token."""
    truncated: bool
    """Whether its beginning was left out."""


class PromptSizes(NamedTuple):
    """How many prompts a task has."""

    positive: str
    """``target`` and the one that counts as true."""
    positives: int
    """Different prompts, as the next one."""
    negatives: int
    repeated: int
    """Rows left out, whose prompt stands in an earlier row with the same target."""
    contradictory: int
    """Prompts left out, which stand there with both targets."""
    unreadable: int
    """Of those drawn: left out, since they have no token, or the same ones as an earlier prompt."""
    truncated: int = 0
    """Of the examples; there are none where a class has too few prompts."""
    train_examples: int = 0
    test_examples: int = 0
    test_also_in_train: int = 0
    """Test examples whose prompt is in the training part too; 0 unless repeats are kept."""


class Drawn(NamedTuple):
    """A task's examples, those to train on first."""

    name: str
    tokens: list[Tokens]
    labels: NDArray[np.bool_]
    """``[M]``"""
    n_train: int


def speller(model: LanguageModel, context: int) -> Callable[[str], Spelled | None]:
    """What spells a prompt up to its last token that is not special, behind the token that contexts begin
    with; None for a prompt that has no such token.

    Raises:
        QsaeError: if the model's tokenizer is not known.
    """
    special = model.special_ids
    begin = () if model.begin_id is None else (model.begin_id,)
    room = context - len(begin)

    def spell(prompt: str) -> Spelled | None:
        ids = model.encode(prompt)
        while ids and ids[-1] in special:
            ids.pop()
        return Spelled((*begin, *ids[-room:]), len(ids) > room) if ids else None

    return spell


def draw(
    task: Labelled, spell: Callable[[str], Spelled | None], config: SaeProbesConfig
) -> tuple[Drawn | None, PromptSizes]:
    """As many prompts of each class, drawn by the seed without regard to anything else.

    Returns:
        None in place of the examples where a class has fewer than ``config.least_prompts``.
    """
    rows, repeated, contradictory = _usable(task, config.repeats)
    generator = np.random.default_rng([config.seed, zlib.crc32(task.name.encode())])
    order = generator.permutation(rows)
    seen: set[Tokens] | None = None if config.repeats else set()
    classes, unreadable = [], 0
    for label in (False, True):
        of_class = order[task.labels[order] == label]
        found, passed_over = _spelled(task, of_class, spell, config.prompts // 2, seen)
        classes.append(found)
        unreadable += passed_over
    positives = int(task.labels[rows].sum())
    passed_over_rows = (repeated, contradictory, unreadable)
    sizes = PromptSizes(f"target {task.positive}", positives, len(rows) - positives, *passed_over_rows)
    count = min(map(len, classes))
    if count < config.least_prompts:
        return None, sizes
    half = min(2 * count - TEST_LEAST, TRAIN_MOST) // 2
    parts = [
        generator.permutation([(label, place) for label in (0, 1) for place in range(*bounds)])
        for bounds in ((0, half), (half, count))
    ]
    chosen = [classes[label][place] for part in parts for label, place in part]
    drawn = Drawn(task.name, [s.tokens for s in chosen], np.concatenate(parts)[:, 0] == 1, 2 * half)
    trained = set(drawn.tokens[: drawn.n_train])
    sizes = sizes._replace(
        truncated=sum(s.truncated for s in chosen),
        train_examples=drawn.n_train,
        test_examples=len(chosen) - drawn.n_train,
        test_also_in_train=sum(tokens in trained for tokens in drawn.tokens[drawn.n_train :]),
    )
    return drawn, sizes


def _usable(task: Labelled, repeats: bool) -> tuple[NDArray[np.int64], int, int]:
    """Rows that may be drawn; how many only repeat an earlier one, and how many prompts have both labels."""
    if repeats:
        return np.arange(len(task.prompts)), 0, 0
    first: dict[str, int] = {}
    both: set[str] = set()
    repeated = 0
    for row, prompt in enumerate(task.prompts):
        if first.setdefault(prompt, row) != row:
            same = task.labels[first[prompt]] == task.labels[row]
            repeated += int(same)
            both |= set() if same else {prompt}
    rows = [row for prompt, row in first.items() if prompt not in both]
    return np.array(rows, dtype=np.int64), repeated, len(both)


def _spelled(
    task: Labelled,
    rows: NDArray[np.int64],
    spell: Callable[[str], Spelled | None],
    most: int,
    seen: set[Tokens] | None,
) -> tuple[list[Spelled], int]:
    """The first ``most`` that can be read, and how many were passed over.

    Args:
        seen: tokens that are not taken again; None: they are.
    """
    found: list[Spelled] = []
    passed_over = 0
    for row in rows:
        if len(found) == most:
            break
        spelled = spell(task.prompts[row])
        if spelled is None or (seen is not None and spelled.tokens in seen):
            passed_over += 1
            continue
        if seen is not None:
            seen.add(spelled.tokens)
        found.append(spelled)
    return found, passed_over
