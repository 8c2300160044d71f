"""Scores by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from qsae_evaluation_autointerp.detection import Task, judged_tasks
from qsae_evaluation_autointerp.judge import Example, Window
from qsae_evaluation_autointerp.rule import RuleJudge
from qsae_evaluation_autointerp.scores import ENOUGH, auc, balanced_accuracy, chance_error, f1, interval


def test_who_always_says_no_is_at_chance() -> None:
    """4 windows where it fires and 10 where not: accuracy, as others count it, would be 10/14 = .714."""
    fires, answers = [True] * 4 + [False] * 10, [0.0] * 14
    right = [(answer > 0.5) == f for answer, f in zip(answers, fires, strict=True)]
    assert sum(right) / len(right) == pytest.approx(0.714, abs=5e-4)
    assert balanced_accuracy(answers, fires) == 0.5
    assert balanced_accuracy([1.0] * 14, fires) == 0.5
    assert f1(answers, fires) == 0
    assert auc(answers, fires) == 0.5


def test_by_hand() -> None:
    """3 of 4 and 1 of 2 are right: (.75 + .5) / 2. F1: 2 * 3 / (4 named + 4 firing)."""
    fires = [True, True, True, True, False, False]
    answers = [0.9, 0.8, 0.7, 0.1, 0.6, 0.2]
    assert balanced_accuracy(answers, fires) == 0.625
    assert f1(answers, fires) == 0.75
    # pairs: .9, .8, .7 are above both; .1 is above none
    assert auc(answers, fires) == 6 / 8
    assert auc([0.3, 0.3], [True, False]) == 0.5


def test_the_error_of_a_score_by_chance() -> None:
    """By hand: 9 of 20 named, so q = 10 / 22; and it is the deviation of scores of coins that are thrown."""
    fires = [True] * 10 + [False] * 10
    q = 10 / 22
    assert chance_error([1.0] * 9 + [0.0] * 11, fires) == pytest.approx(math.sqrt(q * (1 - q) * 0.2) / 2)
    assert chance_error([0.0] * 20, fires) > 0.04
    thrown = torch.rand(4000, 20, generator=torch.Generator().manual_seed(0)).tolist()
    scores = torch.tensor([balanced_accuracy(row, fires) for row in thrown])
    errors = torch.tensor([chance_error(row, fires) for row in thrown])
    assert float(scores.std()) == pytest.approx(float(errors.mean()), rel=0.05)


def test_an_answer_that_failed_is_half_right() -> None:
    fires = [True, True, False, False]
    assert balanced_accuracy([1.0, None, 0.0, 0.0], fires) == 0.875
    assert balanced_accuracy([None] * 4, fires) == 0.5
    # named: 1 + .5 + .5, of which 1.5 where it fires
    assert f1([1.0, None, None, 0.0], fires) == 2 * 1.5 / (2 + 2)
    # of the four pairs, 1.0 is above 0.0 and the others are ties
    assert auc([1.0, None, None, 0.0], fires) == (1 + 0.5 * 3) / 4


def test_a_probability_of_a_half_names_nothing() -> None:
    assert balanced_accuracy([0.5, 0.5], [True, False]) == 0.5
    assert f1([0.5, 0.5], [True, False]) == 0


def test_an_interval_of_a_mean() -> None:
    """Over all resamples the standard error is the deviation / sqrt(n), and the interval about 1.96 of it."""
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = interval(values, 0)
    assert found is not None
    expected = float(values.std()) / math.sqrt(400)
    assert found.error == pytest.approx(expected, rel=0.06)
    assert found.high - found.low == pytest.approx(2 * 1.96 * expected, rel=0.08)
    assert found.low < float(values.mean()) < found.high
    assert interval(values, 0) == found
    assert interval(values[: ENOUGH - 1], 0) is None


def test_blanks_of_a_token_are_kept_in_the_words_that_it_is_detected_by() -> None:
    """A latent that fires on the end of a line with four blanks, and not on that with one."""
    fires, silent = Window((1,), ("\n    ",), 0), Window((2,), ("\n ",), 0)
    examples = [Example(fires, (1.0,)), Example(silent, (0.0,))]
    (verdict,), fault = judged_tasks([Task(0, examples, [fires, silent], [True, False], 0)], RuleJudge())
    assert fault is None
    assert verdict.label == r"fires on '\n    '"
    assert verdict.own == [1.0, 0.0]


class Talker(RuleJudge):
    """A judge that says more than a line."""

    def explain(self, examples: Sequence[Example]) -> str:
        return " fires on ' a'\r\nand more\n"


def test_an_explanation_of_several_lines_is_one() -> None:
    window = Window((1,), (" a",), 0)
    (verdict,), _ = judged_tasks([Task(0, [], [window], [True], 0)], Talker())
    assert verdict.label == "fires on ' a' and more"
