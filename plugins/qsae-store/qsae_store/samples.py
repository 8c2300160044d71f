"""Small stores of the built-in language model, for conformance checks."""

from __future__ import annotations

import pathlib
from typing import Any

from qsae_core.conformance import Case
from qsae_core.runs import load_plugins, open_data, read_block
from qsae_store.beginning import begin, manifest_of
from qsae_store.folder import open_folder
from qsae_store.harvest import Harvest


def harvest_sample(place: pathlib.Path, text: pathlib.Path, **choices: Any) -> None:
    """Harvest a little text.

    Args:
        choices: options of ``lm``; ``storage``, by default fp32.
    """
    storage = choices.pop("storage", "fp32")
    registry = load_plugins().registry
    tree = {"use": "lm", "text": str(text), "context": 32, "held_out_share": 0.2, **choices}
    block = read_block("data", tree, registry, "a sample")
    source = open_data(block, registry)
    folder = open_folder(str(place))
    sizes = {"seed": 0, "storage": storage, "shard_positions": 512, "tokens": None, "held_out_tokens": 600}
    manifest = begin(folder, manifest_of(source, block.to_dict(), **sizes))
    Harvest(folder, manifest, source).run()
    source.close()


def conformance_cases(folder: pathlib.Path) -> list[Case]:
    """One place, a pair, and several layers."""
    text = folder / "text.txt"
    lines = (f"Line {n}: {n} + {n} = {2 * n}, {n} * {n} = {n * n}.\n\n" for n in range(300))
    text.write_text("".join(lines))
    harvest_sample(folder / "one", text, layer=1)
    harvest_sample(folder / "places", text, sites="0.mlp_in,0.mlp_out,1.mlp_in,1.mlp_out")
    few = {"shuffle_blocks": 3}
    return [
        Case({"path": str(folder / "one"), **few}),
        Case({"path": str(folder / "places"), "source_layer": 0, "target_layer": 1, **few}),
        Case({"path": str(folder / "places"), "layers": "0,1", "site": "mlp_out"}),
    ]
