"""The evaluation ``absorption``. Shapes: N words, D width, F latents."""

from __future__ import annotations

import string
from typing import Any, cast

import numpy as np
import torch
from scipy.sparse import vstack

from qsae_core import QsaeError
from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    LanguageModel,
    Observation,
    Result,
)
from qsae_evaluation_absorption import AbsorptionConfig
from qsae_evaluation_absorption.findings import Names, result_of
from qsae_evaluation_absorption.probes import Bools, Floats, Ints
from qsae_evaluation_absorption.prompts import Vocabulary, beginning, prompts, unspelt, vectors, vocabulary_of
from qsae_evaluation_absorption.reading import atoms, compressed, several_layers
from qsae_evaluation_absorption.steps import Examples, measured

MIN_LETTERS = 20
"""That have to pass, as SAEBench asks."""
TRAIN_SHARE = 0.8
NAMES = Names(
    "mean_absorption_fraction_score",
    "std_dev_absorption_fraction_score",
    "mean_full_absorption_score",
    "std_dev_full_absorption_score",
    "mean_num_split_features",
    "std_dev_num_split_features",
    "letter",
)


class Absorption(Evaluation):
    """First-letter absorption (Chanin et al., 2024; SAEBench, 2025). Higher is worse.

    It sees no held-out text: the language model reads prompts of its own, once, in ``result``.
    """

    observes = frozenset({"tokens"})

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where the coder is of several layers or the language model cannot read the prompts."""
        data, model = context.data, cast(LanguageModel, context.data.language_model())
        if (reason := several_layers(context)) is not None:
            return reason
        if len(data.source_sites) != 1 or len(data.target_sites) != 1:
            return "the data source does not say from which site of the language model its vectors come"
        if not model.predicts_next:
            return f"{model.name} is an encoder, and prompts that give examples are for causal models"
        if not model.has_logits:
            return f"{model.name} was saved without its head, so the size of its vocabulary is not known"
        try:
            part = unspelt(model)
        except QsaeError as error:
            return error.what
        return None if part is None else f"the tokens of {model.name} cannot spell {part!r} of the prompts"

    def start(self, context: EvaluationContext) -> Prompted:
        """What asks the language model when it is asked for its result."""
        model = cast(LanguageModel, context.data.language_model())
        return Prompted(cast(AbsorptionConfig, self.config), context, self._vocabulary(model))

    def _vocabulary(self, model: LanguageModel) -> Vocabulary:
        """The model's, decoded once for all that ask."""
        known: tuple[LanguageModel, Vocabulary] | None = getattr(self, "_known", None)
        if known is None or known[0] is not model:
            known = self._known = model, vocabulary_of(model)
        return known[1]


class Prompted(Accumulator):
    """Needs nothing of the held-out stream."""

    n_tokens = 1

    def __init__(self, config: AbsorptionConfig, context: EvaluationContext, vocabulary: Vocabulary) -> None:
        self.config, self.context, self.vocabulary = config, context, vocabulary

    def update(self, observation: Observation) -> None:
        """Nothing."""

    def merge(self, other: Prompted) -> None:
        """Nothing."""

    def result(self) -> Result:
        """Read the prompts, train the probes, and measure."""
        words, train = _drawn(self.vocabulary, self.config)
        letters = np.array([self.vocabulary.letter(word) for word in words], dtype="<U1")
        labels: Bools = letters[:, None] == np.array(list(string.ascii_lowercase))
        rows = self._prompts(words, train)
        x, codes = self._read(rows)
        examples = Examples(x, codes, labels, train)
        concepts = measured(examples, atoms(self.context), string.ascii_lowercase, self.config.seed)
        texts = self.vocabulary.texts
        return result_of(
            concepts, NAMES, MIN_LETTERS, self.context.coder.n_latents, lambda row: texts[words[row]]
        )

    def _prompts(self, words: Ints, train: Bools) -> list[list[int]]:
        """Of each word; its examples are words of its own side of the split."""
        start = beginning(self.context.data)
        model = cast(LanguageModel, self.context.data.language_model())
        made: dict[int, list[int]] = {}
        for number, side in enumerate((train, ~train)):
            own = [int(word) for word in words[side]]
            asked = prompts(own, own, self.vocabulary, model.encode, start, self.config.seed + number)
            made |= dict(zip(side.nonzero()[0], asked, strict=True))
        return [made[row] for row in range(len(words))]

    @torch.no_grad()
    def _read(self, rows: list[list[int]]) -> tuple[Floats, Any]:
        """What the coder reconstructs ``[N, D]``, and its codes, in the order of the prompts."""
        coder, data = self.context.coder, self.context.data
        model = cast(LanguageModel, data.language_model())
        targets: list[Floats] = []
        codes, order = [], []
        for numbers, x, y in vectors(data, model, rows):
            codes.append(compressed(coder.encode(x.to(coder.device))))
            targets.append(y.cpu().double().numpy())
            order.append(numbers.numpy())
        if not rows:
            width = coder.shape.d_out
            return np.zeros((0, width)), compressed(
                coder.encode(torch.zeros(0, coder.shape.d_in, device=coder.device))
            )
        back = np.argsort(np.concatenate(order))
        return np.concatenate(targets)[back], vstack(codes, format="csr")[back]


def _drawn(vocabulary: Vocabulary, config: AbsorptionConfig) -> tuple[Ints, Bools]:
    """The words, and which of them probes are trained on."""
    every = vocabulary.words()
    generator = np.random.default_rng(config.seed)
    n = len(every) if config.words is None else min(config.words, len(every))
    words = np.array([every[i] for i in generator.permutation(len(every))[:n]], dtype=np.int64)
    return words, np.arange(n) < int(TRAIN_SHARE * n)
