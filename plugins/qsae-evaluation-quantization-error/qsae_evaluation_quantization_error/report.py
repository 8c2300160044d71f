"""What is found, under its names. Shapes: F latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import EvaluationContext, Result, Table
from qsae_evaluation_quantization_error.controls import AGAIN, EQUAL_L0, NOISE
from qsae_evaluation_quantization_error.of_weights import mean_of_known, weights_report
from qsae_evaluation_quantization_error.other_seed import Compared
from qsae_evaluation_quantization_error.pairs import PairSums
from qsae_evaluation_quantization_error.positions import overlap
from qsae_evaluation_quantization_error.predictors import Values, predictors
from qsae_evaluation_quantization_error.seen import Seen
from qsae_evaluation_quantization_error.survival import (
    Survival,
    class_names,
    histogram,
    standard_errors,
    survival,
)
from qsae_evaluation_quantization_error.weights import most_similar

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
FLIPS = "left", "entered"


@torch.no_grad()
def report(seen: Seen, context: EvaluationContext, equal_l0: PairSums | None = None) -> Result:
    """The whole result.

    Args:
        equal_l0: the coder with fitted thresholds beside the twin, where it has any.
    """
    config = seen.config
    found = survival(seen.pairs, config)
    chance = survival(seen.by_chance, config, found.mask)
    controls = {} if config.control_tokens == 0 else seen.controls.found(equal_l0)
    noise = {"with_noise": controls[NOISE]} if NOISE in controls else {}
    matched = {} if seen.other_seed is None else seen.other_seed.found()
    weights = weights_report(context, config.rows)
    columns = {**_columns(seen, found), **weights.per_latent}
    predicted, uncertain, table = predictors(columns)
    output, output_with_noise = _output(seen)
    values = {**found.values, **_support(seen, found, columns), **output, **_of_controls(controls)}
    by_chance = {**_by_chance(seen, found, chance), **_named(matched, "chance")}
    errors = {**standard_errors(seen.pairs, found.mask, config), **_named(matched, "uncertainty")}
    beside = {"by_chance": chance, **noise, **{name: each.survival for name, each in matched.items()}}
    return Result(
        values={**values, **_named(matched, "values"), **predicted, **weights.values},
        chance={**by_chance, **dict.fromkeys(predicted, 0.0), **weights.chance},
        baseline={**(noise["with_noise"].values if noise else {}), **output_with_noise, **weights.baseline},
        uncertainty={**errors, **uncertain, **weights.uncertainty},
        per_latent={**columns, **_named(matched, "columns")},
        tables={
            "controls": seen.controls.table(found, chance, equal_l0, matched),
            "histogram": histogram(found, beside),
            "most_damaged": _damaged(seen, context, found, columns),
            "predictors": table,
            "margins": seen.margins.table(),
            **weights.tables,
        },
    )


def _named(matched: Mapping[str, Compared], what: str) -> dict[str, Any]:
    """One of the mappings of each pairing of matched latents, under names that begin with the pairing's."""
    return {
        f"{pairing}_{name}": value
        for pairing, each in matched.items()
        for name, value in getattr(each, what).items()
    }


def _of_controls(controls: Mapping[str, Survival]) -> Values:
    return {
        f"{name}_{value}": controls[control].values[value]
        for control, name in ((AGAIN, "identity"), (EQUAL_L0, "equal_l0"))
        if control in controls
        for value in ("r_mean", "jaccard", "survived_share")
    }


def _by_chance(seen: Seen, found: Survival, chance: Survival) -> Values:
    """Each latent beside another one; of entries near the threshold, their share of all entries."""
    mispaired = overlap(seen.top[0], seen.top[1].renumbered(seen.other_latent))
    return {
        **{name: value for name, value in chance.values.items() if not name.startswith("scale")},
        "top_overlap": mean_of_known(mispaired.where(found.mask, torch.nan)),
        **{f"{name}_near_share": seen.margins.near_share(i, 0) for i, name in enumerate(FLIPS)},
    }


def _output(seen: Seen) -> tuple[Values, Values]:
    """What the twin's codes lose when the coder decodes them; and what independent errors would cost."""
    moved, alone, n = seen.errors.tolist()
    variance = seen.reconstructions.variance()
    mse, fvu = ([part / whole if whole > 0 else None for part in (moved, alone)] for whole in (n, variance))
    values = {
        "fvu_gap": seen.reconstructions.fvu_gap(),
        "output_mse": mse[0],
        "output_fvu": fvu[0],
        "times_noise": moved / alone if alone > 0 else None,
    }
    return values, {"output_mse": mse[1], "output_fvu": fvu[1]}


def _support(seen: Seen, found: Survival, columns: dict[str, Tensor]) -> Values:
    pairs = found.pairs
    n = float(pairs.tokens)
    return {
        "l0_gap": float(pairs.firings_b.sum() - pairs.firings_a.sum()) / n if n else None,
        **{f"{name}_near_share": seen.margins.near_share(i, 1) for i, name in enumerate(FLIPS)},
        "top_overlap": mean_of_known(columns["top_overlap"].where(found.mask.cpu(), torch.nan)),
        "output_scale_mean": mean_of_known(columns["output_scale"].where(found.mask.cpu(), torch.nan)),
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


def _damaged(seen: Seen, context: EvaluationContext, found: Survival, columns: dict[str, Tensor]) -> Table:
    """Lost latents first, of those the twin's most frequent; then the lowest r. ``most_similar`` is the
    number of the twin's most similar atom."""
    assert context.twin is not None
    names = class_names(found, seen.config)
    r, firings = columns["r"].tolist(), columns["firings"].tolist()
    judged = [latent for latent, name in enumerate(names) if name is not None]
    worst = sorted(judged, key=lambda j: (-2.0 if math.isnan(r[j]) else r[j], -firings[j], j))
    shown = worst[: seen.config.rows]
    if not shown:
        return Table(("latent", "class", "most_similar", *COLUMNS_OF_DAMAGED), [])
    before, after = (coder.atoms().flatten(1) for coder in (context.twin, context.coder))
    similar = most_similar(before, after, torch.tensor(shown)).tolist()
    rows: list[list[str | int | float | None]] = []
    for latent, other in zip(shown, similar, strict=True):
        known = [columns.get(name) for name in COLUMNS_OF_DAMAGED]
        cells = [None if column is None else _cell(float(column[latent])) for column in known]
        rows.append([latent, names[latent], other, *cells])
    return Table(("latent", "class", "most_similar", *COLUMNS_OF_DAMAGED), rows)


def _cell(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() and abs(value) > 1 else value
