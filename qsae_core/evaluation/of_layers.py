"""Evaluating a set of coders: as one coder, and each of them, on the same observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.evaluation import Accumulator, EvaluationContext, Result
from qsae_core.contracts.metric import Observation
from qsae_core.contracts.one_layer import OneLayer

WHOLE = ""
"""Names what is asked of a coder, or of all coders of a set together, beside the names of layers."""


class OfLayer(Accumulator):
    """Shows an accumulator what is seen of one layer's coder.

    Args:
        inner: knows that coder alone.
        number: of the layer, counted from 0.
    """

    def __init__(self, inner: Accumulator, number: int) -> None:
        self.inner, self.number = inner, number
        self.n_tokens = inner.n_tokens

    def update(self, observation: Observation) -> None:
        """Take the layer's part of a batch into account."""
        self.inner.update(observation.layers[self.number])

    def merge(self, other: OfLayer) -> None:
        """Take into account what another one of the same layer has seen."""
        self.inner.merge(other.inner)

    def result(self) -> Result:
        """The accumulator's."""
        return self.inner.result()

    def next_pass(self) -> OfLayer | None:
        """What goes over the data once more, for the same layer."""
        following = self.inner.next_pass()
        return None if following is None else OfLayer(following, self.number)

    @property
    def may_go_on(self) -> bool:
        """The accumulator's."""
        return self.inner.may_go_on


def contexts(whole: EvaluationContext) -> Mapping[str, EvaluationContext]:
    """``WHOLE`` -> the context itself; of a set of coders also layer -> that of its coder."""
    parts = whole.coder.by_layer()
    if not parts:
        return {WHOLE: whole}
    errors = [None] * len(parts) if whole.atom_errors is None else whole.atom_errors.by_layer(parts)
    twins = [None] * len(parts) if whole.twin is None else whole.twin.by_layer()
    found = {WHOLE: whole}
    for i, (name, coder) in enumerate(zip(whole.data.layer_names, parts, strict=True)):
        data = OneLayer(whole.data, i)
        found[name] = replace(whole, coder=coder, data=data, atom_errors=errors[i], twin=twins[i])
    return found


def all_coders(coder: SparseCoder | None) -> list[SparseCoder]:
    """A coder and those that it is made of."""
    return [] if coder is None else [coder, *coder.by_layer()]
