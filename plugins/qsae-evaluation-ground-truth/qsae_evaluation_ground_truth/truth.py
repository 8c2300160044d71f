"""What a data source knows of its true features. Shapes: A features, L layers, d width of a layer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from qsae_core.contracts import DataSource, OneLayer, SourceView, SparseCoder, SparseCodes


@runtime_checkable
class KnownDictionary(Protocol):
    """A source whose vectors are sums of known directions."""

    def dictionary(self) -> Tensor:
        """float32 ``[A, d]`` (``[A, L, d]``): a feature's direction, of x."""

    def target_dictionary(self) -> Tensor:
        """The same of y, where y is not x; zeros for features that y is not made of."""


@runtime_checkable
class KnownFiring(Protocol):
    """A source that also knows which features its held-out vectors are made of."""

    def held_out_features(self, n_tokens: int) -> SparseCodes:
        """The coefficients of the first tokens that ``held_out`` gives, in its order."""

    def held_out_target_features(self, n_tokens: int) -> SparseCodes:
        """The same as they count in y, where y is not x."""


class Truth:
    """The features that a coder should have as latents.

    Args:
        data: what the coder is evaluated on; of one layer of several the layer's.
        coder: an SAE's atoms should be directions of x, a transcoder's those of y.

    Raises:
        LookupError: if the source does not know its features.
    """

    def __init__(self, data: DataSource, coder: SparseCoder) -> None:
        self._source, self._layer = _behind(data)
        self._of_x = coder.is_autoencoder
        if not isinstance(self._source, KnownDictionary):
            raise LookupError("the data source does not know its true features (`synthetic` does)")

    def dictionary(self) -> Tensor:
        """float32 ``[A, d]``, or ``[A, L, d]`` of several layers; zeros for features that do not count."""
        source = self._source
        assert isinstance(source, KnownDictionary)
        found = source.dictionary() if self._of_x else source.target_dictionary()
        return found if self._layer is None else found[:, self._layer]

    def features(self, n_tokens: int) -> SparseCodes | None:
        """The true coefficients of the first held-out tokens; None where the source does not tell them."""
        source = self._source
        if not isinstance(source, KnownFiring):
            return None
        return source.held_out_features(n_tokens) if self._of_x else source.held_out_target_features(n_tokens)


def _behind(data: DataSource) -> tuple[DataSource, int | None]:
    """The source behind views of it, and which of its layers they show; None: what it gives."""
    layer = None
    while isinstance(data, SourceView):
        if isinstance(data, OneLayer):
            layer = data.number
        data = data.source
    return data, layer
