"""Which options of ``ste`` go together, and what a contradiction is told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from qsae_quantizers import SteConfig


def test_the_grid_is_ternary_unless_bits_are_given():
    assert SteConfig().grid == "ternary"
    assert SteConfig(n_bits=4).grid == "uniform"
    assert SteConfig(grid="auto", n_bits=1).grid == "uniform"


def test_what_was_resolved_can_be_given_again():
    for config in (SteConfig(), SteConfig(n_bits=3), SteConfig(grid="binary")):
        assert SteConfig(**config.model_dump()) == config
        assert config.model_dump()["grid"] != "auto"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"grid": "ternary", "n_bits": 2}, "n_bits = 2 contradicts grid 'ternary'"),
        ({"grid": "binary", "n_bits": 1}, "n_bits = 1 contradicts grid 'binary'"),
        ({"grid": "uniform"}, "needs n_bits"),
        ({"grid": "binary", "scale": "twn"}, "a binary grid has no zero"),
        ({"grid": "binary", "scale": "absmax"}, "as large as the row's largest"),
        ({"n_bits": 4, "scale": "twn"}, "for the ternary grid"),
        ({"n_bits": 4, "scale": "absmean"}, "the range that a uniform grid has to cover"),
        ({"n_bits": 9}, "less than or equal to 8"),
        ({"n_bits": 0}, "greater than or equal to 1"),
        ({"grid": "ternry"}, "ternary"),
        ({"bits": 4}, "bits"),
    ],
)
def test_contradictions_are_refused_with_the_reason(options, reason):
    with pytest.raises(ValidationError, match=reason):
        SteConfig(**options)
