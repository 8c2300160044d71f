"""The evaluation ``sae-probes``."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from qsae_core import QsaeError
from qsae_core.conformance import Case
from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    LanguageModel,
    Observation,
    Result,
)
from qsae_core.errors import ConfigError
from qsae_evaluation_sparse_probing import SaeProbesConfig
from qsae_evaluation_sparse_probing.drawing import Drawn, PromptSizes, Tokens, draw, speller
from qsae_evaluation_sparse_probing.estimates import document_weights
from qsae_evaluation_sparse_probing.examples import Examples
from qsae_evaluation_sparse_probing.last_tokens import LastTokens, as_rows, codes_of, read_last
from qsae_evaluation_sparse_probing.measuring import SAE_PROBES, Chosen, Found, Task, measure
from qsae_evaluation_sparse_probing.prompts import labelled_prompts, missing
from qsae_evaluation_sparse_probing.report import largest_differences, report


class SaeProbes(Evaluation):
    """How well k latents tell labels of prompts from the code of the last token (Kantamneni et al., 2025).

    It sees no held-out text: the language model reads the prompts, once, at the sites that the coder reads.
    Values are those of ``SparseProbing``, with F1 as sae-probes has it: the mean of both classes, weighted by
    their examples.
    """

    observes = frozenset({"tokens"})

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Prompts in the words of the kit's language model, labelled by the last one."""
        generator = np.random.default_rng(0)
        words = generator.integers(1, 24, (400, 4))
        lines = [f"{' '.join(f'w{word}' for word in row)},{int(row[-1] % 2)}" for row in words]
        (folder / "odd.csv").write_text("\n".join(["prompt,target", *lines]), encoding="utf-8")
        few = {"data": str(folder), "controls": 1, "resamples": 4}
        return [Case({**few, "k": [1, 2]}), Case({**few, "k": [1], "repeats": True})]

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where prompts cannot be had or read, or it is not known where the coder reads."""
        model = cast(LanguageModel, context.data.language_model())  # as ``observes`` says
        if len(context.data.source_sites) != context.coder.shape.layers_in:
            return "the data source does not say from which sites of the language model its vectors come"
        try:
            speller(model, cast(SaeProbesConfig, self.config).context)
        except QsaeError as error:
            return f"no prompt can be read: {error.what}"
        return missing(cast(SaeProbesConfig, self.config))

    def start(self, context: EvaluationContext) -> Prompted:
        """What asks the language model when it is asked for its result.

        Raises:
            QsaeError: if the prompts are not such, or the language model does not take so many tokens.
        """
        config = cast(SaeProbesConfig, self.config)
        model = cast(LanguageModel, context.data.language_model())
        if model.max_positions is not None and config.context > model.max_positions:
            raise ConfigError(
                f"{model.name} takes at most {model.max_positions} positions, not {config.context}",
                where="sae-probes: context",
                allowed=f"at most {model.max_positions}",
            )
        return Prompted(config, context, self._prompts(model), self._read)

    def _prompts(self, model: LanguageModel) -> Prompts:
        """Read from their files and spelled once for all coders that are asked."""
        known: tuple[LanguageModel, Prompts] | None = getattr(self, "_known_prompts", None)
        if known is None or known[0] is not model:
            config = cast(SaeProbesConfig, self.config)
            spell = speller(model, config.context)
            found = {task.name: draw(task, spell, config) for task in labelled_prompts(config)}
            known = self._known_prompts = model, found
        return known[1]

    def _read(self, context: EvaluationContext, prompts: Prompts) -> LastTokens:
        """The vectors, read once for all coders of the same sites."""
        model, sites = cast(LanguageModel, context.data.language_model()), context.data.source_sites
        known = getattr(self, "_known_vectors", None)
        if known is None or known[0] is not model or known[1] != sites:
            asked = [tokens for drawn, _ in prompts.values() if drawn for tokens in drawn.tokens]
            known = self._known_vectors = model, sites, read_last(context.data, model, asked)
        found: LastTokens = known[2]
        return found


Prompts = dict[str, tuple[Drawn | None, PromptSizes]]
"""Task -> its examples, and how many there are."""


class Prompted(Accumulator):
    """Needs nothing of the held-out stream."""

    n_tokens = 1

    def __init__(
        self,
        config: SaeProbesConfig,
        context: EvaluationContext,
        prompts: Prompts,
        read: Callable[[EvaluationContext, Prompts], LastTokens],
    ) -> None:
        self.config, self.context, self.prompts, self.read = config, context, prompts, read

    def update(self, observation: Observation) -> None:
        """Nothing."""

    def merge(self, other: Prompted) -> None:
        """Nothing."""

    def result(self) -> Result:
        """Read the prompts, train the probes, and measure."""
        vectors = self.read(self.context, self.prompts)
        found = {
            name: self._measured(drawn, vectors)
            for name, (drawn, _) in self.prompts.items()
            if drawn is not None
        }
        sizes = {name: own for name, (_, own) in self.prompts.items()}
        counts = {"n_prompts": float(sum(s.train_examples + s.test_examples for s in sizes.values()))}
        told = report(found, sizes, counts, sorted(set(self.config.k)))
        largest = largest_differences(found, self.context.coder.n_latents)
        return replace(told, per_latent={"largest_difference": largest})

    def _measured(self, drawn: Drawn, read: LastTokens) -> Found:
        vectors = read.rows(drawn.tokens)
        numbers: dict[Tokens, int] = {}  # of different test prompts, which are what is resampled
        tested = [numbers.setdefault(tokens, len(numbers)) for tokens in drawn.tokens[drawn.n_train :]]
        chosen = Chosen(
            codes_of(self.context.coder, vectors, self.context.batch_size),
            as_rows(vectors),
            np.array([tokens[-1] for tokens in drawn.tokens]),
            np.array([-1] * drawn.n_train + tested),
        )
        rows = np.arange(len(drawn.tokens))
        examples = Examples(rows[: drawn.n_train], rows[:0], rows[drawn.n_train :])
        seed = [self.config.seed, zlib.crc32(drawn.name.encode())]
        weights_RD = document_weights(len(numbers), self.config.resamples, seed)
        task = Task(drawn.name, examples, drawn.labels)
        return measure(task, chosen, weights_RD, self.config, SAE_PROBES)
