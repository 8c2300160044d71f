"""The evaluation ``loss-recovered``."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    LanguageModel,
    Observation,
    Result,
    TokenBatch,
)
from qsae_core.measuring import COUNT, Clusters
from qsae_evaluation_loss_recovered import LossRecoveredConfig
from qsae_evaluation_loss_recovered.scoring import Totals, log_probabilities, recovered, scored_positions
from qsae_evaluation_loss_recovered.splice import cannot_splice, coder_edits, constant_edit


class LossRecovered(Evaluation):
    """The language model's loss with the coder's output in place of the target site's vectors.

    A transcoder reads its source site in the same pass. Several coders, each of its layer, are all there at
    once, each reading what those before it have changed; a crosscoder's output is that of the untouched pass.
    Vectors are replaced at counted positions; those of
    BOS, padding and other special tokens pass through.
    Sums over all predictions are divided once. In nats per prediction, over held-out text:

    ``ce_clean``, ``ce_sae``, ``ce_zero``, ``ce_mean``: cross-entropy untouched, with the coder, with zeros,
    and with the mean of each target site's vectors at the counted positions of the same text;
    ``delta_ce`` = ce_sae - ce_clean;
    ``ce_recovered`` = (ce_zero - ce_sae) / (ce_zero - ce_clean), ``ce_recovered_mean`` likewise;
    ``kl``, ``kl_zero``, ``kl_mean``: KL(untouched || replaced);
    ``n_tokens``: predictions, made at a counted position of a next token that is counted too.
    Standard errors are over documents, which are what is independent; of few documents over contexts.
    """

    observes = frozenset({"tokens"})

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where the language model is not causal or there is no site to splice into."""
        model = cast(LanguageModel, context.data.language_model())  # as ``observes`` says
        if not model.predicts_next:
            return f"{model.name} is an encoder: it has no next-token loss"
        if not model.has_logits:
            return f"{model.name} was saved without its head, so it gives no logits"
        if context.coder.chooses_layer:
            return "the coder reconstructs one of several layers, another one for each token"
        layers = context.coder.shape.layers_in, context.coder.shape.layers_out
        if (len(context.data.source_sites), len(context.data.target_sites)) != layers:
            return "the data source does not say from which sites of the language model its vectors come"
        return cannot_splice(context.coder, context.data, model)

    def start(self, context: EvaluationContext) -> SiteMean:
        """The first pass, which finds the mean of the target site's vectors."""
        return SiteMean(cast(LossRecoveredConfig, self.config), context)


class SiteMean(Accumulator):
    """The mean of each target site's vectors at the counted positions, which the second pass needs."""

    def __init__(self, config: LossRecoveredConfig, context: EvaluationContext) -> None:
        self.config, self.context = config, context
        self.n_tokens = config.tokens
        self.count = 0
        self.total: Tensor | float = 0.0

    def update(self, observation: Observation) -> None:
        """Add a batch's vectors, in float64."""
        self.total = self.total + observation.target.to(torch.float64).sum(0)
        self.count += len(observation.target)

    def merge(self, other: SiteMean) -> None:
        """Add what another one has seen."""
        self.total, self.count = self.total + other.total, self.count + other.count

    def next_pass(self) -> Spliced:
        """The losses."""
        mean = self.total / self.count if isinstance(self.total, Tensor) else None
        return Spliced(self.config, self.context, mean)

    def result(self) -> Result:
        """Nothing yet: the losses are those of the second pass."""
        return Result()


