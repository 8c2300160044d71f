"""What evaluations and metrics share: dictionaries beside one another, bits of codes, means over latents,
counts of pairs; how far a long step is.

``match`` needs scipy, on which core does not depend: a plugin that calls it does.
"""

from qsae_core.measuring.clusters import COUNT, Clusters
from qsae_core.measuring.code_counts import FIT, CodeCounts
from qsae_core.measuring.code_lengths import FLOAT_BITS, bernoulli_bits, support_bits, value_bits
from qsae_core.measuring.directions import directions, equal_layers, random_directions, unit_rows
from qsae_core.measuring.key_counts import KeyCounts
from qsae_core.measuring.matching import (
    ROWS_AT_ONCE,
    Matching,
    Nearest,
    cosines,
    match,
    nearest,
    rows_at_once,
)
from qsae_core.measuring.means import column, mean, standard_error
from qsae_core.measuring.steps import steps
from qsae_core.measuring.token_pairs import entries_by_token, pairs_of_tokens, whole_tokens

__all__ = [
    "COUNT",
    "FIT",
    "FLOAT_BITS",
    "ROWS_AT_ONCE",
    "Clusters",
    "CodeCounts",
    "KeyCounts",
    "Matching",
    "Nearest",
    "bernoulli_bits",
    "column",
    "cosines",
    "directions",
    "entries_by_token",
    "equal_layers",
    "match",
    "mean",
    "nearest",
    "pairs_of_tokens",
    "random_directions",
    "rows_at_once",
    "standard_error",
    "steps",
    "support_bits",
    "unit_rows",
    "value_bits",
    "whole_tokens",
]
