"""Probes on codes of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_evaluation_sparse_probing import SparseProbingConfig
from qsae_evaluation_sparse_probing.estimates import Tally, document_weights, error_of, value_of
from qsae_evaluation_sparse_probing.examples import Examples, choose, parts_of
from qsae_evaluation_sparse_probing.measuring import Chosen, Found, Task, measure, score
from qsae_evaluation_sparse_probing.probes import Firing, Parts, one_hot, probe_scores
from qsae_evaluation_sparse_probing.reading import Sizes
from qsae_evaluation_sparse_probing.report import report
from qsae_evaluation_sparse_probing.tasks import TASKS
from sklearn.metrics import f1_score, roc_auc_score

N, LATENTS, DOCUMENTS = 1200, 16, 8
EXAMPLES = Examples(np.arange(600), np.arange(600, 800), np.arange(800, N))


def chosen(seed: int = 0) -> Chosen:
    """Latent 3 fires on half of the tokens, whatever else does; vectors are noise around it."""
    generator = np.random.default_rng(seed)
    codes = generator.random((N, LATENTS)) * (generator.random((N, LATENTS)) < 0.2)
    codes[:, 3] = np.where(np.arange(N) % 2, 1 + generator.random(N), 0)
    vectors = generator.standard_normal((N, 6)).astype(np.float32)
    vectors[:, 0] += 6 * (np.arange(N) % 2)
    documents = np.where(np.arange(N) >= 800, np.arange(N) // 4 % DOCUMENTS, -1)
    return Chosen(sp.csr_array(codes), vectors, generator.integers(0, 9, N), documents)


def measured(labels: np.ndarray, **options):
    config = SparseProbingConfig(**options)
    weights = document_weights(DOCUMENTS, config.resamples, config.seed)
    return measure(Task("made-up", EXAMPLES, labels), chosen(), weights, config)


def test_a_property_that_is_a_latent_is_told_by_it_alone():
    found = measured(np.arange(N) % 2 == 1)
    assert found.latents[0][0] == 3
    for k in (1, 2, 5):
        # at k = 5 four more columns of noise stand beside it
        assert value_of(found.sparse[k]["accuracy"]) == pytest.approx(1.0, abs=0.01 if k > 1 else 0)
    assert value_of(found.sparse[1]["auc"]) == value_of(found.sparse[1]["f1"]) == 1.0
    assert error_of(found.sparse[1]["accuracy"]) == 0.0
    # the latent's share: it fires on each positive, and on no negative
    assert found.latents[0][2:] == (1.0, 0.0)


def test_labels_that_nothing_tells_stay_at_chance():
    mixed = np.random.default_rng(5).permutation(np.arange(N) % 2 == 1)
    found = measured(mixed)
    deviation = 0.5 / np.sqrt(len(EXAMPLES.test))  # of a share of fair coins: .025
    for k in (1, 2, 5):
        assert value_of(found.sparse[k]["accuracy"]) == pytest.approx(0.5, abs=3 * deviation)
        assert value_of(found.sparse[k]["score"]) is None  # the dense probe tells nothing either
    assert value_of(found.token) == pytest.approx(0.5, abs=3 * deviation)


def test_the_controls_stay_at_chance_where_the_property_is_clear():
    found = measured(np.arange(N) % 2 == 1, controls=20, k=(1,))
    # of 16 latents that fire one is the property: 1/16 of the draws tell all, the others half
    assert value_of(found.sparse[1]["random"]) == pytest.approx(0.5 + 0.5 / LATENTS, abs=0.1)
    assert value_of(found.sparse[1]["shuffled"]) == pytest.approx(0.5, abs=0.15)


def test_no_examples_where_a_label_is_constant_or_too_rare():
    labels, parts = np.ones(90, np.int8), np.arange(90) % 3
    assert choose(labels, parts, (50, 50, 50), 1, 0) is None
    labels[:9] = 0  # three a part
    assert choose(labels, parts, (50, 50, 50), 4, 0) is None
    found = choose(labels, parts, (50, 50, 50), 3, 0)
    assert found is not None
    for number, part in enumerate(found):
        assert (len(part), labels[part].sum()) == (6, 3)
        assert (parts[part] == number).all()


def test_fewer_latents_fire_than_are_asked_for():
    found = measured(np.arange(N) % 2 == 1, k=(1, LATENTS + 1))
    assert list(found.sparse) == [1]


def test_the_score_by_hand():
    one = np.ones(1)
    assert score(0.8 * one, 0.5 * one, 0.9 * one)[0] == pytest.approx(0.75)  # .3 of .4
    assert np.isnan(score(0.8 * one, 0.5 * one, 0.59 * one)[0])
    assert np.isnan(score(0.8 * one, 0.9 * one, 0.9 * one)[0])


def test_latents_are_ranked_by_differences_in_units_of_their_magnitude():
    # positives: rows 0, 1; negatives: rows 2, 3
    # latent 0: 10, 0 | 0, 0   magnitude 10 -> means 1/2 and 0: difference 1/2
    # latent 1:  1, 1 | 0, 0   magnitude 1  -> means 1 and 0: difference 1, though 0's raw one is 5
    # latent 2 never fires; latent 3: 0, 0 | -4, -2   magnitude 3 -> means 0 and -1: difference 1
    train = sp.csr_array(np.array([[10.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, -4], [0, 0, 0, -2]]))
    labels = np.array([True, True, False, False])
    firing = Firing.of(Parts(train, train, train))
    assert firing.latents.tolist() == [0, 1, 3]
    assert firing.differences(labels) == pytest.approx([0.5, 1, 1])
    assert firing.latents[firing.strongest(labels, 3)].tolist() == [1, 3, 0]
    assert firing.columns(np.array([2])).test[:, 0].tolist() == pytest.approx([0, 0, -4 / 3, -2 / 3])


def test_a_probe_never_sees_the_test_labels():
    generator = np.random.default_rng(0)
    # a weak signal among noise, so that the weight of the penalty matters
    vectors = generator.standard_normal((N, 30))
    truth = vectors[:, 0] + 2 * generator.standard_normal(N) > 0
    features = Parts(*(vectors[part] for part in EXAMPLES))
    labels = Parts(*(truth[part] for part in EXAMPLES))
    scores = probe_scores(features, labels)
    assert (scores == probe_scores(features, labels._replace(test=~labels.test))).all()
    assert (scores != probe_scores(features, labels._replace(validation=~labels.validation))).all()


def test_the_token_alone():
    tokens = Parts(np.array([4, 9, 4]), np.array([9]), np.array([7, 4, 10]))  # 7 and 10 are not known
    assert one_hot(tokens).test.toarray().tolist() == [[0, 0], [1, 0], [0, 0]]


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_estimates_are_those_of_scikit_learn(seed, n_documents):
    generator = np.random.default_rng(seed)
    scores = generator.integers(-3, 4, 40).astype(float)  # with ties
    labels = generator.random(40) < 0.5
    documents = generator.integers(0, n_documents, 40)
    if labels.all() or not labels.any():
        return
    tally = Tally.of(scores, labels, documents, n_documents)
    once = np.ones((1, n_documents))
    assert tally.accuracy(once)[0] == pytest.approx(((scores > 0) == labels).mean())
    assert tally.f1(once)[0] == pytest.approx(f1_score(labels, scores > 0))
    assert tally.auc(once)[0] == pytest.approx(roc_auc_score(labels, scores))
    # a document of weight 2 is one that is there twice
    weights = generator.integers(0, 3, n_documents).astype(float)
    own = np.repeat(np.arange(40), weights[documents].astype(int))
    if labels[own].any() and not labels[own].all():
        assert tally.auc(weights[None])[0] == pytest.approx(roc_auc_score(labels[own], scores[own]))


def test_the_standard_error_is_that_of_documents_and_not_of_tokens():
    # 4 documents of 100 tokens, in each of which all answers are right or all are wrong: shares 1, 1, 0, 0.
    # A sample of 4 documents has a mean with deviation sqrt(.25 / 4) = .25; of 400 tokens it were .025.
    documents = np.repeat(np.arange(4), 100)
    labels = np.arange(400) % 2 == 1
    scores = np.where((documents < 2) == labels, 1.0, -1.0)
    accuracy = Tally.of(scores, labels, documents, 4).accuracy(document_weights(4, 4000, 0))
    assert value_of(accuracy) == 0.5
    assert error_of(accuracy) == pytest.approx(0.25, rel=0.05)


def test_a_class_that_few_documents_hold_is_in_every_part():
    # columns: a common class, one that three documents hold alone
    counts = np.array([[100, 0]] * 20 + [[10, 5]] * 3)
    parts = parts_of(counts)
    assert sorted(parts[20:]) == [0, 1, 2]
    shares = [counts[parts == part, 0].sum() / counts[:, 0].sum() for part in range(3)]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.06)


def test_the_score_over_tasks_is_that_of_means():
    # gains over random latents .3 of .4 and .0 of .1: .3 of .5; the mean of the two scores were .375.
    # Nothing is told of the third task by its vectors, so it is left out.
    found = {}
    for name, sparse, dense in (("string", 0.8, 0.9), ("comment", 0.5, 0.6), ("keyword", 0.7, 0.55)):
        estimates = {measure_: np.full(3, sparse) for measure_ in ("accuracy", "f1", "auc")}
        estimates |= {"random": np.full(3, 0.5), "shuffled": np.full(3, 0.5)}
        of_dense = {measure_: np.full(3, dense) for measure_ in ("accuracy", "f1", "auc")}
        estimates["score"] = score(estimates["accuracy"], estimates["random"], of_dense["accuracy"])
        found[name] = Found(of_dense, np.full(3, 0.5), {1: estimates})
    result = report(found, {task: Sizes(0, 0, 0, 0, 0) for task in TASKS}, {}, [1])
    assert result.values["top_1_score"] == pytest.approx(0.3 / 0.5)
    assert result.values["top_1_accuracy"] == pytest.approx(2 / 3)  # of all three
    assert result.baseline["top_1_accuracy"] == pytest.approx((0.9 + 0.6 + 0.55) / 3)
    assert (result.values["n_tasks"], result.values["n_tasks_left_out"]) == (3, len(TASKS) - 3)
    assert result.values["n_tasks_dense_tells"] == 2
