"""Data source ``tensors``: pre-computed hidden states from .pt, .safetensors and .npy files."""

from __future__ import annotations

from typing import Literal

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class TensorsConfig(ComponentConfig):
    """Pre-computed hidden states: one file or a folder of chunks, memory-mapped and read shuffled.

    Files are .pt (or .pth), .safetensors or .npy with float tensors ``[N, d]`` or ``[N, L, d]``: N sequences
    of L positions, taken as N * L rows, or (``middle: layers``) N tokens with the vectors of L layers. Give a
    second path for the targets of a transcoder: row i of the one belongs to row i of the other.
    """

    path: str = option(description="file, or folder of chunks in name order", aliases=("data-path",))
    target_path: str | None = option(
        None,
        "file or folder with the target of each row, for transcoders; none: rows are their own targets",
    )
    key: str | None = option(
        None,
        "name of the tensor, where a .safetensors file or a .pt dict holds several",
    )
    middle: Literal["positions", "layers"] = option(
        "positions",
        "what the middle dimension of ``[N, L, d]`` is: positions, each a row of its own, or layers of one "
        "token, read together",
    )
    held_out: float = option(0.05, "share of the rows kept for evaluation", gt=0, lt=1)
    split_seed: int = option(
        0,
        "decides which rows are held out; apart from the run's seed, so that runs share their split",
    )
    max_norm_multiple: float | None = option(
        None,
        "leave rows out of training whose norm is more than so many times the median of the first 8192; "
        "none: train on all",
        ge=1,
    )
    block_rows: int = option(64, "rows read at once; fewer where the data has not 64 such blocks", gt=0)
    shuffle_blocks: int = option(
        1152,
        "blocks, drawn from all over the data, that are in memory and whose rows are shuffled together",
        gt=0,
    )


@hookimpl
def qsae_register_data_sources() -> list[ComponentSpec]:
    """The one component of this plugin."""
    return [ComponentSpec("data", "tensors", TensorsConfig, "qsae_data_tensors.source:TensorsSource")]
