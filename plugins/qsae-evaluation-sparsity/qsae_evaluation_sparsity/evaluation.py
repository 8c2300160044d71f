"""The evaluation ``sparsity``."""

from __future__ import annotations

from typing import cast

from qsae_core.contracts import Accumulator, Evaluation, EvaluationContext, Observation, Result, Table
from qsae_evaluation_sparsity import SparsityEvaluationConfig
from qsae_evaluation_sparsity.firing import Firing
from qsae_evaluation_sparsity.numbers import by_equal_latents, deciles, histogram, of_stretch
from qsae_evaluation_sparsity.stretches import Stretches, stretches


class SparsityEvaluation(Evaluation):
    """How often latents fire, and how strongly.

    A latent j fires on a token where its value f_j is not zero, be it negative; ``|f_j|`` is its activation,
    and p_j, its density, the share of the N tokens on which it fires.

    ``l0``, ``l0_std``: mean and standard deviation over tokens of how many latents fire; ``l1``: mean over
    tokens of sum_j |f_j| ||w_j||; ``dead_fraction``: share of latents that never fire;
    ``density_over_1pct``, ``density_over_10pct``: share of latents with p_j above it; with ``normalized_``
    before it: sum of their p_j / sum of all p_j; ``max_activation``: of any latent; ``n_tokens``: N;
    ``n_left_out``: special tokens beside them, which no number sees.
    """

    def start(self, context: EvaluationContext) -> Counted:
        """No token counted."""
        return Counted(cast(SparsityEvaluationConfig, self.config), context)


class Counted(Accumulator):
    """How often each latent fired so far."""

    def __init__(self, config: SparsityEvaluationConfig, context: EvaluationContext) -> None:
        self.config, self.stretches = config, stretches(context)
        n_latents = context.coder.n_latents
        ends = [n_latents] if self.stretches is None else self.stretches.ends
        self.firing = Firing(n_latents, ends)

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        self.firing.add(observation)

    def merge(self, other: Counted) -> None:
        """Add the counts of another one."""
        self.firing.merge(other.firing)

    def result(self) -> Result:
        """The values named by the evaluation; columns; tables ``density``, ``deciles``, and ``groups`` or
        ``layers`` where latents are divided so."""
        firing = self.firing
        n_latents = len(firing.fired_F)
        values = of_stretch(firing, slice(0, n_latents), firing.tokens_with[0])
        tables = {"density": histogram(firing, self.config.bin_width), "deciles": deciles(firing)}
        if self.stretches is not None:
            tables[f"{self.stretches.kind}s"] = _by_stretch(firing, self.stretches)
        left_out = None if firing.n_left_out is None else float(firing.n_left_out)
        return Result(
            {"n_tokens": float(firing.n_tokens), "n_left_out": left_out, **values},
            chance=by_equal_latents(values["l0"], n_latents, firing.n_tokens),
            uncertainty={name: firing.clusters.mean_error(name) for name in ("l0", "l1")},
            per_latent={
                "fired": firing.fired_F,
                "density": firing.density_F,
                "mean_active": firing.mean_active_F,
                "max_activation": firing.largest_F.where(firing.fired_F > 0, float("nan")),
            },
            tables=tables,
        )


def _by_stretch(firing: Firing, divided: Stretches) -> Table:
    """A row for each group or layer: its latents, and the values of all latents for these."""
    rows, columns = [], [divided.kind, "first_latent", "latents"]
    parts = zip(divided.names, firing.ranges, firing.tokens_with[1:], strict=True)
    for name, where, tokens_with in parts:
        values = of_stretch(firing, where, tokens_with)
        rows.append((name, where.start, where.stop - where.start, *values.values()))
        columns[3:] = values
    return Table(tuple(columns), rows)
