"""What quantization does to the matrices themselves, without any data. Shapes: F latents, D width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import Lookup, SparseCoder, Table

SAMPLE = 1024
"""So many latents are asked whether the twin's most similar atom has the same number."""
SIMILARITIES_AT_ONCE = 2**22
ROWS_AT_ONCE = 4096


class RowErrors(NamedTuple):
    """Rows of a matrix before and after, ``[F]`` each, float64."""

    cosine: Tensor
    """NaN where one of the two rows is zero."""
    relative: Tensor
    """``||w' - w||^2 / ||w||^2``; NaN where w is zero."""
    square: Tensor
    """``||w' - w||^2``."""
    nmse: float | None
    """``sum ||w' - w||^2 / sum ||w||^2``."""
    mse: float
    """The mean over entries."""


def row_errors(before: Tensor, after: Tensor) -> RowErrors:
    """Compare rows, a few at a time in float64."""
    parts = []
    for a, b in zip(before.split(ROWS_AT_ONCE), after.split(ROWS_AT_ONCE), strict=True):
        a, b = a.double(), b.double()
        parts.append(
            torch.stack([(a * b).sum(1), a.square().sum(1), b.square().sum(1), (b - a).square().sum(1)])
        )
    inner, square_a, square_b, error = torch.cat(parts, 1)
    norms = (square_a * square_b).sqrt()
    cosine = torch.where(norms > 0, (inner / norms).clamp(-1, 1), torch.nan)
    relative = torch.where(square_a > 0, error / square_a, torch.nan)
    total = float(square_a.sum())
    nmse = float(error.sum()) / total if total else None
    return RowErrors(cosine, relative, error, nmse, float(error.sum()) / max(before.numel(), 1))


def most_similar(before: Tensor, after: Tensor, chosen: Tensor) -> Tensor:
    """int64: for each chosen row of ``after`` the number of the row of ``before`` with the largest cosine."""
    unit = torch.nn.functional.normalize(before, dim=1)
    parts = chosen.to(after.device).split(max(1, SIMILARITIES_AT_ONCE // max(len(before), 1)))
    return torch.cat([(after[some] @ unit.T).argmax(1) for some in parts])


def same_latent_share(before: Tensor, after: Tensor) -> tuple[float | None, int]:
    """The share of latents (of ``SAMPLE``, evenly spaced) whose most similar row of ``before`` has their own
    number, and of how many: whether latents of one number are the same latent at all."""
    if not len(after):
        return None, 0
    chosen = torch.arange(0, len(after), -(-len(after) // SAMPLE), device=after.device)
    return float((most_similar(before, after, chosen) == chosen).double().mean()), len(chosen)


class Grid(NamedTuple):
    """A quantized matrix as codes into a table of points."""

    name: str
    lookup: Lookup

    def counts(self) -> Tensor:
        """int64 ``[P]``: weights on each point."""
        return torch.bincount(self.lookup.codes.flatten().int(), minlength=len(self.lookup.points))

    def used_by_row(self) -> Tensor:
        """float64 ``[F]``: how many points a row uses."""
        P = len(self.lookup.points)
        used = [(self.lookup.codes == point).any(1) for point in range(P)]
        return torch.stack(used).sum(0).double()


def grids(coder: SparseCoder) -> list[Grid]:
    """The quantized matrices that are stored as codes and scales, the coarsest first."""
    if not isinstance(coder, MatrixCoder):
        return []
    found = []
    for name, matrix in coder.matrices().items():
        lookup = None if matrix.quantizer.is_identity else matrix.quantizer.lookup(matrix.pack())
        if lookup is not None:
            found.append(Grid(name, lookup))
    return sorted(found, key=lambda grid: len(grid.lookup.points))


def entropy_bits(counts: Tensor) -> float | None:
    """``-sum p log2 p`` of shares of counts; None where there is nothing."""
    total = counts.sum()
    if not int(total):
        return None
    p = counts[counts > 0].double() / total
    return max(0.0, float(-(p * p.log2()).sum()))


def levels_table(found: list[Grid]) -> Table:
    """Each point of each grid, and how many of the weights are on it."""
    rows = []
    for grid in found:
        counts = grid.counts()
        for code, (point, count) in enumerate(zip(grid.lookup.points.tolist(), counts.tolist(), strict=True)):
            rows.append([grid.name, code, point, count, count / max(int(counts.sum()), 1)])
    return Table(("matrix", "code", "point", "weights", "share"), rows)


class Space(NamedTuple):
    """The decoder's rows in the space in which they are stored, before and after."""

    before: Tensor
    """``[F, D]``: the twin's."""
    after: Tensor
    lookup: Lookup | None
    """Codes of ``after``, where it is one matrix that is stored as codes."""
    what: str


def stored_space(coder: SparseCoder, before: Tensor, after: Tensor) -> Space:
    """The coder's normalised, rotated space, where its decoder is one matrix of its own; else the data's.

    Args:
        before, after: ``[F, D]`` in the data's space; of several layers one after another.
    """
    if isinstance(coder, MatrixCoder) and len(coder.decoders()) == 1:
        matrix = coder.decoder_matrix()
        norm = coder.norm_out
        rows = norm.direction((norm.by_layer(before) / norm.scale).flatten(1))
        stored = matrix()
        if rows.shape == stored.shape:
            identity = matrix.quantizer.is_identity
            lookup = None if identity else matrix.quantizer.lookup(matrix.pack())
            return Space(rows, stored, lookup, "stored")
    return Space(before, after, None, "data")


def largest_errors(space: Space, n_rows: int) -> Table:
    """The entries with the largest errors, and the bits that stand for them in the file."""
    columns = ("latent", "dimension", "twin", "coder", "error", "code", "bits", "point", "scale", "space")
    width = space.before.shape[1]
    found: list[tuple[float, int]] = []
    for start in range(0, len(space.before), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        error = (space.after[some].double() - space.before[some].double()).abs().flatten()
        top = error.topk(min(n_rows, len(error)))
        found += zip(top.values.tolist(), (top.indices + start * width).tolist(), strict=True)
    found = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:n_rows]
    rows: list[list[float | int | str | None]] = []
    for _, place in found:
        latent, column = divmod(place, width)
        before, after = float(space.before[latent, column]), float(space.after[latent, column])
        rows.append(
            [
                latent,
                column,
                before,
                after,
                after - before,
                *_stored_as(space.lookup, latent, column),
                space.what,
            ]
        )
    return Table(columns, rows)


def _stored_as(lookup: Lookup | None, latent: int, column: int) -> list[float | int | str | None]:
    if lookup is None:
        return [None, None, None, None]
    code, width = int(lookup.codes[latent, column]), lookup.codes.shape[1]
    bits = format(code, f"0{max(1, (len(lookup.points) - 1).bit_length())}b")
    scale = lookup.scales[latent]
    if scale.dim():
        scale = scale[column * len(scale) // width]
    return [code, f"0b{bits}", float(lookup.points[code]), float(scale)]
