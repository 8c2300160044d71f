"""What batches say of a coder's gradients. Shapes: F latents, K batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core import name_of
from qsae_core.coders import MatrixCoder
from qsae_core.contracts import Batch, Result, Table
from qsae_evaluation_gradients import GradientsConfig, grid
from qsae_evaluation_gradients.differences import at_quantized, cosine, mismatch, slopes
from qsae_evaluation_gradients.trainable import Trainable

SLOPES = ("ste_mismatch", "ste_cosine", "flip_mismatch", "passed_cosine")
SHARES = ("saturated_share", "clipped_share", "near_boundary_share")
VALUES = ("grad_norm", "noise_share", *SLOPES, *SHARES, "n_tokens", "n_batches")
STEPS = (0.01, 0.1, 1.0, 10.0)
"""Steps of the table ``steps``, in units of ``rate``."""
Numbers = dict[str, float | None]
Cell = str | int | float | None


class OfBatches(NamedTuple):
    """Gradients of K batches, in float64."""

    first: dict[str, Tensor]
    """Parameter name -> the gradient of the first batch."""
    squares: dict[str, Tensor]
    """Parameter name -> ``[K]``, squared norms."""
    mean_square: float
    """Squared norm of the mean gradient."""
    row_squares: Mapping[str, Tensor]
    """Decoder's name -> ``[F]``, mean of the squared norms of the rows' gradients."""


def found(coder: MatrixCoder, batches: Sequence[Batch], config: GradientsConfig) -> Result:
    """All that the evaluation finds; nothing is defined without a batch."""
    n_tokens = float(sum(map(len, batches)))
    counts: Numbers = {"n_tokens": n_tokens, "n_batches": float(len(batches))}
    if not batches:
        return Result(dict.fromkeys(VALUES) | counts)
    trained = Trainable(coder, config.seed)
    gradients = _of_batches(trained, batches)
    quantized = trained.quantized()
    measured = quantized or trained.coder.matrices()
    rows: dict[str, Numbers] = {}
    errors: list[Numbers] = []
    for name in measured:
        straight, of_quantized = gradients.first[f"{name}.weight"], at_quantized(trained, name, batches[0])
        rows[name], error = _slopes(trained, name, batches[0], (straight, of_quantized), config)
        errors.append(error)
        if name in quantized:
            rows[name] |= _shares(trained, name, (straight, of_quantized), config)
    values = _norms(gradients) | {
        key: _mean([row.get(key) for row in rows.values()]) for key in (*SLOPES, *SHARES)
    }
    baseline = _without_quantizers(trained, list(quantized), batches[0], config)
    return Result(
        {name: (values | counts)[name] for name in VALUES},
        chance={"ste_mismatch": 1.0, "flip_mismatch": 1.0, "ste_cosine": 0.0},
        baseline=baseline,
        uncertainty={"grad_norm": _error_of_norm(gradients)} | _pooled(errors),
        per_latent=_columns(trained, gradients, config),
        tables={
            "parameters": _parameters(trained, gradients),
            "matrices": _matrices(trained, rows),
            "steps": _steps(trained, config),
        },
    )


def _of_batches(trained: Trainable, batches: Sequence[Batch]) -> OfBatches:
    first: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    squares: dict[str, list[Tensor]] = {name: [] for name in trained.parameters}
    decoders = [name for name in trained.coder.decoders() if f"{name}.weight" in trained.parameters]
    rows: dict[str, Tensor] = {}
    for batch in batches:
        of_batch = trained.gradients(batch)
        first = first or of_batch
        for name, gradient in of_batch.items():
            exact = gradient.double()
            squares[name].append(exact.square().sum().cpu())
            total[name] = exact if name not in total else total[name] + exact
        for name in decoders:
            of_rows = of_batch[f"{name}.weight"].double().flatten(1).square().sum(1).cpu()
            rows[name] = rows.get(name, 0.0) + of_rows / len(batches)
    mean_square = sum(float((t / len(batches)).square().sum()) for t in total.values())
    return OfBatches(first, {n: torch.stack(s) for n, s in squares.items()}, mean_square, rows)


def _norms(gradients: OfBatches) -> Numbers:
    """``noise_share``: with K batches, the mean of ||g_k||^2 is |G|^2 + s^2, and ||mean g_k||^2 is
    |G|^2 + s^2 / K on average."""
    squares_K = torch.stack(list(gradients.squares.values())).sum(0)
    n, mean = len(squares_K), float(squares_K.mean())
    noise = None
    if n > 1 and mean > 0:
        noise = (mean - gradients.mean_square) * n / (n - 1) / mean
    return {"grad_norm": float(squares_K.sqrt().mean()), "noise_share": noise}


def _error_of_norm(gradients: OfBatches) -> float | None:
    norms_K = torch.stack(list(gradients.squares.values())).sum(0).sqrt()
    return float(norms_K.std() / math.sqrt(len(norms_K))) if len(norms_K) > 1 else None


def _slopes(
    trained: Trainable,
    name: str,
    batch: Batch,
    gradients: tuple[Tensor, Tensor | None],
    config: GradientsConfig,
) -> tuple[Numbers, Numbers]:
    """``SLOPES`` of a matrix, and their standard errors over directions (jackknife).

    Args:
        gradients: of the master, and of the quantized entries (``at_quantized``).
    """
    straight, of_quantized = gradients
    along = slopes(trained, name, batch, straight, of_quantized, config.directions, config.perturbation)

    def of(keep: Tensor) -> Numbers:
        real, ste = along.measured[keep], along.straight[keep]
        flips = None if along.of_flips is None else mismatch(real, along.of_flips[keep])
        return {"ste_mismatch": mismatch(real, ste), "ste_cosine": cosine(real, ste), "flip_mismatch": flips}

    number_R = torch.arange(config.directions)
    values = of(number_R >= 0)
    without = [of(number_R != i) for i in number_R] if config.directions > 2 else []
    errors = {key: _jackknife([each[key] for each in without]) for key in values}
    return values | {"passed_cosine": _cosine(straight, of_quantized)}, errors


def _cosine(straight: Tensor, of_quantized: Tensor | None) -> float | None:
    return None if of_quantized is None else cosine(straight, of_quantized)


def _jackknife(without: Sequence[float | None]) -> float | None:
    known = [value for value in without if value is not None]
    if not known or len(known) < len(without):
        return None
    spread = torch.tensor(known, dtype=torch.float64)
    return float(((spread - spread.mean()).square().sum() * (len(known) - 1) / len(known)).sqrt())


def _shares(
    trained: Trainable, name: str, gradients: tuple[Tensor, Tensor | None], config: GradientsConfig
) -> Numbers:
    matrix, (straight, of_quantized) = trained.coder.matrices()[name], gradients
    near = grid.near_boundary(matrix, _step(trained, name, config.rate), config.seed)
    return {
        "saturated_share": grid.share(grid.saturated(matrix)),
        "clipped_share": None if of_quantized is None else grid.clipped(straight, of_quantized),
        "near_boundary_share": grid.share(near),
    }


def _step(trained: Trainable, name: str, rate: float) -> float:
    return rate * trained.coder.rate_factors().get(f"{name}.weight", 1.0)


def _without_quantizers(
    trained: Trainable, names: Sequence[str], batch: Batch, config: GradientsConfig
) -> Numbers:
    """The slopes of the same matrices when training passes by the quantizers: what the measurement itself
    errs by, and what the loss's own kinks do. Nothing where none is quantized."""
    if not names:
        return {}
    trained.coder.quantize_weights(False)
    gradients = trained.gradients(batch)
    found = []
    for name in names:
        straight = gradients[f"{name}.weight"]
        along = slopes(trained, name, batch, straight, None, config.directions, config.perturbation)
        found.append((mismatch(along.measured, along.straight), cosine(along.measured, along.straight)))
    trained.coder.quantize_weights(True)
    return {"ste_mismatch": _mean([m for m, _ in found]), "ste_cosine": _mean([c for _, c in found])}


