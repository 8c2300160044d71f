"""Quantizer ``ste``: round to a grid, gradient straight through. Shapes: F rows, D columns."""

from __future__ import annotations

from qsae_quantizers.configs import SteConfig
from qsae_quantizers.grid_quantizer import GridQuantizer
from qsae_quantizers.grids import grid_of


class Ste(GridQuantizer):
    """``w_hat = scale * nearest point of w / scale``.

    The scale follows from the weights at every call; nothing is learned here. A row of zeros stays zero.

    Gradient (Bengio et al., 2013): that of w_hat, handed on to w; zero for weights that a uniform grid clips.
    Ternary and binary grids hand it on for every weight. To cut it off beyond the scale would stop the
    largest weights, 22% (ternary) or 42% (binary) of a Gaussian row: on sparse superpositions that gained 1
    to 5% of the squared error from a float start, and lost 4 to 27% from scratch.
    """

    config_class = SteConfig

    def __init__(self, config: SteConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape, grid_of(config.grid, config.n_bits))
        self.scale_rule = config.scale
