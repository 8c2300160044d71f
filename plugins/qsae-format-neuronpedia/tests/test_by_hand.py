"""Two latents by hand: every field; histograms; parts of characters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from qsae_format_neuronpedia.features import Features
from qsae_format_neuronpedia.histograms import of_firings, of_logits
from qsae_samples import Samples
from qsae_samples.files import packed

FIELDS = [
    "feature_index",
    "neuron_alignment_indices",
    "neuron_alignment_values",
    "neuron_alignment_l1",
    "correlated_neurons_indices",
    "correlated_neurons_l1",
    "correlated_neurons_pearson",
    "correlated_features_indices",
    "correlated_features_l1",
    "correlated_features_pearson",
    "neg_str",
    "neg_values",
    "pos_str",
    "pos_values",
    "frac_nonzero",
    "freq_hist_data_bar_values",
    "freq_hist_data_bar_heights",
    "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values",
    "n_prompts_total",
    "n_tokens_in_prompt",
    "dataset",
    "decoder_weights_dist",
    "activations",
    "vector",
]
"""Of SAEDashboard 0.8.0's ``NeuronpediaDashboardFeature.to_dict``, in its order."""


def made_samples(**logits: np.ndarray) -> Samples:
    """The text ``the cat €`` of five tokens; latent 0 fires on ` cat` (8), and on both parts of ` €`
    (4 and -2); latent 1 is silent. Of 100 tokens."""
    arrays = {
        "count": np.array([3, 0]),
        "mean": np.array([14 / 3, np.nan], dtype=np.float32),
        "largest": np.array([8, 0], dtype=np.float32),
        # the strongest bin first; bins of an octave: 8 to 16, 4 to 8, 2 to 4
        "histogram": np.array([[1, 1, 1], [0, 0, 0]], dtype=np.uint32),
        "histogram_top": np.array([7, 0], dtype=np.int16),  # 2 ** (7 - 4) = 8
        "group_floor": np.array([[4, 2], [np.nan, np.nan]], dtype=np.float32),
        "example_offsets": np.array([0, 2, 2]),
        "example_group": np.array([0, 2], dtype=np.uint8),
        "example_start": np.array([0, 1], dtype=np.uint32),
        "example_length": np.array([4, 3], dtype=np.uint8),
        "example_peak": np.array([1, 1], dtype=np.uint8),
        "example_active": np.array([3, 3], dtype=np.uint8),
        "active_at": np.array([1, 2, 3, 0, 1, 2], dtype=np.uint8),
        "active_value": np.array([32767, 16384, -8192, 32767, 16384, -8192], dtype=np.int16),
        "tokens": np.array([0, 1, 2, 3], dtype=np.uint16),
        "vocabulary_ids": np.array([5, 6, 7, 8], dtype=np.uint32),
        "vocabulary_text": packed(["the", " cat", "", " €"]),
        "stretch_start": np.array([0], dtype=np.uint32),
        "stretch_context": np.array([3], dtype=np.uint32),
        "stretch_position": np.array([1], dtype=np.uint32),
        "stretch_document": np.array([2], dtype=np.int32),
        "cofiring_latent": np.full((2, 1), -1, dtype=np.int32),
        "cofiring_share": np.zeros((2, 1), dtype=np.float32),
        **logits,
    }
    about = {
        "n_tokens": 100,
        "n_contexts": 4,
        "context_length": 26,
        "measured": "made-up text",
        "bins": {"of_an_octave": 1, "octaves_below_1": 4},
    }
    return Samples(arrays, about)


LOGITS = {
    "logit_token": np.array([[[0, 1], [2, 1]], [[0, 1], [2, 1]]], dtype=np.uint32),
    "logit_value": np.array([[[6, 4], [-4, 4]], [[0, 0], [0, 0]]], dtype=np.float32),
    "logit_ids": np.array([5, 6, 9], dtype=np.uint32),
    "logit_text": packed(["the", " cat", "\ufffd"]),
    "logit_bytes": packed(["", "", "e282"]),
    "logit_mean": np.array([2, 0], dtype=np.float32),  # (6 + 4 - 4) / 3
    "logit_histogram": np.array([[1, 2], [3, 0]], dtype=np.uint32),
}
ATOMS = torch.tensor([[0.0, 3.0, -4.0, 0.0], [1.0, 0.0, 0.0, 0.0]])  # of norms 5 and 1


