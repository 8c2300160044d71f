"""RouteSAE (Shi et al., 2025); the router is in ``qsae_core.coders.routed``."""

from __future__ import annotations

import pathlib

from qsae_core.coders import RoutedCoder
from qsae_core.conformance import Case


class RouteSAE(RoutedCoder):
    """f = rule(activation(W_enc (x_r - b_dec) + b_enc)) of the vector x_r that the router takes.

    Rows of W_dec have unit norm.
    """

    unit_norm_rows = True

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Three layers, and each option."""
        layers = {"layers_in": 3, "layers_out": 3}
        options: list[dict[str, str | bool]] = [
            {},
            {"routing": "soft"},
            {"aggre": "sum"},
            {"layer_norm": True},
        ]
        return [Case(chosen, layers) for chosen in options]
