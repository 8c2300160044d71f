"""Absolute positions, whatever padding, caches and segments do."""

from __future__ import annotations

import pytest
import torch
from qsae_splice.passes import next_pass, prompt_lengths, whole_pass
from qsae_splice.positions import read_positions

from qsae_core.contracts import TokenBatch
from qsae_core.errors import ConfigError

IDS = torch.tensor([[0, 0, 9, 5, 6, 7], [9, 4, 5, 6, 7, 8]])  # 0 is padding, 9 is BOS


def held(now, text):
    return now.at(read_positions(text), lambda token: f"w{token}").tolist()


def padded() -> TokenBatch:
    return TokenBatch(IDS, (IDS != 0) & (IDS != 9), IDS != 0)


def test_padding_on_the_left_is_not_counted() -> None:
    now = whole_pass(padded(), None)
    assert now.places.tolist() == [[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert now.prompt.tolist() == [[4] * 6, [6] * 6]
    off, on = False, True
    # BOS, at 0, and padding are never edited
    assert held(now, "all") == [[off, off, off, on, on, on], [off, on, on, on, on, on]]
    assert held(now, "last") == [[off, off, off, off, off, on], [off, off, off, off, off, on]]
    assert held(now, "1:3") == [[off, off, off, on, on, off], [off, on, on, off, off, off]]
    assert held(now, "-3:-1") == [[off, off, off, on, on, off], [off, off, off, on, on, off]]
    assert held(now, "generated") == [[off] * 6, [off] * 6]
    assert held(now, "prompt") == held(now, "all")
    assert held(now, "token:/[56]/") == [[off, off, off, on, on, off], [off, off, on, on, off, off]]


def test_where_the_prompt_ends_is_said() -> None:
    now = whole_pass(padded(), torch.tensor([2, 3]))
    off, on = False, True
    assert held(now, "generated") == [[off, off, off, off, on, on], [off, off, off, on, on, on]]
    assert held(now, "last") == [[off, off, off, on, off, off], [off, off, on, off, off, off]]
    assert held(now, "-1:") == [[off, off, off, on, on, on], [off, off, on, on, on, on]]


def test_segments_begin_anew() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    real = torch.ones(1, 6, dtype=torch.bool)
    now = whole_pass(TokenBatch(IDS[1:], real, real, None, segments), None)
    assert now.places.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert held(now, "last") == [[False, False, True, False, False, True]]


def test_a_cache_does_not_move_positions() -> None:
    now = next_pass(torch.tensor([[7], [9]]), 5, torch.tensor([[4], [6]]), {9})
    assert now.places.tolist() == [[5], [5]]
    assert held(now, "generated") == [[True], [False]]
    assert held(now, "prompt") == [[False], [False]]  # the second is of the prompt, and special
    assert held(now, "5:6") == [[True], [False]]


def test_lengths_of_prompts() -> None:
    assert prompt_lengths(3, IDS).tolist() == [[3], [3]]
    with pytest.raises(ConfigError, match="3 lengths of prompts and 2 sequences"):
        prompt_lengths(torch.tensor([1, 2, 3]), IDS)