def _columns(trained: Trainable, gradients: OfBatches, config: GradientsConfig) -> dict[str, Tensor]:
    """Numbers of each latent's rows of the decoder's matrices, where these are the latents."""
    decoders, n_latents = trained.coder.decoders(), trained.coder.n_latents
    columns: dict[str, list[Tensor | None]] = {
        "grad_norm": [
            None if n not in gradients.row_squares else gradients.row_squares[n].sqrt() for n in decoders
        ],
        "saturated_share": [_of_rows(grid.saturated(m)) for m in decoders.values()],
        "near_boundary_share": [
            _of_rows(grid.near_boundary(m, _step(trained, n, config.rate), config.seed))
            for n, m in decoders.items()
        ],
    }
    known = {k: [part for part in parts if part is not None] for k, parts in columns.items()}
    return {k: torch.cat(parts) for k, parts in known.items() if sum(map(len, parts)) == n_latents > 0}


def _of_rows(which: Tensor | None) -> Tensor | None:
    return None if which is None else which.double().mean(1).cpu()


def _parameters(trained: Trainable, gradients: OfBatches) -> Table:
    rows: list[list[Cell]] = []
    for name, parameter in trained.parameters.items():
        size, norm = parameter.numel(), float(gradients.squares[name].sqrt().mean())
        of_weights = float(parameter.detach().double().norm())
        zeros = float((gradients.first[name] == 0).double().mean()) if size else None
        relative = norm / of_weights if of_weights > 0 else None
        rows.append([name, size, norm, of_weights, relative, zeros])
    return Table(("parameter", "entries", "grad_norm", "norm", "grad_norm_by_norm", "zero_share"), rows)


def _matrices(trained: Trainable, rows: Mapping[str, Mapping[str, float | None]]) -> Table:
    names = (*SLOPES, *SHARES)
    table: list[list[Cell]] = [
        [name, name_of(trained.coder.matrices()[name].quantizer), *(row.get(key) for key in names)]
        for name, row in rows.items()
    ]
    return Table(("matrix", "quantizer", *names), table)


def _steps(trained: Trainable, config: GradientsConfig) -> Table:
    """Weights that would have another point, by the size of the step."""
    rows: list[list[Cell]] = []
    for name, matrix in trained.quantized().items():
        for factor in STEPS:
            rate = config.rate * factor
            near = grid.near_boundary(matrix, _step(trained, name, rate), config.seed)
            rows.append([name, rate, grid.share(near)])
    return Table(("matrix", "rate", "near_boundary_share"), rows)


def _pooled(errors: Sequence[Mapping[str, float | None]]) -> Numbers:
    """Standard errors of means over matrices, of which each has its own directions."""
    found: Numbers = {}
    for key in ("ste_mismatch", "ste_cosine", "flip_mismatch"):
        known = [e[key] for e in errors]
        squares = [e**2 for e in known if e is not None]
        found[key] = (
            math.sqrt(sum(squares)) / len(squares) if squares and len(squares) == len(known) else None
        )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """Over those that are defined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
