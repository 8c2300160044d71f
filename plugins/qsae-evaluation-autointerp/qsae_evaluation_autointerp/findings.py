"""From verdicts to the result. Shapes: F latents, P judged ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qsae_core.contracts import Result, Table
from qsae_core.errors import QsaeError
from qsae_core.measuring import column, mean, standard_error
from qsae_evaluation_autointerp.detection import Verdict
from qsae_evaluation_autointerp.rule import RuleJudge
from qsae_evaluation_autointerp.scores import (
    Interval,
    auc,
    balanced_accuracy,
    chance_error,
    f1,
    interval,
)

if TYPE_CHECKING:
    from qsae_evaluation_autointerp.choice import Choice
    from qsae_evaluation_autointerp.firings import Firings
    from qsae_evaluation_autointerp.judge import Judge

Numbers = dict[str, float | None]
CHANCE = 0.5
"""Balanced accuracy of whoever does not look at the window."""


def found(firings: Firings, choice: Choice, verdicts: Sequence[Verdict], fault: QsaeError | None) -> Result:
    """The result: values, columns per latent, tables ``labels`` and ``left_out``."""
    scores = _Scores(verdicts, firings.judge)
    spread = interval(scores.gap, firings.config.seed)
    tells = spread is not None and spread.low > 0
    values, chance, errors = _means(scores, spread, tells)
    failed = [answers.count(None) for v in verdicts for answers in (v.own, v.control or [])]
    values |= {"n_scored": float(len(verdicts)), "n_eligible": float(choice.n_eligible)}
    values |= {"n_failed": float(sum(failed))}
    return Result(
        values,
        chance=chance,
        baseline=_baseline(verdicts, firings.judge) if verdicts else {},
        uncertainty=errors,
        per_latent={
            name: column(firings.n_latents, scores.latent, of_each)
            for name, of_each in (("score", scores.own), ("control", scores.control), ("auc", scores.auc))
        },
        tables={
            "labels": _labels(verdicts, scores),
            "left_out": Table(
                ("reason", "latents"), [(why, n) for why, n in sorted(choice.left_out.items()) if n]
            ),
        },
        reason=_said(len(verdicts), spread) if fault is None else " ".join(str(fault).split()),
        failed=fault is not None,
        how=f"judged by {firings.judge.name}",
    )


class _Scores:
    """float64 ``[P]`` each; NaN where there is none."""

    def __init__(self, verdicts: Sequence[Verdict], judge: Judge) -> None:
        self.latent = torch.tensor([v.task.latent for v in verdicts], dtype=torch.int64)
        self.own, self.control = (_of(verdicts, balanced_accuracy, which) for which in ("own", "control"))
        self.f1, self.f1_control = (_of(verdicts, f1, which) for which in ("own", "control"))
        ranked = verdicts if judge.graded else []
        nothing = torch.full_like(self.own, torch.nan)
        self.auc, self.auc_control = (
            _of(ranked, auc, which) if judge.graded else nothing for which in ("own", "control")
        )
        gap = self.own - self.control
        self.gap = gap[~gap.isnan()]


def _of(verdicts: Sequence[Verdict], score: Callable[..., float], which: str) -> Tensor:
    answers = [getattr(v, which) for v in verdicts]
    return torch.tensor(
        [
            torch.nan if a is None else score(a, v.task.fires)
            for a, v in zip(answers, verdicts, strict=True)
        ],
        dtype=torch.float64,
    )  # fmt: skip


def _means(scores: _Scores, spread: Interval | None, tells: bool) -> tuple[Numbers, Numbers, Numbers]:
    """Values, what they are by chance, and standard errors."""
    own, control, f1s, aucs, gap = scores.own, scores.control, scores.f1, scores.auc, scores.gap
    values: Numbers = {
        "balanced_accuracy": mean(own) if tells else None,
        "f1": mean(f1s),
        "auc": mean(aucs),
        "control": mean(control),
        "gap": mean(gap),
        "gap_low": None if spread is None else spread.low,
        "gap_high": None if spread is None else spread.high,
    }
    chance: Numbers = {
        "balanced_accuracy": mean(control),
        "f1": mean(scores.f1_control),
        "auc": mean(scores.auc_control),
        "control": CHANCE,
        "gap": 0.0,
    }
    errors: Numbers = {
        "balanced_accuracy": standard_error(own) if tells else None,
        "f1": standard_error(f1s),
        "auc": standard_error(aucs),
        "control": standard_error(control),
        "gap": None if spread is None else spread.error,
    }
    return values, chance, errors


def _baseline(verdicts: Sequence[Verdict], judge: Judge) -> Numbers:
    """What counting tokens reaches on the same windows, where the judge does more than that."""
    if isinstance(judge, RuleJudge):
        return {}
    rule = RuleJudge()
    answers = [rule.detect(rule.explain(v.task.examples), v.task.windows) for v in verdicts]
    scores = [balanced_accuracy(a, v.task.fires) for a, v in zip(answers, verdicts, strict=True)]
    return {"balanced_accuracy": sum(scores) / len(scores)}


def _labels(verdicts: Sequence[Verdict], scores: _Scores) -> Table:
    rows = [
        (
            v.task.latent,
            v.label,
            own,
            chance_error(v.own, v.task.fires),
            None if v.control is None else control,
            sum(v.task.fires),
            v.task.n_hard,
            v.own.count(None) + (v.control or []).count(None),
        )
        for v, own, control in zip(verdicts, scores.own.tolist(), scores.control.tolist(), strict=True)
    ]
    counts = ("n_positives", "n_hard_negatives", "n_failed")
    return Table(("latent", "label", "score", "error", "control", *counts), rows)


def _said(n: int, spread: Interval | None) -> str | None:
    """Why there is no headline number; None where the judge tells latents."""
    if spread is None:
        return f"{n} latents are too few to say whether the judge tells them"
    if spread.low > 0:
        return None
    between = f"{spread.low:.3f} to {spread.high:.3f} (95% of resamples of {n} latents)"
    return f"the judge cannot tell latents: score - control is {between}"
