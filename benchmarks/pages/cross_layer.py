"""The page's part about the step of a cross-layer transcoder."""

from __future__ import annotations

from typing import Any

from benchmarks.cross_layer_step import KINDS, error, seconds
from benchmarks.pages.tables import ratio, table
from benchmarks.settings import Shape

NOTES = """\
One process times all three by turns. **Products**: for each source layer the encoder product with its latents
and the choice of k of them, the decode into its own and all later layers, and the gradients of both, on float
matrices; nothing else of a step. **Transcoders**: whole steps of as many transcoders of one layer, each with
a decoder as wide. **Step**: the whole step of the cross-layer transcoder, Adam and all. A screen makes the
products of the encoder several times as short and leaves the rest of a step as it is, which is then a larger
share.
"""
MOST = 1.3
"""Times the sum of its products that a step may take."""


def section(result: dict[str, Any]) -> str:
    """Seconds of each, and the ratios, a row a side."""
    shape = Shape(result["batch_size"], result["d"], result["n_latents"], result["k"])
    columns = ["side", "step", "products", "step / products", "transcoders", "step / transcoders"]
    rows = []
    for side in result["sides"]:
        reason = error(side)
        if reason is not None:
            rows.append([side["what"], reason, "", "", "", ""])
            continue
        step, products, transcoders = (seconds(side, kind) for kind in KINDS)
        cells = [f"{step:.3f} s", f"{products:.3f} s", ratio(step / products)]
        rows.append([side["what"], *cells, f"{transcoders:.3f} s", ratio(step / transcoders)])
    sizes = f"{result['layers']} layers of {shape}. Goal: a step in {MOST} times its products.\n"
    title = f"## Cross-layer transcoder\n\n{sizes}"
    return "\n".join([title, table(columns, rows), "", NOTES])
