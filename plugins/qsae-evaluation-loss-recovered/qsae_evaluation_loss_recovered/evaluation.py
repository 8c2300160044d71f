"""The evaluation ``loss-recovered``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from qsae_core.contracts import Edit, Evaluation, EvaluationContext, LanguageModel, TokenBatch
from qsae_core.errors import DataError
from qsae_evaluation_loss_recovered import LossRecoveredConfig
from qsae_evaluation_loss_recovered.scoring import Totals, recovered, scored_positions
from qsae_evaluation_loss_recovered.splice import coder_edit, constant_edit, mean_vector


class LossRecovered(Evaluation):
    """The language model's loss with the coder's output in place of the site's vectors.

    Vectors are replaced at counted positions; those of BOS, padding and other special tokens pass through.
    Sums over all predictions are divided once. In nats per prediction, over held-out text:

    ``ce_clean``, ``ce_sae``, ``ce_zero``, ``ce_mean``: cross-entropy untouched, with the coder, with zeros,
    and with the mean of the site's vectors at the counted positions of the same text;
    ``delta_ce`` = ce_sae - ce_clean;
    ``ce_recovered`` = (ce_zero - ce_sae) / (ce_zero - ce_clean), ``ce_recovered_mean`` likewise;
    ``kl``, ``kl_zero``, ``kl_mean``: KL(untouched || replaced);
    ``n_tokens``: predictions, made at a counted position of a next token that is counted too.
    """

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where there is no causal language model or no single site to splice into."""
        model = context.data.language_model()
        if model is None:
            return "the data source has no language model behind its vectors"
        if not model.predicts_next:
            return f"{model.name} is an encoder: it has no next-token loss"
        if not model.has_logits:
            return f"{model.name} was saved without its head, so it gives no logits"
        if context.data.site is None:
            return "the data source's vectors come from no single site of the language model"
        if not context.coder.is_autoencoder:
            return "a transcoder's output cannot be spliced in from the vectors of the site that it replaces"
        if context.coder.shape.layers_in > 1:
            return "the coder reads several layers at once, and one site is spliced"
        return None

    @torch.no_grad()
    def run(self, context: EvaluationContext) -> dict[str, float | None]:
        """The values named above.

        Raises:
            DataError: with the reason that ``unavailable`` gives.
        """
        reason = self.unavailable(context)
        if reason is not None:
            raise DataError(f"loss-recovered cannot run: {reason}")
        model, site = (
            cast(LanguageModel, context.data.language_model()),
            cast(tuple[int, str], context.data.site),
        )
        mean = mean_vector(model, site, self._passes(context))
        totals = {name: Totals() for name in ("clean", "sae", "zero", "mean")}
        n_tokens = 0
        for batch in self._passes(context):
            index, targets = scored_positions(batch)
            if len(index) == 0:
                continue
            n_tokens += len(index)
            assert mean is not None  # a scored position is a counted one
            clean = model.logits(batch)
            index, targets = index.to(clean.device), targets.to(clean.device)
            totals["clean"].add(clean, clean, index, targets)
            for name, edit in _edits(context, batch.counted, mean).items():
                totals[name].add(model.logits(batch, {site: edit}), clean, index, targets)
        return _values(totals, n_tokens)

    def _passes(self, context: EvaluationContext) -> Iterator[TokenBatch]:
        """The fewest held-out contexts that hold the wanted number of counted positions, many at once."""
        config = cast(LossRecoveredConfig, self.config)
        positions, wanted = config.positions_per_pass, min(context.n_tokens, config.tokens)
        for batch in context.data.held_out_tokens(wanted):
            counts = batch.counted.sum(1)
            needed = int((counts.cumsum(0) - counts < wanted).sum())
            wanted -= int(counts.sum())
            at_once = max(1, positions // batch.ids.shape[1])
            for start in range(0, needed, at_once):
                rows = slice(start, min(needed, start + at_once))
                yield TokenBatch(batch.ids[rows], batch.counted[rows], batch.attention[rows])


def _edits(context: EvaluationContext, counted_BT: Tensor, mean_D: Tensor) -> dict[str, Edit]:
    return {
        "sae": coder_edit(context.coder, counted_BT, context.batch_size),
        "zero": constant_edit(torch.zeros_like(mean_D), counted_BT),
        "mean": constant_edit(mean_D, counted_BT),
    }


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
