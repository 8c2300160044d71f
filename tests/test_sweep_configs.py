"""The sweeps in configs/: each compares quantized coders of every seed with a float coder of their size."""

from __future__ import annotations

import pathlib

import pytest
from qsae_compare.sweep import read_sweep

from qsae_core.kinds import QUANTIZER_SLOTS
from qsae_core.plugins.records import load_plugins

ROOT = pathlib.Path(__file__).resolve().parents[1]


def quantized(planned):
    return any(planned.config.components[slot].use != "none" for slot in QUANTIZER_SLOTS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/sweep-*.yaml")), ids=lambda p: p.stem)
def test_the_sweeps_that_come_along(path):
    plan = read_sweep(path, load_plugins().registry)
    of_seed = {seed: [p for p in plan if p.config.run.seed == seed] for seed in (0, 1, 2)}
    sizes = [{(p.config.coder.options.n_latents, quantized(p)) for p in part} for part in of_seed.values()]
    assert sum(map(len, of_seed.values())) == len(plan)
    assert sizes[0] == sizes[1] == sizes[2]
    floats, others = ({n for n, is_so in sizes[0] if is_so is asked} for asked in (False, True))
    assert floats >= others > set()  # each is compared with a float coder of its size
    assert f"# {len(plan)} runs" in path.read_text(encoding="utf-8")
