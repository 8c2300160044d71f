"""Errors of matrices, and levels in use, under their names. Shapes: F latents, D width."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import EvaluationContext, Result, Table
from qsae_evaluation_quantization_error.dense_forms import dense_form
from qsae_evaluation_quantization_error.weights import (
    Grid,
    RowErrors,
    entropy_bits,
    grids,
    largest_errors,
    levels_table,
    row_errors,
    same_latent_share,
    stored_space,
)

Values = dict[str, float | None]
SAME_SINES = 1e-5
"""Of errors in float32: nearer ones are against the same rows."""


def weights_report(context: EvaluationContext, n_rows: int) -> Result:
    """What needs no data.

    Args:
        n_rows: of the table of the largest errors.
    """
    coder, twin = context.coder, context.twin
    assert twin is not None  # as the evaluation observes it
    before, after = twin.atoms().flatten(1), coder.atoms().flatten(1)
    atoms, encoder = row_errors(before, after), _encoder(context)
    share, n = same_latent_share(before, after)
    values: Values = {
        "weight_mse": atoms.mse,
        "weight_nmse": atoms.nmse,
        "atom_cosine": mean_of_known(atoms.cosine),
        "rounding_cosine": _rounding(context),
        "encoder_cosine": None if encoder is None else mean_of_known(encoder.cosine),
        "zero_atoms": int((after == 0).all(1).sum()),
        "same_latent_share": share,
    }
    columns = {"atom_cosine": atoms.cosine.cpu(), "atom_error": atoms.relative.cpu()}
    if encoder is not None:
        columns["encoder_cosine"] = encoder.cosine.cpu()
    found = grids(coder)
    used, of_grid = _levels(found)
    columns |= {
        f"levels_used_{grid.name}": grid.used_by_row().cpu()
        for grid in found
        if len(grid.lookup.codes) == len(after)
    }
    tables: dict[str, Table] = {"levels": levels_table(found)}
    tables["largest_errors"] = largest_errors(stored_space(coder, before, after), n_rows)
    return Result(
        values={**values, **used},
        chance={"same_latent_share": 1 / len(after), "atom_cosine": 0.0, "encoder_cosine": 0.0},
        baseline={"zero_atoms": int((before == 0).all(1).sum()), **of_grid},
        uncertainty={} if share is None else {"same_latent_share": math.sqrt(share * (1 - share) / n)},
        per_latent=columns,
        tables=tables,
    )


def _levels(found: list[Grid]) -> tuple[Values, Values]:
    """Levels in use and their entropy, of each grid; and what there is of both."""
    used: Values = {}
    there: Values = {}
    for grid in found:
        counts = grid.counts()
        names = f"levels_used_{grid.name}", f"level_entropy_{grid.name}"
        used |= zip(names, (int((counts > 0).sum()), entropy_bits(counts)), strict=True)
        there |= zip(names, (len(counts), math.log2(len(counts))), strict=True)
    return used, there


def _rounding(context: EvaluationContext) -> float | None:
    """The mean cosine between atoms and the coder's own float masters; None where these are not known, and
    errors are those against the twin."""
    coder, twin = context.coder, context.twin
    if context.atom_errors is None or not isinstance(coder, MatrixCoder) or not isinstance(twin, MatrixCoder):
        return None
    sines = context.atom_errors.squared_sines.cpu()
    before, after = ((c.atoms() / c.norm_out.scale).flatten(1) for c in (twin, coder))
    of_twin = 1 - row_errors(before, after).cosine.cpu().nan_to_num().square()
    if torch.allclose(sines, of_twin, rtol=0, atol=SAME_SINES):
        return None
    return mean_of_known((1 - sines).clamp_min(0).sqrt())


def _encoder(context: EvaluationContext) -> RowErrors | None:
    assert context.twin is not None
    (before, _), (after, _) = dense_form(context.twin), dense_form(context.coder)
    return None if before is None or after is None else row_errors(before.W_enc, after.W_enc)


def mean_of_known(values: Tensor) -> float | None:
    """The mean of what is not NaN; None of nothing."""
    known = values[~values.isnan()]
    return float(known.double().mean()) if len(known) else None
