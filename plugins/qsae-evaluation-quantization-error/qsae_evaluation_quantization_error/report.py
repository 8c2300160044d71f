"""What is found, under its names. Shapes: F latents."""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import EvaluationContext, Result, Table
from qsae_evaluation_quantization_error.controls import AGAIN, EQUAL_L0, NOISE
from qsae_evaluation_quantization_error.dense_forms import dense_form
from qsae_evaluation_quantization_error.pairs import PairSums
from qsae_evaluation_quantization_error.positions import overlap
from qsae_evaluation_quantization_error.seen import Seen
from qsae_evaluation_quantization_error.survival import (
    Survival,
    class_names,
    histogram,
    standard_errors,
    survival,
)
from qsae_evaluation_quantization_error.weights import (
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
COLUMNS = (
    "r",
    "r_union",
    "scale",
    "jaccard",
    "firings",
    "firings_quantized",
    "left",
    "entered",
    "top_overlap",
)
COLUMNS_OF_DAMAGED = (*COLUMNS, "atom_cosine", "encoder_cosine", "largest_activation")
SAME_SINES = 1e-5
"""Of errors in float32: nearer ones are against the same rows."""
FLIPS = "left", "entered"
PREDICTORS = ("log10_density", "largest_activation", "margin", "atom_cosine", "encoder_cosine")


@torch.no_grad()
def report(seen: Seen, context: EvaluationContext, equal_l0: PairSums | None = None) -> Result:
    """The whole result.

    Args:
        equal_l0: the coder with fitted thresholds beside the twin, where it has any.
    """
    config = seen.config
    found = survival(seen.pairs, config)
    chance = survival(seen.by_chance, config, found.mask)
    errors = standard_errors(seen.pairs, found.mask, config)
    controls = {} if config.control_tokens == 0 else seen.controls.found(equal_l0)
    result = _weights(context, config.rows)
    columns = {**_columns(seen, found), **result.per_latent}
    values: Values = {**found.values, **_support(seen, found, columns)}
    for control, name in ((AGAIN, "identity"), (EQUAL_L0, "equal_l0")):
        if control in controls:
            of_control = controls[control].values
            values |= {
                f"{name}_{value}": of_control[value] for value in ("r_mean", "jaccard", "survived_share")
            }
    predicted, uncertain, predictors = _predictors(columns)
    by_chance = {name: value for name, value in chance.values.items() if not name.startswith("scale")}
    mispaired = overlap(seen.top[0], seen.top[1].renumbered(seen.other_latent))
    by_chance["top_overlap"] = _mean(mispaired.where(found.mask, torch.nan))
    by_chance |= {f"{name}_near_share": seen.margins.near_share(i, 0) for i, name in enumerate(FLIPS)}
    by_chance |= dict.fromkeys(predicted, 0.0)
    beside = {"by_chance": chance, **({"with_noise": controls[NOISE]} if NOISE in controls else {})}
    baseline = {"output_mse": _output(seen)[1], "output_fvu": _output(seen)[3], **result.baseline}
    return Result(
        values={**values, **predicted, **result.values},
        chance={**by_chance, **result.chance},
        baseline={**(dict(controls[NOISE].values) if NOISE in controls else {}), **baseline},
        uncertainty={**errors, **uncertain, **result.uncertainty},
        per_latent=columns,
        tables={
            "controls": seen.controls.table(found, chance, equal_l0),
            "histogram": histogram(found, beside),
            "most_damaged": _damaged(seen, found, columns),
            "predictors": predictors,
            "margins": seen.margins.table(),
            **result.tables,
        },
    )


def _output(seen: Seen) -> tuple[float | None, float | None, float | None, float | None]:
    """Output MSE at the twin's codes and with independent errors; each over the data's variance."""
    moved, alone, n = seen.errors.tolist()
    if not n:
        return None, None, None, None
    variance = seen.variance()
    shares = (moved / variance, alone / variance) if variance > 0 else (None, None)
    return moved / n, alone / n, *shares


def _support(seen: Seen, found: Survival, columns: dict[str, Tensor]) -> Values:
    mse, alone, fvu, _ = _output(seen)
    variance, pairs = seen.variance(), found.pairs
    n = float(pairs.tokens)
    gap = float(seen.squared_errors[1] - seen.squared_errors[0])
    return {
        "l0_gap": float(pairs.firings_b.sum() - pairs.firings_a.sum()) / n if n else None,
        **{f"{name}_near_share": seen.margins.near_share(i, 1) for i, name in enumerate(FLIPS)},
        "top_overlap": _mean(columns["top_overlap"].where(found.mask.cpu(), torch.nan)),
        "output_scale_mean": _mean(columns["output_scale"].where(found.mask.cpu(), torch.nan)),
        "fvu_gap": gap / variance if variance > 0 else None,
        "output_mse": mse,
        "output_fvu": fvu,
        "times_noise": mse / alone if mse is not None and alone else None,
        "judged_latents": int(found.mask.sum()),
        "judged_share": float(found.mask.double().mean()),
        "n_tokens": int(n),
        "special_tokens": seen.special,
    }


def _columns(seen: Seen, found: Survival) -> dict[str, Tensor]:
    pairs, norms = found.pairs, seen.margins.norms
    fired = pairs.firings_a > 0
    columns = {
        "r": found.r,
        "r_union": pairs.r_union.where(found.mask, torch.nan),
        "scale": pairs.scale.where(fired, torch.nan),
        "output_scale": (pairs.scale * norms[1] / norms[0]).where(fired & (norms[0] > 0), torch.nan),
        "jaccard": pairs.jaccard,
        "firings": pairs.firings_a,
        "firings_quantized": pairs.firings_b,
        "left": pairs.firings_a - pairs.both,
        "entered": pairs.firings_b - pairs.both,
        "top_overlap": overlap(*seen.top),
        "log10_density": torch.where(fired, (pairs.firings_a / pairs.tokens).log10(), torch.nan),
        "largest_activation": seen.top[0].largest(),
        "margin": torch.where(fired, seen.margins.log_margin / pairs.firings_a, torch.nan),
    }
    return {name: column.cpu() for name, column in columns.items()}


def _damaged(seen: Seen, found: Survival, columns: dict[str, Tensor]) -> Table:
    """Lost latents first, of those the twin's most frequent; then the lowest r."""
    names = class_names(found, seen.config)
    r, firings = columns["r"].tolist(), columns["firings"].tolist()
    judged = [latent for latent, name in enumerate(names) if name is not None]
    worst = sorted(judged, key=lambda j: (-2.0 if math.isnan(r[j]) else r[j], -firings[j], j))
    rows: list[list[str | int | float | None]] = []
    for latent in worst[: seen.config.rows]:
        cells = [
            _cell(float(columns[name][latent])) if name in columns else None for name in COLUMNS_OF_DAMAGED
        ]
        rows.append([latent, names[latent], *cells])
    return Table(("latent", "class", *COLUMNS_OF_DAMAGED), rows)


def _cell(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() and abs(value) > 1 else value


def _predictors(columns: dict[str, Tensor]) -> tuple[Values, Values, Table]:
    """Spearman's rank correlation of r with what the twin alone, or the weights, say of a latent."""
    values: Values = {}
    errors: Values = {}
    rows: list[list[str | int | float | None]] = []
    for name in PREDICTORS:
        column = columns.get(name)
        rho = error = None
        n = 0
        if column is not None:
            known = ~(columns["r"].isnan() | column.isnan())
            n = int(known.sum())
            rho, error = spearman(columns["r"][known], column[known])
        values[f"spearman_{name}"], errors[f"spearman_{name}"] = rho, error
        rows.append([name, rho, error, n])
    return values, errors, Table(("predictor", "spearman", "standard_error", "latents"), rows)


def spearman(x: Tensor, y: Tensor) -> tuple[float | None, float | None]:
    """rho and its standard error, ``(1 - rho^2) sqrt((1 + rho^2 / 2) / (n - 3))`` (Bonett and Wright, 2000);
    None of fewer than 4 latents, or where one of the two is the same for all."""
    if len(x) < 4 or bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return None, None
    rho = float(stats.spearmanr(x.numpy(), y.numpy()).statistic)
    return rho, (1 - rho**2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))


def _weights(context: EvaluationContext, n_rows: int) -> Result:
    """What needs no data."""
    coder, twin = context.coder, context.twin
    assert twin is not None
    before, after = twin.atoms().flatten(1), coder.atoms().flatten(1)
    atoms = row_errors(before, after)
    columns = {"atom_cosine": atoms.cosine.cpu(), "atom_error": atoms.relative.cpu()}
    share, n = same_latent_share(before, after)
    zero = (after == 0).all(1)
    values: Values = {
        "weight_mse": atoms.mse,
        "weight_nmse": atoms.nmse,
        "atom_cosine": _mean(atoms.cosine),
        "rounding_cosine": _rounding(context),
        "encoder_cosine": None,
        "zero_atoms": int(zero.sum()),
        "same_latent_share": share,
    }
    encoder = _encoder(context)
    if encoder is not None:
        columns["encoder_cosine"] = encoder.cosine.cpu()
        values["encoder_cosine"] = _mean(encoder.cosine)
    found = grids(coder)
    for grid in found:
        counts = grid.counts()
        values[f"levels_used_{grid.name}"] = int((counts > 0).sum())
        values[f"level_entropy_{grid.name}"] = entropy_bits(counts)
        if len(grid.lookup.codes) == len(after):
            columns[f"levels_used_{grid.name}"] = grid.used_by_row().cpu()
    of = {f"level_entropy_{grid.name}": math.log2(len(grid.lookup.points)) for grid in found}
    of |= {f"levels_used_{grid.name}": len(grid.lookup.points) for grid in found}
    return Result(
        values,
        {"same_latent_share": 1 / len(after), "atom_cosine": 0.0, "encoder_cosine": 0.0},
        {"zero_atoms": int((before == 0).all(1).sum()), **of},
        {} if share is None else {"same_latent_share": math.sqrt(share * (1 - share) / n)},
        columns,
        {
            "levels": levels_table(found),
            "largest_errors": largest_errors(stored_space(coder, before, after), n_rows),
        },
    )


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
    return _mean((1 - sines).clamp_min(0).sqrt())


def _encoder(context: EvaluationContext) -> RowErrors | None:
    assert context.twin is not None
    (before, _), (after, _) = dense_form(context.twin), dense_form(context.coder)
    return None if before is None or after is None else row_errors(before.W_enc, after.W_enc)


def _mean(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.double().mean()) if len(known) else None
