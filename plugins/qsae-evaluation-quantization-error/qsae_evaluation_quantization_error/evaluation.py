"""The evaluation ``quantization-error``. Shapes: B tokens, D width, F latents."""

from __future__ import annotations

from typing import cast

import torch

from qsae_core.contracts import Accumulator, Evaluation, EvaluationContext, Observation, Result
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.controls import Forms, forms
from qsae_evaluation_quantization_error.dense_forms import encode
from qsae_evaluation_quantization_error.other_seed import load_other_seed
from qsae_evaluation_quantization_error.pairs import PairSums, active, one_group, shared
from qsae_evaluation_quantization_error.report import report
from qsae_evaluation_quantization_error.seen import Seen


class QuantizationError(Evaluation):
    """What quantization does to a coder beside its full-precision twin: README.md has every formula.

    Latents of one number are compared. Where the twin was trained apart, that takes in what training did
    otherwise; ``same_latent_share`` says whether they are the same latents at all.
    """

    version = 2
    observes = frozenset({"twin"})

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where latents of coder and twin are not of the same kind."""
        coder, twin = context.coder, context.twin
        assert twin is not None  # as ``observes`` says
        if coder.by_layer():
            return "it compares the coder of each layer with its own twin, and not all of them as one"
        if coder.chooses_layer:
            return (
                "coder and twin may choose different layers for a token, and their codes are not comparable"
            )
        if (coder.n_latents, coder.shape) != (twin.n_latents, twin.shape):
            return (
                f"the coder has {coder.n_latents} latents and its twin {twin.n_latents}: a level is not "
                "compared with the whole twin"
            )
        return None

    def start(self, context: EvaluationContext) -> TwinPass:
        """What has seen nothing.

        Raises:
            ArtifactError, ConfigError: if the coder of another seed is none that stands beside the twin.
        """
        config = cast(QuantizationErrorConfig, self.config)
        assert context.twin is not None
        nothing = Forms(None, None, None, None)
        made = nothing if config.control_tokens == 0 else forms(context.coder, context.twin)
        return TwinPass(config, context, Seen(config, context, made, load_other_seed(config, context)))


class TwinPass(Accumulator):
    """Everything but the coder at other thresholds, which the first pass finds.

    Args:
        seen: what has seen nothing.
    """

    def __init__(self, config: QuantizationErrorConfig, context: EvaluationContext, seen: Seen) -> None:
        self.context, self.config, self.seen = context, config, seen

    def update(self, observation: Observation) -> None:
        """Take one batch into account."""
        self.seen.add(observation)

    def merge(self, other: TwinPass) -> None:
        """Take into account what another one has seen."""
        self.seen.merge(other.seen)

    def next_pass(self) -> EqualL0 | None:
        """The coder with fitted thresholds, where it has any."""
        fits = self.seen.controls.fit is not None and self.seen.controls.fit.wanted
        return EqualL0(self) if fits else None

    def result(self) -> Result:
        """All that README.md names."""
        return report(self.seen, self.context)


class EqualL0(Accumulator):
    """The coder with its thresholds times one factor, so that its L0 is the twin's.

    Args:
        first: the first pass, which is complete.
    """

    def __init__(self, first: TwinPass) -> None:
        self.first, self.n_tokens, self.begun = first, first.config.control_tokens, 0
        fit = first.seen.controls.fit
        assert fit is not None  # as next_pass says
        self.form = fit.fitted()
        self.sums = PairSums(first.context.coder.n_latents, device=first.context.device)

    @torch.no_grad()
    def update(self, observation: Observation) -> None:
        """Encode a batch again."""
        assert observation.twin_codes is not None
        assert observation.inputs is not None
        first = self.begun if observation.first is None else observation.first
        n = self.first.seen.controls.rows(first, len(observation.target))
        self.begun = first + len(observation.target)
        if n:
            of_twin, of_coder = self.first.seen.writes
            a = active(observation.twin_codes.first(n), of_twin)
            b = active(encode(self.form, observation.inputs[:n]), of_coder)
            self.sums.add(a, b, shared(a, b), one_group(n, a))

    def merge(self, other: EqualL0) -> None:
        """Take into account what another one has seen."""
        self.sums.merge(other.sums)

    def result(self) -> Result:
        """That of the first pass, with this control."""
        return report(self.first.seen, self.first.context, self.sums)
