"""SparseCoder: the contract of every SAE and transcoder.

Shapes: B tokens, D model width, F latents, N entries.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from qsae_core.coder_options import CoderConfig
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.code_quantizer import CodeQuantizer
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.quantizer import Quantizer
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError


class CoderShape(NamedTuple):
    """Widths of what goes in and comes out; SAEs have ``d_in == d_out``."""

    d_in: int
    d_out: int
    layers_in: int = 1
    layers_out: int = 1


class Parts(NamedTuple):
    """Factories of the chosen parts, so that a coder with several matrices or groups gets one for each."""

    quantizer: Callable[[tuple[int, int]], Quantizer]
    """``(F, D) ->`` quantizer of one decoder matrix."""
    encoder_quantizer: Callable[[tuple[int, int]], Quantizer]
    """``(F, D) ->`` quantizer of one encoder matrix."""
    code_quantizer: Callable[[int], CodeQuantizer]
    """``F ->`` quantizer of the codes of that many latents."""
    activation: Callable[[int], Activation]
    """``F ->`` activation of that many latents."""
    sparsity: Callable[[int], SparsityRule]
    """``F ->`` rule over that many latents, of the whole dictionary where processes divide it."""


class AtomErrors(NamedTuple):
    """What quantization does to the decoder's rows."""

    squared_sines: Tensor
    """float64 ``[F]``: 1 - cos^2 between each row before and after it, 0 where nothing is quantized."""
    norms: Tensor
    """float ``[F]``, or ``[F, L]`` of several layers: each row's norm before it, in the data's space."""

    def by_layer(self, coders: Sequence[SparseCoder]) -> list[AtomErrors]:
        """Those of each coder of a set (``SparseCoder.by_layer``); its latents come layer after layer."""
        sizes = [coder.n_latents for coder in coders]
        pairs = zip(self.squared_sines.split(sizes), self.norms.split(sizes), strict=True)
        return [AtomErrors(sines, norms[:, i]) for i, (sines, norms) in enumerate(pairs)]


class Budget(NamedTuple):
    """How long training will be; warm-ups, dead thresholds and schedules are shares of it."""

    steps: int
    tokens: int
    batch_size: int


class LossOutput(NamedTuple):
    """What ``SparseCoder.loss`` gives: the terms to minimise, and what was computed on the way."""

    terms: dict[str, Tensor]
    """Name -> scalar; the optimiser minimises the sum. Squared errors are sums over D, means over tokens."""
    codes: SparseCodes
    target: Tensor
    """``[B, d_out]`` in the normalised space, where FVU is the same as in the data's (from several layers
    ``[B, L, d_out]``, each with its own scale)."""
    reconstruction: Tensor
    """``[B, d_out]`` in the normalised space."""
    values: Mapping[str, Tensor] = {}
    """Name -> scalar: what a variant wants logged beside its terms; not part of the loss."""


