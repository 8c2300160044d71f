"""Stretches of latents that belong together: the groups of a nested coder, the layers of several."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import EvaluationContext


class Stretches(NamedTuple):
    """Consecutive latents, stretch after stretch, which are all latents together."""

    kind: str
    """What each is: ``group`` or ``layer``."""
    names: Sequence[str | int]
    ends: Sequence[int]
    """Ascending; stretch i ends before latent ``ends[i]``."""


def stretches(context: EvaluationContext) -> Stretches | None:
    """How the coder's latents are divided.

    A set of coders and a cross-layer transcoder have latents of each layer, a nested coder has groups. None
    for all others, a crosscoder among them: each of its latents is of all layers.
    """
    coder = context.coder
    members = coder.by_layer()
    if members:
        ends = list(itertools.accumulate(member.n_latents for member in members))
        return Stretches("layer", _layer_names(context), ends)
    prefixes = coder.config.prefixes()
    if prefixes is not None:
        return Stretches("group", range(1, len(prefixes) + 1), prefixes)
    decoders = coder.decoders() if isinstance(coder, MatrixCoder) else {}
    if coder.shape.layers_out > 1 and len(decoders) == coder.shape.layers_out:
        ends = list(itertools.accumulate(matrix.shape[0] for matrix in decoders.values()))
        return Stretches("layer", _layer_names(context), ends)
    return None


def _layer_names(context: EvaluationContext) -> list[str | int]:
    """Numbers where they are, as they will read from a table's file."""
    return [int(name) if name.isdigit() else name for name in context.data.layer_names]
