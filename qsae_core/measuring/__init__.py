"""What evaluations and metrics share: dictionaries beside one another, bits of codes, means over latents.

``match`` needs scipy, on which core does not depend: a plugin that calls it does.
"""

from qsae_core.measuring.code_counts import FIT, CodeCounts
from qsae_core.measuring.code_lengths import FLOAT_BITS, bernoulli_bits, support_bits, value_bits
from qsae_core.measuring.directions import directions, equal_layers, random_directions, unit_rows
from qsae_core.measuring.matching import ROWS_AT_ONCE, Matching, Nearest, cosines, match, nearest
from qsae_core.measuring.means import column, mean, standard_error

__all__ = [
    "FIT",
    "FLOAT_BITS",
    "ROWS_AT_ONCE",
    "CodeCounts",
    "Matching",
    "Nearest",
    "bernoulli_bits",
    "column",
    "cosines",
    "directions",
    "equal_layers",
    "match",
    "mean",
    "nearest",
    "random_directions",
    "standard_error",
    "support_bits",
    "unit_rows",
    "value_bits",
]