class SparseCoder(nn.Module, abc.ABC):
    """An SAE or a transcoder: ``x -> encode -> SparseCodes -> decode -> reconstruction of y``.

    Built as ``Class(config, shape, parts)`` under a seeded global generator; then ``initialize(sample)``
    sets everything that depends on data. ``encode`` and ``decode`` take and give vectors in the data's own
    space. For every x, ``decode(encode(x)) == forward(x)`` bit for bit. In evaluation mode nothing changes
    state: no threshold, no counter.

    This is what training, metrics and evaluations ask of a coder. Variants derive from
    ``qsae_core.coders.MatrixCoder``, which adds what quantizers and files ask: packed matrices and levels.
    """

    is_autoencoder: bool = True
    """True where input and target are the same vectors; transcoders set it to False."""
    reads_layers: ClassVar[bool] = False
    """Whether inputs are ``[B, L, d_in]`` from several layers; a coder reads either one or several."""
    chooses_layer: ClassVar[bool] = False
    """Whether it reconstructs one of the layers that it reads, which it chooses for each token."""
    without_gradient: ClassVar[frozenset[str]] = frozenset()
    """Parameters that the loss does not reach; checked by the conformance suite."""
    term_periods: Mapping[str, int] = MappingProxyType({})
    """Loss terms that training batches have only now and then, name -> n: at every n-th batch, n times as
    heavy. Logs show them, and the loss, with the weight that they have on average."""

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__()
        if config.expansion is not None:
            raise ConfigError(
                f"how many latents are {config.expansion:g} times the width has not been settled",
                where="expansion",
                next="config.for_width(shape.d_in) does",
            )
        self.config, self.shape, self.parts = config, shape, parts
        self.n_latents = config.n_latents

    # --- what a variant defines

    @abc.abstractmethod
    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, d_in]`` in the data's space -> the codes, with ``inputs`` where ``has_skip``."""

    @abc.abstractmethod
    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, d_out]`` in the data's space.

        Raises:
            QsaeError: for codes of other latents, and for codes without ``inputs`` where ``has_skip``.
        """

    @abc.abstractmethod
    def loss(self, batch: Batch) -> LossOutput:
        """The loss terms of one training batch; may update counters in training mode."""

    @abc.abstractmethod
    def atoms(self) -> Tensor:
        """float32 ``[F, d_out]`` (``[F, L, d_out]`` where layers are normalised one by one): decoder rows in
        the data's space, quantized as ``decode`` uses them."""

    def atoms_of(self, latents_U: Tensor) -> Tensor:
        """float32 ``[U, d_out]`` (``[U, L, d_out]``): these rows of ``atoms()``. Coders that can make them
        alone override it: of a large dictionary all are much memory."""
        return self.atoms()[latents_U]

    @abc.abstractmethod
    def atom_norms(self) -> Tensor:
        """float32 ``[F]`` (``[F, L]``): norms of ``atoms()``, without building them."""

    # --- what it may

    def initialize(self, sample: Batch) -> None:
        """Set normalisation, biases and learned scales from a sample of training vectors, once.

        Raises:
            DataError: if all vectors of the sample, or all targets, are the same.
        """

    @property
    def has_skip(self) -> bool:
        """Whether ``decode`` needs what was encoded besides the latents (``SparseCodes.inputs``)."""
        return False

    def begin_training(self, budget: Budget) -> None:
        """Called before the first step, and again on resume, with the length of the run."""

    def before_step(self) -> None:
        """Called between backward and the optimiser's step: change gradients, apply masks."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number ``step`` (from 1): re-draw masks."""

    def restarted(self) -> Mapping[str, Tensor]:
        """Parameter name -> bool, of its shape: entries that the last ``after_step`` set anew. The optimiser
        forgets their first moments, and gives them the usual second ones. Called once after each
        ``after_step``."""
        return {}

    def dead_share(self) -> float | None:
        """Dead latents as a share of all; None where the coder does not count them."""
        return None

    def target(self, batch: Batch) -> Tensor:
        """What the reconstruction of a batch is compared with, in the data's space: ``batch.y``, unless the
        coder itself chooses (a routed layer)."""
        return batch.y

    def by_layer(self) -> Sequence[SparseCoder]:
        """The coders of one layer each that this one is made of, in the order of layers; none for all but a
        set of coders. Whoever observes it observes each of them too."""
        return ()

    def join(self, codes: Sequence[SparseCodes], x: Tensor) -> SparseCodes:
        """The codes that each of ``by_layer`` gives for its layer of x, as ``encode`` gives those of all.

        Args:
            x: ``[B, L, d_in]``, what was encoded.
        """
        raise NotImplementedError("a coder that is not made of others")

    def layers_read(self, layer: int) -> tuple[int, ...]:
        """Numbers of the layers of x, ascending, that the reconstruction of a layer of y hangs on.

        Where these are no later ones, the coder can take the target's place while the language model runs,
        and sees what its own earlier layers have changed.

        Args:
            layer: of y, counted from 0.
        """
        return tuple(range(self.shape.layers_in))

    def reconstruct_layer(self, x: Tensor, layer: int) -> Tensor:
        """``[B, d_out]``: that layer of ``forward``, from the layers of x alone that it hangs on.

        Args:
            x: ``[B, L', d_in]`` (``[B, d_in]`` where the coder reads one layer): those of ``layers_read``.
            layer: of y, counted from 0.
        """
        y_hat: Tensor = self(x)
        return y_hat[:, layer] if self.shape.layers_out > 1 else y_hat

    def code_levels(self, codes: SparseCodes) -> Tensor | None:
        """uint8 ``[N]``: the level at which each value of this coder's codes is stored, 0 where it is zero;
        None where values are float32."""
        return None

    def atom_errors(self) -> AtomErrors | None:
        """What quantization does to the atoms; None where they are not known before it."""
        return None

    # --- what every coder has

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def forward(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``: ``[B, d_in] -> [B, d_out]``."""
        return self.decode(self.encode(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """``decode(encode(x))`` without gradient, in the data's space."""
        with torch.no_grad():
            reconstruction: Tensor = self(x)
        return reconstruction
