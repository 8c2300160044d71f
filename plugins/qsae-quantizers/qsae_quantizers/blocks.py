"""Which weights share a scale, and work in pieces that stay in the caches.

Shapes: F rows, D columns, G groups of columns; R rows of blocks with C entries, which share one scale.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qsae_core.errors import ConfigError
from qsae_quantizers.configs import ScaledConfig

CHUNK = {"cpu": 2**19}
"""Device type -> entries worked on at once: on the CPU what stays in its caches."""
LARGE_CHUNK = 2**26
"""Entries at once on other devices."""


def check_groups(config: ScaledConfig, width: int) -> None:
    """Refuse a group size that leaves a rest of the columns.

    Raises:
        ConfigError: with the sizes that do not.
    """
    size = config.group_size
    if size is None or width % size == 0:
        return
    raise ConfigError(
        f"groups of {size} columns do not fill rows of {width}",
        where="group_size",
        allowed=f"a divisor of {width}: {', '.join(str(n) for n in range(1, width + 1) if width % n == 0)}",
        next="--granularity row gives each row one scale, whatever its width",
    )


def in_blocks(weight_FD: Tensor, config: ScaledConfig) -> Tensor:
    """``[R, C]``: each row of it has one scale."""
    if config.granularity == "row":
        return weight_FD
    return weight_FD.reshape(1, -1) if config.granularity == "tensor" else _groups(weight_FD, config)


def in_rows(weight_FD: Tensor, config: ScaledConfig) -> Tensor:
    """``[R, C]``: each row of it has one scale, which others may share: shorter than one scale's block."""
    return _groups(weight_FD, config) if config.granularity == "group" else weight_FD


def shaped(scale_R: Tensor, config: ScaledConfig, width: int) -> Tensor:
    """``[R]`` of ``in_blocks`` -> as it is stored: ``[F]``, ``[1]`` or ``[F, G]``."""
    return scale_R if config.group_size is None else scale_R.view(-1, width // config.group_size)


def scales_shape(config: ScaledConfig, shape: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the stored scales of a matrix ``[F, D]``: ``[F]``, ``[1]`` or ``[F, G]``."""
    if config.group_size is not None:
        return shape[0], shape[1] // config.group_size
    return (1,) if config.granularity == "tensor" else (shape[0],)


def times_scales(points_FD: Tensor, scale: Tensor) -> Tensor:
    """Points times stored scales ``[F]``, ``[1]`` or ``[F, G]``, in place."""
    if scale.dim() == 1:
        return points_FD.mul_(scale[:, None])
    n_rows, n_groups = scale.shape  # there may be no row
    points_FD.view(n_rows, n_groups, points_FD.shape[1] // n_groups).mul_(scale[:, :, None])
    return points_FD


def chunks(rows_RC: Tensor, n_buffers: int) -> Iterator[tuple[int, int, list[Tensor]]]:
    """``(start, stop, buffers [stop - start, C])`` over the rows; every chunk has the same few buffers."""
    total, width = rows_RC.shape
    entries = CHUNK.get(rows_RC.device.type, LARGE_CHUNK)
    size = max(1, min(total, entries // max(width, 1)))
    buffers = [torch.empty(size, width, dtype=rows_RC.dtype, device=rows_RC.device) for _ in range(n_buffers)]
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield start, stop, [buffer[: stop - start] for buffer in buffers]


def _groups(weight_FD: Tensor, config: ScaledConfig) -> Tensor:
    assert config.group_size is not None
    return weight_FD.reshape(-1, config.group_size)
