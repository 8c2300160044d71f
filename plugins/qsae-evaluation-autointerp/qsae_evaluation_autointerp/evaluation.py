"""The evaluation ``autointerp``."""

from __future__ import annotations

import pathlib
from typing import cast

from qsae_core.conformance import Case
from qsae_core.contracts import Evaluation, EvaluationContext, LanguageModel
from qsae_core.errors import QsaeError
from qsae_evaluation_autointerp import AutointerpConfig
from qsae_evaluation_autointerp.firings import Firings
from qsae_evaluation_autointerp.judge import Judge
from qsae_evaluation_autointerp.rule import RuleJudge


class Autointerp(Evaluation):
    """Detection: a judge explains a latent from windows of one half of the documents, and tells by that
    explanation in which windows of the other half it fires.

    Values: ``balanced_accuracy``, mean over latents, by chance with explanations of other latents; None where
    the judge cannot tell; ``f1``; ``auc``, where the judge gives probabilities; ``control``, the balanced
    accuracy with explanations of other latents; ``gap``, the mean difference of the two, and ``gap_low``,
    ``gap_high``, between which it is in 95% of resamples of the latents; ``n_scored``, ``n_eligible``,
    ``n_failed``. Columns: ``score``, ``control``, ``auc``. Tables: ``labels``, ``left_out``.
    ``how`` names the judge.
    """

    version = 2
    observes = frozenset({"tokens"})

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """The defaults, and windows that the kit's few tokens have enough of."""
        few = {"top": 2, "ranks": 2, "positives": 2, "negatives": 1, "hard_negatives": 1}
        return [Case({}), Case({**few, "before": 1, "after": 1}), Case({**few, "latents": 3, "before": 2})]

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where the text cannot be told, or there is a coder for each of several layers."""
        if context.coder.by_layer():
            return "each layer's coder is judged alone"
        model = cast(LanguageModel, context.data.language_model())  # as ``observes`` says
        try:
            model.decode([0])
        except QsaeError as error:
            return error.what
        return None

    def start(self, context: EvaluationContext) -> Firings:
        """The first pass, which finds where latents fire."""
        config = cast(AutointerpConfig, self.config)
        return Firings(config, context, judge_of(config, context.device))


def judge_of(config: AutointerpConfig, device: str) -> Judge:
    """The judge that the options choose.

    Raises:
        JudgeError: if it cannot be had.
    """
    if config.judge == "hf":
        from qsae_evaluation_autointerp.local import LocalJudge

        return LocalJudge(cast(str, config.model), device)
    if config.judge == "endpoint":
        from qsae_evaluation_autointerp.endpoint import EndpointJudge

        return EndpointJudge(config)
    return RuleJudge()