class Spliced(Accumulator):
    """Sums over predictions of the language model untouched and with its vectors replaced."""

    def __init__(self, config: LossRecoveredConfig, context: EvaluationContext, mean: Tensor | None) -> None:
        self.config, self.context, self.mean = config, context, mean
        self.n_tokens = config.tokens
        self.totals = {name: Totals() for name in ("clean", "sae", "zero", "mean")}
        self.clusters = Clusters()
        self.n_predictions = 0

    def update(self, observation: Observation) -> None:
        """Four forward passes over the batch's contexts, ``positions_per_pass`` positions at once."""
        assert observation.tokens is not None  # as LossRecovered.observes says
        contexts = observation.tokens
        at_once = max(1, self.config.positions_per_pass // contexts.ids.shape[1])
        text_N2 = _texts(observation)
        row = 0
        for start in range(0, len(contexts.ids), at_once):
            batch = contexts.rows(slice(start, start + at_once))
            own = slice(row, row + int(batch.counted.sum()))
            self._score(batch, observation.reconstruction[own], text_N2[own])
            row = own.stop

    def _score(self, batch: TokenBatch, reconstruction: Tensor, text_N2: Tensor) -> None:
        index, next_tokens = scored_positions(batch)
        if len(index) == 0:
            return
        assert self.mean is not None  # a scored position is a counted one
        self.n_predictions += len(index)
        model = cast(LanguageModel, self.context.data.language_model())
        sources, targets = self.context.data.source_sites, self.context.data.target_sites
        means_LD = self.mean.reshape(len(targets), -1)
        constants = {"zero": torch.zeros_like(means_LD), "mean": means_LD}
        replaced = {
            name: {site: constant_edit(v, batch.counted) for site, v in zip(targets, values, strict=True)}
            for name, values in constants.items()
        }
        replaced["sae"] = coder_edits(self.context.coder, reconstruction, batch.counted, sources, targets)
        passes = model.logits_each(batch, [None, *replaced.values()])
        clean = next(passes)
        index, next_tokens = index.to(clean.device), next_tokens.to(clean.device)
        log_p = list(log_probabilities(clean, index))
        del clean  # memory for the logits of the next pass
        of_each = {"clean": self.totals["clean"].add(log_p, next_tokens)[0]}
        for name in replaced:  # no name for the logits of a pass, so that they are gone before the next one
            log_q = log_probabilities(next(passes), index)
            of_each[name], of_each[f"kl_{name}"] = self.totals[name].add(log_q, next_tokens, log_p)
        vector = (
            batch.counted.flatten().cumsum(0)[index.cpu()] - 1
        )  # of the batch's, which a prediction is at
        self.clusters.add(text_N2[vector], of_each)

    def merge(self, other: Spliced) -> None:
        """Add what another one has seen."""
        self.n_predictions += other.n_predictions
        self.clusters.merge(other.clusters)
        for name, totals in self.totals.items():
            totals.ce += other.totals[name].ce
            totals.kl += other.totals[name].kl

    def result(self) -> Result:
        """The values that ``LossRecovered`` names, and standard errors over documents."""
        values = _values(self.totals, self.n_predictions)
        errors = {name: self.clusters.error(*of_ratio) for name, of_ratio in _RATIOS.items()}
        known = {name: error for name, error in errors.items() if values[name] is not None}
        return Result(values, uncertainty=known)


_EACH = {COUNT: 1.0}
_RATIOS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    **{f"ce_{name}": ({name: 1.0}, _EACH) for name in ("clean", "sae", "zero", "mean")},
    "delta_ce": ({"sae": 1.0, "clean": -1.0}, _EACH),
    "ce_recovered": ({"zero": 1.0, "sae": -1.0}, {"zero": 1.0, "clean": -1.0}),
    "ce_recovered_mean": ({"mean": 1.0, "sae": -1.0}, {"mean": 1.0, "clean": -1.0}),
    "kl": ({"kl_sae": 1.0}, _EACH),
    "kl_zero": ({"kl_zero": 1.0}, _EACH),
    "kl_mean": ({"kl_mean": 1.0}, _EACH),
}
"""Value -> the sums whose ratio it is."""


def _texts(observation: Observation) -> Tensor:
    """int64 ``[B, 2]``: document and context of each vector; the one where the other is not known."""
    assert observation.origin is not None  # as LossRecovered.observes says
    document, context, _ = (number.cpu() for number in observation.origin)
    return torch.stack([context.where(document < 0, document), context], dim=1)


def _values(totals: dict[str, Totals], n_tokens: int) -> dict[str, float | None]:
    clean, sae, zero, mean = (totals[name].mean_ce(n_tokens) for name in ("clean", "sae", "zero", "mean"))
    return {
        "ce_clean": clean,
        "ce_sae": sae,
        "ce_zero": zero,
        "ce_mean": mean,
        "delta_ce": None if sae is None or clean is None else sae - clean,
        "ce_recovered": recovered(zero, sae, clean),
        "ce_recovered_mean": recovered(mean, sae, clean),
        "kl": totals["sae"].mean_kl(n_tokens),
        "kl_zero": totals["zero"].mean_kl(n_tokens),
        "kl_mean": totals["mean"].mean_kl(n_tokens),
        "n_tokens": float(n_tokens),
    }
