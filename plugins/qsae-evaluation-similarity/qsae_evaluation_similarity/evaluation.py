"""The evaluation ``similarity``. Shapes: F latents, D width of an atom (of all layers)."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.coders import MatrixCoder
from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    Observation,
    Result,
    SparseCoder,
    Table,
)
from qsae_core.measuring import column, cosines, directions, mean, random_directions, standard_error
from qsae_core.runs import load_other
from qsae_evaluation_similarity import TWIN, SimilarityConfig
from qsae_evaluation_similarity.between import Between, between
from qsae_evaluation_similarity.grid import GridUse, grid_use
from qsae_evaluation_similarity.within import Within, within

if TYPE_CHECKING:
    from qsae_core.conformance import Case


class Similarity(Evaluation):
    """How alike a coder's atoms are, among each other and to another coder's."""

    config: SimilarityConfig

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        if self.config.other == TWIN:
            self.observes = frozenset({"twin"})  # type: ignore[misc]  # only where it is asked for

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """Alone, and with the twin, matched exactly and by mutual pairs."""
        from qsae_core.conformance import Case

        return [Case(), Case({"other": TWIN}), Case({"other": TWIN, "exact_up_to": 8})]

    def unavailable(self, context: EvaluationContext) -> str | None:
        """Latents of a set of coders are of one layer each."""
        if context.coder.by_layer():
            return "atoms of different layers have nothing in common; each layer's coder is looked at alone"
        return None

    def start(self, context: EvaluationContext) -> Dictionaries:
        """The coder, and the one that it is compared with.

        Raises:
            ArtifactError, ConfigError: if there is no sound coder at ``other``, or none of the same width.
        """
        other = None
        if self.config.other == TWIN:
            other = context.twin
        elif self.config.other is not None:
            where = "evaluate: similarity.other"
            other = load_other(self.config.other, context.coder, context.data.layer, where)
        return Dictionaries(self.config, context.coder, other)


class Dictionaries(Accumulator):
    """Weights alone: no token is asked for."""

    n_tokens = 1

    def __init__(self, config: SimilarityConfig, coder: SparseCoder, other: SparseCoder | None) -> None:
        self.config, self.coder, self.other = config, coder, other

    def update(self, observation: Observation) -> None:
        """Tokens say nothing here."""

    def merge(self, other: Dictionaries) -> None:
        """It knows the same."""

    def result(self) -> Result:
        """What the README names."""
        unit_FD = directions(self.coder)
        random_FD = random_directions(unit_FD, self.config.seed)
        alone = within(unit_FD, self.config.duplicate_above)
        by_chance = within(random_FD, self.config.duplicate_above)
        values = _of_within(alone, len(unit_FD), self.config.duplicate_above)
        chance = _of_within(by_chance, len(unit_FD), self.config.duplicate_above)
        encoder_F, grid = encoder_cosines(self.coder), grid_use(self.coder)
        alone_F = None if alone.nearest is None else alone.nearest.cosines
        uncertainty = {
            "average_max_decoder_cosine_sim": standard_error(alone_F),
            "encoder_decoder_cosine": standard_error(encoder_F),
        }
        columns = _columns(alone, len(unit_FD), encoder_F, grid)
        found = Result(
            {**values, "encoder_decoder_cosine": mean(encoder_F), **_of_grid(grid)},
            {name: chance[name] for name in values if name not in ("n_latents", "zero_atom_fraction")},
            uncertainty=uncertainty,
            per_latent=columns,
            tables={} if grid is None else {"grid": _grid_table(grid)},
        )
        return (
            found if self.other is None else self._beside(found, unit_FD, random_FD, directions(self.other))
        )

    def _beside(self, alone: Result, unit_FD: Tensor, random_FD: Tensor, other_FD: Tensor) -> Result:
        found, floor = (
            between(a, other_FD, self.config.exact_up_to, self.config.matched_above)
            for a in (unit_FD, random_FD)
        )
        return Result(
            {**alone.values, **found.values},
            {**alone.chance, **{name: v for name, v in floor.values.items() if name != "matching_exact"}},
            uncertainty={**alone.uncertainty, **found.errors},
            per_latent={**alone.per_latent, **found.columns},
            tables={**alone.tables, "other": self._table(found, len(unit_FD), len(other_FD))},
        )

    def _table(self, found: Between, n_latents: int, n_other: int) -> Table:
        matching = found.matching
        row = (str(self.config.other), n_latents, n_other, len(matching.rows), matching.how)
        return Table(("other", "n_latents", "n_latents_of_other", "pairs", "matching"), [row])


def encoder_cosines(coder: SparseCoder) -> Tensor | None:
    """float64 ``[F]``: between each latent's encoder and decoder row, in the normalised space; None where
    these are not of one space: transcoders, and coders with more than one encoder or decoder."""
    if not isinstance(coder, MatrixCoder) or not coder.is_autoencoder:
        return None
    matrices = coder.matrices()
    if not {"W_enc", "W_dec"} <= matrices.keys() or matrices["W_enc"].shape != matrices["W_dec"].shape:
        return None
    W_enc, W_dec = (cast(Tensor, matrices[name]()).detach() for name in ("W_enc", "W_dec"))
    rows = torch.arange(coder.n_latents, device=W_enc.device)
    defined = (W_enc.any(1) & W_dec.any(1)).cpu()
    return cosines(W_enc, W_dec, rows, rows).cpu().where(defined, torch.nan)


def _of_within(found: Within, n_latents: int, threshold: float) -> dict[str, float | None]:
    nearest = None if found.nearest is None else found.nearest.cosines
    return {
        "n_latents": float(n_latents),
        "zero_atom_fraction": 1 - len(found.rows) / n_latents,
        "average_max_decoder_cosine_sim": mean(nearest),
        "mean_abs_cosine": found.mean_abs,
        "duplicate_pairs": found.close_pairs,
        "duplicate_latents": None if nearest is None else mean((nearest > threshold).double()),
    }


def _of_grid(grid: GridUse | None) -> dict[str, float | None]:
    return {
        "grid_values": None if grid is None else float(len(grid.points)),
        "grid_share_used": None if grid is None else grid.used(),
        "grid_entropy": None if grid is None else grid.entropy(),
    }


def _grid_table(grid: GridUse) -> Table:
    return Table(("point", "share"), list(zip(grid.points.tolist(), grid.shares.tolist(), strict=True)))


def _columns(
    alone: Within, n_latents: int, encoder_F: Tensor | None, grid: GridUse | None
) -> Mapping[str, Tensor]:
    found = {"zero_atom": torch.ones(n_latents, dtype=torch.float64).index_fill(0, alone.rows, 0)}
    if alone.nearest is not None:
        found["nearest"] = column(n_latents, alone.rows, alone.nearest.which)
        found["nearest_cosine"] = column(n_latents, alone.rows, alone.nearest.cosines)
    if encoder_F is not None:
        found["encoder_decoder_cosine"] = encoder_F
    if grid is not None:
        found["grid_values_used"] = grid.of_rows.double()
    return found
