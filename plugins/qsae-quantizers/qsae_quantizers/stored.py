"""Reading the packed form of a grid's points and scales. Shapes: F rows, D columns, G groups of columns."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import Packed
from qsae_core.errors import ArtifactError
from qsae_quantizers.float16_scales import from_float16
from qsae_quantizers.grids import Grid, grid_of


def stored_grid(packed: Packed) -> Grid:
    """The grid of the planes that a packed matrix has."""
    layout = packed.layout
    dropped = len(layout["level_scales"]) - layout["n_bits"] if "level_scales" in layout else 0
    return grid_of(layout["grid"], layout["n_bits"], dropped)


def stored_scale(packed: Packed) -> Tensor:
    """float32 ``[F]``, ``[1]`` or ``[F, G]``."""
    layout = packed.layout
    factor = layout["level_scales"][layout["n_bits"] - 1] if "level_scales" in layout else 1.0
    return from_float16(packed.tensors["scales"], layout["scale_exponent"], factor)


def row_scales(packed: Packed) -> Tensor:
    """float32 ``[F]`` or ``[F, G]``: what ``stored_scale`` gives, one for each row at least."""
    scale = stored_scale(packed)
    return scale if scale.dim() == 2 else scale.expand(packed.shape[0]).contiguous()


def check_finite(weight_FD: Tensor) -> None:
    """Refuse to pack NaN and infinite weights.

    Raises:
        ArtifactError: which names the first row that has one.
    """
    finite = weight_FD.isfinite().all(1)
    if not bool(finite.all()):
        row = int(finite.logical_not().nonzero()[0])
        raise ArtifactError(
            "a matrix with NaN or infinite weights cannot be packed",
            where=f"row {row}",
            next="go back to a checkpoint from before the loss became non-finite",
        )
