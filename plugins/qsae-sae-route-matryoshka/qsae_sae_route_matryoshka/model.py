"""A routed matryoshka SAE. Shapes: B tokens, D model width."""

from __future__ import annotations

import pathlib
from typing import Any

from torch import Tensor

from qsae_core.coders import NestedCoder, RoutedCoder
from qsae_core.conformance import Case
from qsae_core.contracts import SparseCodes
from qsae_core.kernels import Matrix


class RouteMatryoshkaSAE(RoutedCoder, NestedCoder):
    """The router of ``route``, and the nested groups of ``matryoshka``: the relative error is the mean over
    prefixes."""

    unit_norm_rows = True

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Three layers; equal groups and others; both ways of routing."""
        layers = {"layers_in": 3, "layers_out": 3}
        options: list[dict[str, Any]] = [{}, {"group_sizes": [8, 40, 16]}, {"routing": "soft"}]
        return [Case(chosen, layers) for chosen in options]

    def relative_error(
        self, x_BD: Tensor, codes: SparseCodes, W_dec_FD: Matrix, weight_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean over prefixes and tokens of ``weight ||x - x_hat_g||^2``, and the whole reconstruction."""
        errors_G, x_hat = self.prefix_errors(x_BD, codes, W_dec_FD, weight_B)
        return errors_G.mean(), x_hat