def test_one_latent():
    found = Features(made_samples(**LOGITS), ATOMS).of(0)
    assert list(found) == FIELDS
    assert found["feature_index"] == 0
    assert found["neuron_alignment_indices"][0] == 1
    assert found["neuron_alignment_values"] == [0.6, 0.0, 0.0]  # 3 / 5; -4 / 5 is the least of all
    assert found["neuron_alignment_l1"] == pytest.approx([3 / 7, 0, 0], rel=1e-4)
    assert found["frac_nonzero"] == 0.03
    # logits less their mean, over the square root of 4 entries
    assert found["pos_str"] == ["the", " cat"]
    assert found["pos_values"] == [2.0, 1.0]
    assert found["neg_str"] == [r"\xe2\x82", " cat"]
    assert found["neg_values"] == [-3.0, 1.0]
    assert found["logits_hist_data_bar_heights"] == [1, 2]
    assert found["logits_hist_data_bar_values"] == pytest.approx([-1.75, 0.75])  # bars from -3 to -0.5 to 2
    assert (found["n_prompts_total"], found["n_tokens_in_prompt"]) == (4, 26)
    assert found["dataset"] == "made-up text"
    # activations times the norm of the atom
    assert sum(found["freq_hist_data_bar_heights"]) == 3
    first, second = found["activations"]
    assert first == {
        "bin_min": -1.0,
        "bin_max": 40.0,
        "bin_contains": -1.0,
        "tokens": ["the", " cat", "\ufffd", " €"],  # a part of a character, on which it fires
        "values": pytest.approx([0, 40, 20, -10], rel=1e-3),
        "qualifying_token_index": 1,
    }
    assert (second["bin_min"], second["bin_max"]) == (10.0, 20.0)
    assert second["bin_contains"] == 0.015  # half of the firings, of all tokens
    assert second["tokens"] == [" cat", "\ufffd", " €"]


def test_a_silent_latent_and_one_without_logits():
    found = Features(made_samples(), ATOMS).of(1)
    assert list(found) == FIELDS
    assert found["frac_nonzero"] == 0
    empty = (
        *("activations", "freq_hist_data_bar_values", "freq_hist_data_bar_heights"),
        *("pos_str", "pos_values", "neg_str", "neg_values"),
        *("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
    )
    assert [found[name] for name in empty] == [[]] * len(empty)
    nothing = Features(made_samples(), torch.zeros(2, 4)).of(1)
    assert nothing["neuron_alignment_l1"] == [None, None, None]  # a share of nothing


def test_firings_in_bars_of_equal_width():
    # bins 0 to 1, 1 to 2, 2 to 4; 100 firings from 1 to 2, 50 from 2 to 3, the largest
    bars = of_firings(np.array([0, 100, 50]), np.array([0.5, 1, 2, 4]), 3.0)
    assert len(bars.values) == len(bars.heights) == 50
    assert bars.values[0] == pytest.approx(1 + 0.02)
    assert bars.values[-1] == pytest.approx(3 - 0.02)
    assert bars.heights == [4] * 25 + [2] * 25  # 100 / 25, and 50 / 25
    # the weakest bin holds all that is weaker: it begins at 0
    bars = of_firings(np.array([50, 0]), np.array([0.5, 1, 2]), 1.0)
    assert bars.values[0] == pytest.approx(0.01)
    assert bars.heights == [1] * 50
    # latents of one bit fire with one magnitude
    assert of_firings(np.array([0, 7]), np.array([0.5, 1.0, 2.0]), 1.0) == ([1.0], [7])
    assert of_firings(np.array([0, 0]), np.array([0.5, 1.0, 2.0]), 0.0) == ([], [])


def test_no_firing_is_lost_between_bars():
    drawn = np.random.default_rng(0)
    for _ in range(20):
        edges = np.exp2(np.arange(49) / 8)
        counts = drawn.integers(0, 4, 48)
        last = int(counts.nonzero()[0][-1])
        largest = float(math.sqrt(edges[last] * edges[last + 1]))
        bars = of_firings(counts, edges, largest)
        assert sum(bars.heights) == counts.sum()
        assert min(bars.heights) >= 0
        assert bars.values[-1] < largest


def test_logits_in_bars():
    assert of_logits(np.array([3, 0, 1]), -1.0, 2.0) == ([-0.5, 0.5, 1.5], [3, 0, 1])
