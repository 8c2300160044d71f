"""SparseCoder: the contract of every SAE and transcoder. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from qsae_core import inputs, nesting, serving
from qsae_core.coder_matrices import CoderMatrices
from qsae_core.coder_records import AtomErrors, Budget, CoderShape, LossOutput, Parts
from qsae_core.codes import SparseCodes
from qsae_core.component import CoderConfig
from qsae_core.data import Batch
from qsae_core.export import Export
from qsae_core.kernels import Kind
from qsae_core.normalization import Normalization
from qsae_core.quantized_matrix import QuantizedMatrix
from qsae_core.quantizer import Lookup

__all__ = ["AtomErrors", "Budget", "CoderShape", "Export", "LossOutput", "Parts", "SparseCoder"]


class SparseCoder(CoderMatrices, abc.ABC):
    """An SAE or a transcoder: ``x -> encode -> SparseCodes -> decode -> reconstruction of y``.

    Built as ``Class(config, shape, parts)`` under a seeded global generator; then ``initialize(sample)``
    sets everything that depends on data. ``encode`` and ``decode`` take and give vectors in the data's own
    space; ``loss`` works in the normalised space. For every x, ``decode(encode(x)) == forward(x)`` bit for
    bit (a transcoder with a skip overrides ``forward`` and ``decode`` together). In evaluation mode nothing
    changes state: no threshold, no counter.

    Parameters are float32 masters; what quantizers and files have to do with them is in ``CoderMatrices``.
    """

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.n_latents = config.n_latents
        layers_in, layers_out = (n if self.normalizes_layers else 1 for n in shape[2:])
        self.norm_in = Normalization(shape.d_in, config.normalize, layers_in)
        if not self.is_autoencoder:
            self.norm_target = Normalization(shape.d_out, config.normalize, layers_out)

    is_autoencoder: bool = True
    """True where input and target are the same vectors; transcoders set it to False."""
    reads_layers: ClassVar[bool] = False
    """Whether inputs are ``[B, L, d_in]`` from several layers; a coder reads either one or several."""
    normalizes_layers: ClassVar[bool] = False
    """Whether each of several layers has a mean and a scale of its own; else they share them."""
    without_gradient: ClassVar[frozenset[str]] = frozenset()
    """Parameters that the loss does not reach; checked by the conformance suite."""

    screen: Kind = "none"
    """How encoding looks for the largest latents: exactly, or among a low-precision product's candidates."""
    masters_file: pathlib.Path | None = None
    """Of a loaded coder: where its float masters are, if they were kept."""

    # --- what a variant defines

    @abc.abstractmethod
    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, d_in]`` in the data's space, as ``read`` takes them -> the codes."""

    @abc.abstractmethod
    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, d_out]`` in the data's space."""

    @abc.abstractmethod
    def loss(self, batch: Batch) -> LossOutput:
        """The loss terms of one training batch; may update counters in training mode."""

    def initialize(self, sample: Batch) -> None:
        """Set normalisation, biases and learned scales from a sample of training vectors, once.

        Raises:
            DataError: if all vectors of the sample, or all targets, are the same.
        """
        self._fit_normalization(sample)

    def begin_training(self, budget: Budget) -> None:
        """Called before the first step, and again on resume, with the length of the run."""

    def unit_norm_matrices(self) -> list[QuantizedMatrix]:
        """Matrices whose masters keep rows of unit norm.

        The trainer takes from their gradients what lies along the rows, and renormalises the rows after the
        optimiser's step, in the same pass over memory.
        """
        return []

    def rotated_parameters(self) -> Mapping[str, Normalization]:
        """Parameter name -> the normalisation whose rotation its last dimension went through.

        Features lean towards the data's own axes, and Adam, which is not invariant under rotations, learns
        them slower in others. So the optimiser takes the steps of these parameters in the data's axes.
        """
        return {}

    def before_step(self) -> None:
        """Called between backward and the optimiser's step: change gradients, apply masks."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number ``step`` (from 1): re-draw masks."""

    def restarted(self) -> Mapping[str, Tensor]:
        """Parameter name -> bool, of its shape: entries that the last ``after_step`` set anew. The optimiser
        forgets their moments. Called once after each ``after_step``."""
        return {}

    def refusal_to_screen(self) -> str | None:
        """Why ``screen`` cannot be other than ``none`` here; None where it can."""
        return "it does not encode through a screen"

    def dead_share(self) -> float | None:
        """Dead latents as a share of all; None where the coder does not count them."""
        return None

    def target(self, batch: Batch) -> Tensor:
        """What the reconstruction of a batch is compared with, in the data's space: ``batch.y``, unless the
        coder itself chooses (a routed layer)."""
        return batch.y

    def at_level(self, level: int) -> SparseCoder:
        """The coder as its level ``level`` (1 to ``levels``), for inference; its tensors are packed.

        Raises:
            ConfigError: if there is no such level.
        """
        nesting.check_level(level, self.levels)
        if level == self.levels:
            return self
        shell = nesting.shell_of_level(self, level)
        shell.restore(self.export().at_level(level))
        shell.screen = self.screen
        return shell.to(self.device)

    # --- what every coder has

    def read(self, x: Tensor) -> Tensor:
        """The vectors that ``encode`` was given, in the coder's type (float32); what is none is refused.

        Raises:
            DataError: for another shape, a type without fractions, another device, or no tensor; in
                evaluation mode on the CPU also for vectors that are not finite.
        """
        return inputs.vectors(x, self.shape, self.reads_layers, self.norm_in.mean, not self.training)

    def forward(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``: ``[B, d_in] -> [B, d_out]``."""
        return self.decode(self.encode(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """``decode(encode(x))`` without gradient, in the data's space."""
        with torch.no_grad():
            reconstruction: Tensor = self(x)
        return reconstruction

    def reconstruct_stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """One reconstruction for each batch, on the coder's device; one batch at a time is in memory."""
        for x in batches:
            yield self.reconstruct(x.to(self.device) if isinstance(x, Tensor) else x)

    def dictionary(self, *, quantized: bool = True) -> Tensor:
        """float32, of the shape of ``atoms()``: the atoms in the data's space, as ``decode`` uses them or
        (``quantized`` False) as they were before quantization.

        Raises:
            ArtifactError: if the atoms before quantization were not kept.
        """
        with torch.no_grad():
            return self.atoms() if quantized else serving.float_dictionary(self)

    def codes_and_scales(self) -> Lookup:
        """The decoder's integer codes ``[F, D]``, the points that they stand for, and the scales.

        An entry is ``points[code] * scale`` of its row (or of its group within the row), in the normalised
        and, where it is so, rotated space in which the coder works.

        Raises:
            ConfigError: if the decoder is not stored as codes into a table of points.
        """
        with torch.no_grad():
            return serving.stored_codes(self)

    def code_levels(self, codes: SparseCodes) -> Tensor | None:
        """uint8 ``[N]``: the level at which each value of this coder's codes is stored, 0 where it is zero;
        None where values are float32. Coders with several code quantizers, or whose active latents have one
        value each, override it."""
        return serving.code_levels(self, codes)

    def atom_errors(self) -> AtomErrors | None:
        """What quantization does to the rows of ``W_dec``, each over all layers where there are several; None
        where there is no such matrix, or its masters were not kept."""
        return serving.atom_errors(self)

    @property
    def norm_out(self) -> Normalization:
        """Normalisation of what is reconstructed: for an autoencoder that of its input."""
        return self.norm_in if self.is_autoencoder else self.norm_target

    @property
    def device(self) -> torch.device:
        """Where the normalisation's tensors live, and with them everything."""
        return self.norm_in.mean.device

    def atoms(self) -> Tensor:
        """float32 ``[F, d_out]`` (``[F, L, d_out]`` where layers are normalised one by one): decoder rows in
        the data's space, quantized as ``decode`` uses them."""
        return self.norm_out.inverse_direction(self.by_layer(self.decoder_matrix()()))

    def atom_norms(self) -> Tensor:
        """float32 ``[F]`` (``[F, L]``): norms of ``atoms()``, without building them."""
        if self.norm_out.layers == 1:
            return self.decoder_matrix().rows().norms() * self.norm_out.scale
        return self.by_layer(self.decoder_matrix()()).norm(dim=2) * self.norm_out.scale.view(-1)

    def by_layer(self, rows: Tensor) -> Tensor:
        """``[N, L d_out] -> [N, L, d_out]`` where layers are normalised one by one; else as they are."""
        layers = self.norm_out.layers
        return rows if layers == 1 else rows.unflatten(1, (layers, self.shape.d_out))

    def _fit_normalization(self, sample: Batch) -> None:
        rotate = self.config.rotate
        if rotate == "auto":
            rotate = any(not m.quantizer.is_identity for m in self.matrices().values())
        inputs.check_varies(sample.x, "vectors")
        self.norm_in.fit(sample.x, rotate=bool(rotate))
        if not self.is_autoencoder:
            inputs.check_varies(sample.y, "targets")
            self.norm_target.fit(sample.y, rotate=bool(rotate))
