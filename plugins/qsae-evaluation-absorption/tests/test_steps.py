"""Probes, main latents and absorption on examples whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from qsae_evaluation_absorption import findings
from qsae_evaluation_absorption.findings import result_of
from qsae_evaluation_absorption.first_letter import NAMES
from qsae_evaluation_absorption.probes import dense_probes, f1, k_sparse_f1
from qsae_evaluation_absorption.steps import Concept, Examples, measured
from scipy.sparse import csr_array

N = 1200
D = 3


def examples(absorbed_share: float = 0.0, row_norm: float = 1.0) -> tuple[Examples, np.ndarray]:
    """Half of the tokens have the concept, along e1. Latent 0 says so, but where latent 1 does, which also
    says e2; latent 2 is always there, along e3. Of the concept's tokens a share is latent 1's."""
    generator = np.random.default_rng(0)
    has = np.arange(N) % 2 == 0
    child = has & (generator.random(N) < absorbed_share)
    codes = np.zeros((N, 4))
    codes[has & ~child, 0] = 2.0
    codes[child, 1] = 2.0
    codes[:, 2] = 1.0
    atoms = np.array([[1.0, 0, 0], [1.0, 1.0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    x = codes @ atoms + 0.01 * generator.standard_normal((N, D))
    train = generator.random(N) < 0.8
    return Examples(x, csr_array(codes / row_norm), has[:, None], train), atoms * row_norm


def found(*args: float) -> Concept:
    tokens, atoms = examples(*args)
    (concept,) = measured(tokens, atoms, ["it"], 0)
    return concept


def test_a_dense_probe_finds_the_concepts_direction():
    tokens, _ = examples()
    W, b = dense_probes(tokens.x[tokens.train], tokens.labels[tokens.train], 0)
    u = W[:, 0] / np.linalg.norm(W[:, 0])
    assert u[0] > 0.8  # e3, on which all tokens have 1, serves it as a second bias
    assert f1(tokens.labels[:, 0], (tokens.x @ W + b)[:, 0] > 0) == 1


def test_probes_are_trained_as_torch_trains_them():
    """And its steps those of torch's Adam, with all examples in a batch."""
    import torch
    from qsae_evaluation_absorption import probes

    generator = np.random.default_rng(1)
    x, y = generator.standard_normal((8, 3)), generator.random((8, 2)) < 0.4
    y[0], y[1] = True, False
    W = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.from_numpy((8 - y.sum(0)) / y.sum(0))
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=weight)
    reference = torch.optim.Adam([W], lr=probes.FIRST_RATE, weight_decay=0.1)
    slow = torch.optim.lr_scheduler.ExponentialLR(
        reference, float(np.exp(np.log(probes.LAST_RATE / probes.FIRST_RATE) / probes.EPOCHS))
    )
    b = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    reference.add_param_group({"params": [b]})
    for _ in range(probes.EPOCHS):
        reference.zero_grad()
        value = loss(torch.from_numpy(x) @ W + b, torch.from_numpy(y).double())
        (value + probes.L1 * W.abs().sum(0).mean()).backward()
        reference.step()
        slow.step()
    ours, bias = probes._trained(x, y, 8, 0.1, probes.L1, 0)
    np.testing.assert_allclose(ours, W.detach().numpy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(bias, b.detach().numpy(), rtol=0, atol=1e-9)


def test_without_a_child_nothing_is_absorbed():
    concept = found(0.0)
    assert concept.main.tolist() == [0]
    assert (concept.probe_f1, concept.main_f1) == (1, 1)
    assert [score.fraction for score in concept.scores] == [0.0] * len(concept.rows)
    assert not any(score.full for score in concept.scores)


def test_a_rare_child_absorbs_its_tokens():
    """It has 3 in 100 of the tokens with the concept, too few to raise F1 by .03."""
    concept = found(0.03)
    tokens, _ = examples(0.03)
    childs = tokens.codes[:, [1]].toarray()[:, 0] > 0
    assert concept.main.tolist() == [0]
    fractions = np.array([score.fraction for score in concept.scores])
    assert childs[concept.rows].any()  # else there is nothing to see
    np.testing.assert_array_equal(fractions, childs[concept.rows].astype(float))
    assert [score.full for score in concept.scores] == childs[concept.rows].tolist()


def test_a_frequent_child_is_a_split_and_absorbs_nothing():
    concept = found(0.5)
    assert sorted(concept.main.tolist()) == [0, 1]
    assert not any(score.fraction for score in concept.scores)


def test_rows_of_another_norm_give_the_same():
    one, other = found(0.03), found(0.03, 5.0)
    assert one.main.tolist() == other.main.tolist()
    assert [s.full for s in one.scores] == [s.full for s in other.scores]
    np.testing.assert_allclose([s.fraction for s in one.scores], [s.fraction for s in other.scores])


def test_by_chance_all_is_absorbed_that_the_main_latent_says():
    """Latent 2, the only other one that fires, does not say the concept."""
    concept = found(0.0)
    assert [score.fraction for score in concept.by_chance] == [1.0] * len(concept.rows)


def test_a_concept_without_positives_is_not_defined():
    tokens, atoms = examples()
    labels = np.concatenate([tokens.labels, np.zeros((N, 1), dtype=bool)], axis=1)
    one, none = measured(Examples(tokens.x, tokens.codes, labels, tokens.train), atoms, ["a", "b"], 0)
    assert one.probe_f1 == 1
    assert (none.probe_f1, none.main_f1, len(none.rows)) == (None, None, 0)


def test_a_dead_dictionary_has_no_main_latents():
    tokens, atoms = examples()
    (concept,) = measured(
        Examples(tokens.x, csr_array((N, 4)), tokens.labels, tokens.train), atoms, ["it"], 0
    )
    assert (concept.probe_f1, concept.main_f1, concept.main.tolist()) == (1, None, [])
    assert not any(score.fraction or score.full for score in concept.scores)


def test_a_latent_that_is_the_label_has_an_f1_of_1():
    y = np.arange(40) % 3 == 0
    assert k_sparse_f1(y[:, None] * 1.0, y, y[:, None] * 2.0, y) == 1


def test_the_mean_over_concepts_by_hand():
    """Two letters pass: fractions (1, 0) and (.5); their means .5 and .5; in full 1 of 2, and 0."""
    from qsae_evaluation_absorption.definition import Score

    full, none, half = Score(1.0, True, 3, False), Score(0.0, False, 1, True), Score(0.5, False, 1, True)
    a = Concept("a", 0.9, np.array([0]), 0.8, np.array([0, 1]), [full, none], [full, full])
    b = Concept("b", 0.7, np.array([1, 2]), 0.8, np.array([2]), [half], [none])
    low = Concept("c", 0.6, np.array([1]), 0.8, np.array([3]), [full], [full])  # not above .6
    result = result_of([a, b, low], NAMES, 2, 5, "wxyz".__getitem__)
    assert result.values == {
        "mean_absorption_fraction_score": 0.5,
        "std_dev_absorption_fraction_score": 0,
        "mean_full_absorption_score": 0.25,
        "std_dev_full_absorption_score": pytest.approx(0.125**0.5),  # of .5 and 0, with n - 1
        "mean_num_split_features": 1.5,
        "std_dev_num_split_features": pytest.approx(0.5**0.5),
        "letters_passed": 2,
        "main_latents_fire": 0.75,
    }
    assert result.chance["mean_absorption_fraction_score"] == 0.5
    assert result.uncertainty["mean_full_absorption_score"] == pytest.approx(0.25)
    assert result.per_latent["main_of"].tolist() == [1, 1, 1, 0, 0]
    assert result.per_latent["full_absorptions"].tolist() == [0, 0, 0, 1, 0]
    assert result.reason is None
    assert [row[1:] for row in result.tables["absorbed"].rows] == [["'w'", 1.0, 1, 3], ["'y'", 0.5, 0, 1]]
    assert [row[0] for row in result.tables["letters"].rows] == ["a", "b", "c"]


def test_too_few_concepts_give_no_value_and_say_why():
    result = result_of([Concept("a", 0.9, scores=[]), Concept("b", 0.5)], NAMES, 20, 5, str)
    assert result.values.pop("letters_passed") == 1
    assert set(result.values.values()) == {None}
    assert str(result.reason).startswith("1 of 2 letters pass")
    assert len(result.tables["letters"].rows) == 2
    assert findings.MIN_F1 == 0.6
