"""Controls: what the same numbers are where nothing, or something else, was done to the twin.

Shapes: B tokens, D width, F latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import DenseForm, EvaluationContext, SparseCoder, SparseCodes, Table
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.dense_forms import (
    ThresholdFit,
    dense_form,
    encode,
    refusal_to_fit,
    with_noise,
)
from qsae_evaluation_quantization_error.other_seed import NOT_GIVEN, OTHER_SEED, ROWS, Compared
from qsae_evaluation_quantization_error.pairs import Active, PairSums, active, shared, writes
from qsae_evaluation_quantization_error.survival import CLASSES, Survival, judged, survival

SAME, AGAIN, NOISE, EQUAL_L0 = "as it is", "the twin again", "noise of the same size", "at equal L0"
SHOWN = ("jaccard", "r_mean", *(f"{name}_share" for name in CLASSES))


class Forms(NamedTuple):
    """What is varied, made once for all accumulators of a run."""

    noisy: DenseForm | None
    no_noise: str | None
    """Why there is no noise control."""
    coder: DenseForm | None
    """The coder, where its thresholds can be moved."""
    no_fit: str | None
    """Why they cannot."""


def forms(coder: SparseCoder, twin: SparseCoder) -> Forms:
    """The twin with noise, and the coder with thresholds; or why there is none."""
    (before, no_twin), (after, no_coder) = dense_form(twin), dense_form(coder)
    no_form = no_coder or no_twin
    noisy = None
    if before is not None and after is not None:
        assert isinstance(twin, MatrixCoder)  # it has a dense form
        noisy = with_noise(before, after, twin.norm_in.mean)
    no_fit = no_coder if after is None else refusal_to_fit(after)
    return Forms(noisy, no_form, None if no_fit else after, no_fit)


class Controls:
    """Sums of further pairs, over the first ``config.control_tokens`` tokens.

    The twin is paired with the coder as it is (for comparison), with itself encoded again, and with itself
    with noise; where the coder has thresholds, what they have to be for the twin's L0 is counted.
    """

    def __init__(self, config: QuantizationErrorConfig, context: EvaluationContext, made: Forms) -> None:
        assert context.twin is not None  # as the evaluation observes it
        self.config, self.twin, self.made = config, context.twin, made
        names = [SAME, AGAIN, *([NOISE] if made.noisy is not None else [])]
        self.sums = {n: PairSums(context.coder.n_latents, device=context.device) for n in names}
        self.writes = {SAME: writes(context.coder), AGAIN: writes(self.twin)}
        if made.noisy is not None:
            self.writes[NOISE] = made.noisy.W_dec.flatten(1).any(1)
        self.fit = None if made.coder is None else ThresholdFit(made.coder)

    def rows(self, first: int, n_tokens: int) -> int:
        """How many tokens of a batch that begins there are among those of the controls."""
        most = self.config.control_tokens
        return n_tokens if most is None else max(0, min(n_tokens, most - first))

    def add(self, x: Tensor, codes_a: SparseCodes, codes_b: SparseCodes, first: int) -> None:
        """Add a batch whose tokens are numbered from ``first`` on."""
        n = self.rows(first, len(x))
        if not n:
            return
        x, a = x[:n], active(codes_a.first(n), self.writes[AGAIN])
        self._add(SAME, a, codes_b.first(n), n)
        self._add(AGAIN, a, self.twin.encode(x), n)
        if self.made.noisy is not None:
            self._add(NOISE, a, encode(self.made.noisy, x), n)
        if self.fit is not None:
            self.fit.add(x, len(a.rows))

    def _add(self, name: str, a: Active, codes: SparseCodes, n: int) -> None:
        b = active(codes, self.writes[name])
        self.sums[name].add(a, b, shared(a, b), torch.zeros(n, dtype=torch.int64, device=a.rows.device))

    def merge(self, other: Controls) -> None:
        """Add what another one has seen."""
        for name, sums in self.sums.items():
            sums.merge(other.sums[name])
        if self.fit is not None and other.fit is not None:
            self.fit.merge(other.fit)

    def found(self, equal_l0: PairSums | None = None) -> dict[str, Survival]:
        """Each control's latents, judged where the twin fires often enough within these tokens.

        Args:
            equal_l0: the pair of the coder with fitted thresholds, where there is one.
        """
        sums = self.sums if equal_l0 is None else {**self.sums, EQUAL_L0: equal_l0}
        mask = judged(self.sums[SAME].whole(), self.config.least_firings)
        return {name: survival(pair, self.config, mask) for name, pair in sums.items()}

    def table(
        self,
        main: Survival,
        chance: Survival,
        equal_l0: PairSums | None,
        matched: Mapping[str, Compared],
    ) -> Table:
        """A row for each pairing, with what it is; first the result itself, on all tokens.

        Args:
            main, chance: the coder, and latents paired at random, on all tokens.
            matched: as ``OtherSeed.found`` gives it; empty where no coder of another seed is given.
        """
        columns = ("pairing", "tokens", "l0", *SHOWN, "note")
        rows = [_row("the coder, all tokens", main, f"against L0 {_l0(main, 'a'):.4g} of the twin")]
        rows.append(_row("by chance, all tokens", chance, "each latent with another latent of the coder"))
        if self.config.control_tokens == 0:
            return Table(columns, rows)
        notes = {SAME: "the coder at its own threshold, on the tokens of the controls"}
        notes[AGAIN] = "nothing was done: r and Jaccard have to be 1"
        notes[NOISE] = "the twin with Gaussian noise in each row, as large as the coder's is away"
        if self.fit is not None:
            notes[EQUAL_L0] = f"the coder with its thresholds times {self.fit.factor():.4g}"
        found = self.found(equal_l0)
        if bool(found[SAME].pairs.tokens == main.pairs.tokens):
            del found[SAME]  # that is the first row
        rows += [_row(name, of_control, notes[name]) for name, of_control in found.items()]
        rows += [_row(ROWS[name], each.survival, each.note) for name, each in matched.items()]
        without = {NOISE: self.made.no_noise, EQUAL_L0: self.made.no_fit}
        without[ROWS[OTHER_SEED]] = None if matched else NOT_GIVEN
        for name, reason in without.items():
            if name not in found and reason is not None:
                rows.append([name, None, None, *(None for _ in SHOWN), reason])
        return Table(columns, rows)


def _l0(found: Survival, side: str) -> float:
    firings = found.pairs.firings_a if side == "a" else found.pairs.firings_b
    return float(firings.sum() / found.pairs.tokens.clamp_min(1))


def _row(name: str, found: Survival, note: str) -> list[str | int | float | None]:
    shown = [found.values[value] for value in SHOWN]
    return [name, int(found.pairs.tokens), _l0(found, "b"), *shown, note]
