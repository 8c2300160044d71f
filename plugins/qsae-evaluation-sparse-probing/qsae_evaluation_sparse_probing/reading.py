"""The first pass: the text, its labels, and the tokens that are worth a second look.

Shapes: N tokens of the language model, T tasks, M chosen tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsae_core.contracts import Observation
from qsae_evaluation_sparse_probing import SparseProbingConfig
from qsae_evaluation_sparse_probing.examples import TEST, Examples, choose, parts_of
from qsae_evaluation_sparse_probing.measuring import Task
from qsae_evaluation_sparse_probing.source import read_source
from qsae_evaluation_sparse_probing.spelling import Decode, Speller
from qsae_evaluation_sparse_probing.tasks import NEGATIVE, NO_TASK, POSITIVE, TASKS, labels_of

Integers = NDArray[np.int64]
PLACES = 2**32
"""More than a context has positions."""


def keys_of(contexts: Integers, positions: Integers) -> Integers:
    """A number for each place in the held-out text, ascending in its order."""
    return contexts * PLACES + positions


class Text(NamedTuple):
    """Tokens in the order of the text."""

    keys: Integers
    """``[N]``: where each stands (``keys_of``)."""
    ids: Integers
    documents: Integers
    counted: Integers
    """1 where the token has a vector, else 0."""


class Sizes(NamedTuple):
    """How many tokens a task has; no examples where there are too few of a class in a part."""

    positives: int
    negatives: int
    train_examples: int
    test_examples: int
    test_documents: int


@dataclass
class Plan:
    """What the second pass looks at.

    Attributes:
        keys, tokens: ``[M]`` of the chosen tokens, in the order of the text.
        test_documents: as in ``Chosen``.
        n_test: documents of the test part.
        tasks: those that there are tokens for.
        sizes: of every task.
        counts: of the text, by name.
    """

    keys: Integers
    tokens: Integers
    test_documents: Integers
    n_test: int
    tasks: list[Task] = field(default_factory=list)
    sizes: dict[str, Sizes] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


def text_of(observation: Observation) -> Text | None:
    """The tokens of documents in a batch's contexts; None where no token has a vector or a known document."""
    tokens, origin = observation.tokens, observation.origin
    if tokens is None or origin is None or not len(origin.context) or tokens.documents is None:
        return None
    counted = tokens.counted.cpu()
    first = int(origin.context[0]) - int(counted.nonzero()[0, 0])
    of_document = tokens.documents.cpu() >= 0
    rows, positions = of_document.nonzero(as_tuple=True)
    keys = keys_of((rows + first).numpy().astype(np.int64), positions.numpy())
    found = (tokens.ids.cpu(), tokens.documents.cpu(), counted)
    return Text(keys, *(each[of_document].numpy().astype(np.int64) for each in found))


def joined(parts: list[Text]) -> Text:
    """All tokens, in the order of the text."""
    if not parts:
        return Text(*(np.zeros(0, np.int64) for _ in Text._fields))
    whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(whole[0], kind="stable")
    return Text(*(column[order] for column in whole))


def plan_of(text: Text, decode: Decode, config: SparseProbingConfig) -> Plan:
    """Label every token, and choose the examples of each task."""
    labels_NT, n_documents, n_python = _labels(text, decode)
    labels_NT[text.counted == 0] = NO_TASK
    labelled_N = (labels_NT != NO_TASK).any(1)
    documents, number_N = np.unique(text.documents[labelled_N], return_inverse=True)
    parts_N = np.full(len(text.ids), -1)
    parts_D = parts_of(_class_counts(labels_NT[labelled_N], number_N, len(documents)))
    parts_N[labelled_N] = parts_D[number_N]
    most = (config.train_examples, config.test_examples, config.test_examples)
    examples = {
        name: choose(labels_NT[:, number], parts_N, most, config.least_examples, config.seed)
        for number, name in enumerate(TASKS)
    }
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *_rows(examples)]))
    tested = documents[parts_D == TEST]
    of_test = np.where(parts_N[rows] == TEST, np.searchsorted(tested, text.documents[rows]), -1)
    plan = Plan(text.keys[rows], text.ids[rows], of_test, len(tested))
    for number, (name, own) in enumerate(examples.items()):
        plan.sizes[name] = _sizes(labels_NT[:, number], own, text.documents)
        if own is not None:
            among = Examples(*(np.searchsorted(rows, part) for part in own))
            plan.tasks.append(Task(name, among, labels_NT[rows, number] == POSITIVE))
    plan.counts = {
        "n_tokens": float(text.counted.sum()),
        "n_documents": float(n_documents),
        "n_documents_not_python": float(n_documents - n_python),
    }
    return plan


def _class_counts(labels_NT: NDArray[np.int8], number_N: Integers, n_documents: int) -> Integers:
    """``[D, 2 T]``: tokens of each class of each task in each document."""
    classes = np.concatenate([labels_NT == NEGATIVE, labels_NT == POSITIVE], axis=1)
    columns = [np.bincount(number_N[column], minlength=n_documents) for column in classes.T]
    return np.stack(columns, axis=1)


def _sizes(labels_N: NDArray[np.int8], own: Examples | None, documents_N: Integers) -> Sizes:
    classes = int((labels_N == POSITIVE).sum()), int((labels_N == NEGATIVE).sum())
    if own is None:
        return Sizes(*classes, 0, 0, 0)
    return Sizes(*classes, len(own.train), len(own.test), len(np.unique(documents_N[own.test])))


def _rows(examples: dict[str, Examples | None]) -> list[Integers]:
    return [part for own in examples.values() if own is not None for part in own]


def _labels(text: Text, decode: Decode) -> tuple[NDArray[np.int8], int, int]:
    """``[N, T]``, and how many documents there are, and are Python. The last one may be cut anywhere."""
    labels_NT = np.full((len(text.ids), len(TASKS)), NO_TASK, np.int8)
    order = np.argsort(text.documents, kind="stable")
    begins = np.flatnonzero(np.diff(text.documents[order], prepend=-1))
    speller, n_python = Speller(decode), 0
    for rows in np.split(order, begins[1:]) if len(order) else []:
        spelled = speller.spell(text.ids[rows].tolist())
        source = read_source(spelled.text, cut=rows[-1] == len(order) - 1)
        if source is not None:
            n_python += 1
            labels_NT[rows] = labels_of(spelled, source, (text.keys[rows] // PLACES).tolist())
    return labels_NT, len(begins), n_python
