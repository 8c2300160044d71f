"""Absorption on one token, by hand: x = (1, 0), the probe u = e1, so p = 1. Latent 0 is the main one."""

from __future__ import annotations

import numpy as np
import pytest
from qsae_evaluation_absorption.definition import Active, Score, absorption

MAIN = np.array([0])


def scored(f: dict[int, float], w: dict[int, tuple[float, float]], p: float = 1.0) -> Score:
    """Absorption of activations f_j on decoder rows w_j, silent latents left out as codes leave them out."""
    latents = np.array(sorted(f), dtype=np.int64)
    values = np.array([f[j] for j in latents], dtype=np.float64)
    rows = np.array([w[j] for j in latents], dtype=np.float64).reshape(-1, 2)
    dots = rows @ np.array([1.0, 0.0])
    return absorption(Active(latents, values, dots, dots / np.linalg.norm(rows, axis=1)), MAIN, p)


E1 = (1.0, 0.0)


def test_a_child_that_says_seven_tenths():
    """m = .3, A = .7, a = min(.7, 1 - .3) = .7: .7 / (.7 + .3)."""
    score = scored({0: 0.3, 1: 0.7}, {0: E1, 1: E1})
    assert score.fraction == pytest.approx(0.7)
    assert score == (score.fraction, False, 1, True)  # the main latent fires, so not in full


def test_a_silent_main_latent_is_absorbed_in_full():
    assert scored({1: 0.7}, {1: E1}) == Score(1.0, True, 1, False)
    assert scored({0: 1e-9, 1: 0.7}, {0: (-1.0, 0.0), 1: E1}) == Score(1.0, True, 1, False)


def test_a_child_that_says_less_than_two_fifths_absorbs_nothing():
    """A / p = .3 < .4, with the main latent at .3 and silent."""
    assert scored({0: 0.3, 1: 0.3}, {0: E1, 1: E1}).fraction == 0
    silent = scored({1: 0.3}, {1: E1})
    assert (silent.fraction, silent.full) == (0, False)


def test_only_the_product_with_the_row_counts():
    """f = .07 on a row of norm 10 is what f = .7 on a unit row is, and f = 3 on one of norm .1."""
    unit = scored({0: 0.3, 1: 0.7}, {0: E1, 1: E1})
    scaled = scored({0: 3.0, 1: 0.07}, {0: (0.1, 0.0), 1: (10.0, 0.0)})
    assert scaled.fraction == pytest.approx(unit.fraction)
    assert scaled[1:] == unit[1:]


def test_a_main_latent_that_says_all_leaves_nothing_to_absorb():
    assert scored({0: 1.5, 1: 2.0}, {0: E1, 1: E1}).fraction == 0  # not min(2, 1 - 1.5) / 1


def test_no_more_is_absorbed_than_is_left():
    """m = .8, A = .5, a = min(.5, .2): .2 / (.2 + .8)."""
    assert scored({0: 0.8, 1: 0.5}, {0: E1, 1: E1}).fraction == pytest.approx(0.2)


def test_three_latents_absorb_at_most():
    """m = .2; of .2, .2, .2, .1 the three largest count: A = .6 = a, .6 / .8."""
    score = scored({0: 0.2, 1: 0.2, 2: 0.1, 3: 0.2, 4: 0.2}, dict.fromkeys(range(5), E1))
    assert score.fraction == pytest.approx(0.75)


def test_a_latent_far_from_the_probe_absorbs_only_in_full():
    """cos = .05 is at least .025 and below .1; at .02 it is neither. f makes proj = .7 both times."""
    for cosine, full in ((0.05, True), (0.02, False)):
        score = scored({1: 0.7 / cosine}, {1: (cosine, float(np.sqrt(1 - cosine**2)))})
        assert (score.fraction, score.full) == (0, full)


def test_latents_against_the_probe_do_not_absorb():
    score = scored({0: 0.1, 1: 0.5, 2: 0.9}, {0: E1, 1: E1, 2: (-1.0, 0.0)})
    assert score.fraction == pytest.approx(0.5 / 0.6)


@pytest.mark.parametrize("p", [0.0, -1.0])
def test_a_token_on_the_probes_other_side_absorbs_nothing(p):
    assert scored({1: 0.7}, {1: E1}, p)[:2] == (0, False)


def test_a_token_without_active_latents_absorbs_nothing():
    assert scored({}, {}) == Score(0.0, False, -1, False)
