"""What evaluations share: dictionaries beside one another, and means over latents.

``match`` needs scipy, on which core does not depend: a plugin that calls it does.
"""

from qsae_core.measuring.directions import directions, equal_layers, random_directions, unit_rows
from qsae_core.measuring.matching import ROWS_AT_ONCE, Matching, Nearest, cosines, match, nearest
from qsae_core.measuring.means import column, mean, standard_error

__all__ = [
    "ROWS_AT_ONCE",
    "Matching",
    "Nearest",
    "column",
    "cosines",
    "directions",
    "equal_layers",
    "match",
    "mean",
    "nearest",
    "random_directions",
    "standard_error",
    "unit_rows",
]
