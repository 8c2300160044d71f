"""The evaluation ``sparse-probing``."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_limits

from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    LanguageModel,
    Observation,
    Result,
)
from qsae_core.errors import QsaeError
from qsae_core.measuring import steps
from qsae_evaluation_sparse_probing import SparseProbingConfig
from qsae_evaluation_sparse_probing.compressed import compressed
from qsae_evaluation_sparse_probing.estimates import document_weights
from qsae_evaluation_sparse_probing.measuring import Chosen, measure
from qsae_evaluation_sparse_probing.reading import Plan, Text, joined, keys_of, plan_of, text_of
from qsae_evaluation_sparse_probing.report import largest_differences, report
from qsae_evaluation_sparse_probing.spelling import Decode


class SparseProbing(Evaluation):
    """How well k latents tell properties of Python source, against the raw vectors and the token alone.

    The k latents are those with the largest difference of class means in the training part, each divided by
    its mean magnitude where it fires there. All probes are logistic regressions on the same balanced tokens;
    no document is in two parts. Means over the tasks, of the test part:

    ``top_k_accuracy``, ``top_k_f1``, ``top_k_auc`` of the k latents; ``dense_*`` of the vectors that the
    coder reads; ``token_accuracy`` of the token's identity; ``random_k_accuracy`` of k latents drawn from
    those that fire; ``top_k_score`` = (accuracy - random accuracy) / (dense accuracy - random accuracy), of
    the means over tasks whose dense accuracy is .6 or more.
    """

    observes = frozenset({"tokens"})

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where tokens cannot be spelled or it is not known which document they are of."""
        model = cast(LanguageModel, context.data.language_model())  # as ``observes`` says
        contexts, _ = next(iter(context.data.held_out_contexts(1, 1)))
        try:
            model.decode(contexts.ids[0, :1])
        except QsaeError as error:
            return f"the text cannot be had, and with it no label: {error.what}"
        if contexts.documents is None:
            return "the data source does not say which document each token is from"
        return None

    def start(self, context: EvaluationContext) -> Reading:
        """The first pass, which reads the text."""
        model = cast(LanguageModel, context.data.language_model())
        config = cast(SparseProbingConfig, self.config)
        return Reading(config, model.decode, context.coder.n_latents)


class Reading(Accumulator):
    """The text, as far as it was seen."""

    def __init__(self, config: SparseProbingConfig, decode: Decode, n_latents: int) -> None:
        self.config, self.decode, self.n_latents = config, decode, n_latents
        self.n_tokens = config.tokens
        self.parts: list[Text] = []

    def update(self, observation: Observation) -> None:
        """Keep the batch's tokens."""
        found = text_of(observation)
        if found is not None:
            self.parts.append(found)

    def merge(self, other: Reading) -> None:
        """Keep those of another one too."""
        self.parts += other.parts

    def next_pass(self) -> Probing:
        """The codes and vectors of the tokens that the tasks are made of."""
        return Probing(self.config, plan_of(joined(self.parts), self.decode, self.config), self.n_latents)

    def result(self) -> Result:
        """Nothing yet."""
        return Result()


class Probing(Accumulator):
    """Codes and vectors of chosen tokens."""

    def __init__(self, config: SparseProbingConfig, plan: Plan, n_latents: int) -> None:
        self.config, self.plan, self.n_latents = config, plan, n_latents
        self.n_tokens = config.tokens
        self.keys = [np.zeros(0, np.int64)]
        self.codes = [sp.csr_array((0, n_latents), dtype=np.float64)]
        self.vectors: list[np.ndarray[tuple[int, int], np.dtype[np.float32]]] = []

    def update(self, observation: Observation) -> None:
        """Keep what the batch has of the chosen tokens."""
        origin = observation.origin
        if origin is None or not len(origin.context):
            return
        keys = keys_of(origin.context.cpu().numpy().astype(np.int64), origin.position.cpu().numpy())
        wanted = np.flatnonzero(np.isin(keys, self.plan.keys))
        if not len(wanted):
            return
        inputs = observation.target if observation.inputs is None else observation.inputs
        self.keys.append(keys[wanted])
        self.codes.append(compressed(observation.codes)[wanted])
        self.vectors.append(inputs.detach().flatten(1)[torch.from_numpy(wanted)].float().cpu().numpy())

    def merge(self, other: Probing) -> None:
        """Keep what another one has too."""
        self.keys += other.keys
        self.codes += other.codes
        self.vectors += other.vectors

    def result(self) -> Result:
        """The values that ``SparseProbing`` names."""
        plan, config = self.plan, self.config
        found = {}
        if plan.tasks:
            order = np.argsort(np.concatenate(self.keys), kind="stable")
            codes, vectors = sp.vstack(self.codes, format="csr")[order], np.concatenate(self.vectors)[order]
            chosen = Chosen(codes, vectors, plan.tokens, plan.test_documents)
            weights_RD = document_weights(plan.n_test, config.resamples, config.seed)
            with threadpool_limits(1):  # probes are small: threads would wait for each other most of the time
                found = {task.name: measure(task, chosen, weights_RD, config) for task in steps(plan.tasks)}
        told = report(found, plan.sizes, plan.counts, sorted(set(config.k)))
        per_latent = {"largest_difference": largest_differences(found, self.n_latents)}
        return replace(told, per_latent=per_latent, reason=_why_nothing(plan, config))


def _why_nothing(plan: Plan, config: SparseProbingConfig) -> str | None:
    """Why no task was measured; None where one was."""
    if plan.tasks:
        return None
    n_tokens, n, n_others = (
        int(plan.counts[name]) for name in ("n_tokens", "n_documents", "n_documents_not_python")
    )
    return (
        f"no task has {config.least_examples} tokens of each class to train on, to validate on and to test "
        f"on (option `least_examples`): {n_tokens:,} tokens of {n:,} documents were read, {n_others:,} of "
        "which are not Python; parts are whole documents, so it takes several"
    )
