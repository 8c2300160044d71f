"""SparseCoder: the contract of every SAE and transcoder. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from qsae_core.codes import SparseCodes
from qsae_core.component import CoderConfig
from qsae_core.data import Batch
from qsae_core.errors import ConfigError
from qsae_core.kernels import Kind
from qsae_core.measures import Observation
from qsae_core.normalization import Normalization
from qsae_core.parts import Activation, Quantizer, SparsityRule
from qsae_core.quantized_matrix import QuantizedMatrix


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
    activation: Callable[[int], Activation]
    """``F ->`` activation of that many latents."""
    sparsity: Callable[[int], SparsityRule]
    """``F ->`` rule over that many latents."""


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
    """``[B, d_out]`` in the normalised space, where FVU is the same as in the data's."""
    reconstruction: Tensor
    """``[B, d_out]`` in the normalised space."""


class Export(NamedTuple):
    """A coder as it is stored."""

    tensors: dict[str, Tensor]
    layout: dict[str, Any]
    """JSON values that ``restore`` needs beside the tensors."""


class SparseCoder(nn.Module, abc.ABC):
    """An SAE or a transcoder: ``x -> encode -> SparseCodes -> decode -> reconstruction of y``.

    Built as ``Class(config, shape, parts)`` under a seeded global generator; then ``initialize(sample)``
    sets everything that depends on data. ``encode`` and ``decode`` take and give vectors in the data's own
    space; ``loss`` works in the normalised space. For every x, ``decode(encode(x)) == forward(x)`` bit for
    bit (a transcoder with a skip overrides ``forward`` and ``decode`` together). In evaluation mode nothing
    changes state: no threshold, no counter.

    Parameters are float32 masters. Matrices that a quantizer may serve are ``QuantizedMatrix`` modules;
    modules with ``training_only = True`` are saved in checkpoints and left out of the artifact.
    """

    config: CoderConfig

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__()
        self.config, self.shape, self.parts = config, shape, parts
        self.n_latents = config.n_latents
        self.norm_in = Normalization(shape.d_in, config.normalize)
        if not self.is_autoencoder:
            self.norm_target = Normalization(shape.d_out, config.normalize)

    is_autoencoder: bool = True
    """True where input and target are the same vectors; transcoders set it to False."""
    without_gradient: ClassVar[frozenset[str]] = frozenset()
    """Parameters that the loss does not reach; checked by the conformance suite."""

    screen: Kind = "none"
    """How encoding looks for the largest latents: exactly, or among a low-precision product's candidates."""

    # --- what a variant defines

    @abc.abstractmethod
    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, d_in]`` in the data's space -> the codes."""

    @abc.abstractmethod
    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, d_out]`` in the data's space."""

    @abc.abstractmethod
    def loss(self, batch: Batch) -> LossOutput:
        """The loss terms of one training batch; may update counters in training mode."""

    def initialize(self, sample: Batch) -> None:
        """Set normalisation, biases and learned scales from a sample of training vectors, once."""
        self._fit_normalization(sample)

    def begin_training(self, budget: Budget) -> None:
        """Called before the first step, and again on resume, with the length of the run."""

    def unit_norm_matrices(self) -> list[QuantizedMatrix]:
        """Matrices whose masters keep rows of unit norm.

        The trainer takes from their gradients what lies along the rows, and renormalises the rows after the
        optimiser's step, in the same pass over memory.
        """
        return []

    def before_step(self) -> None:
        """Called between backward and the optimiser's step: change gradients, apply masks."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number ``step`` (from 1): re-draw masks."""

    def refusal_to_screen(self) -> str | None:
        """Why ``screen`` cannot be other than ``none`` here; None where it can."""
        return "it does not encode through a screen"

    def dead_share(self) -> float | None:
        """Dead latents as a share of all; None where the coder does not count them."""
        return None

    @property
    def levels(self) -> int:
        """How many nested levels there are (matryoshka groups, bit levels); 1 where there is no nesting."""
        return 1

    def at_level(self, level: int) -> SparseCoder:
        """The coder truncated to its first ``level`` levels (1 to ``levels``), sharing its tensors."""
        if level != self.levels:
            raise ConfigError(f"level {level} does not exist", allowed=f"1 to {self.levels}")
        return self

    # --- what every coder has

    def forward(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``: ``[B, d_in] -> [B, d_out]``."""
        return self.decode(self.encode(x))

    @property
    def norm_out(self) -> Normalization:
        """Normalisation of what is reconstructed: for an autoencoder that of its input."""
        return self.norm_in if self.is_autoencoder else self.norm_target

    @property
    def device(self) -> torch.device:
        """Where the normalisation's tensors live, and with them everything."""
        return self.norm_in.mean.device

    def matrices(self) -> dict[str, QuantizedMatrix]:
        """Module name -> every matrix that a quantizer may serve."""
        return {name: m for name, m in self.named_modules() if isinstance(m, QuantizedMatrix)}

    def quantize_weights(self, enabled: bool) -> None:
        """Whether training passes through the quantizers (evaluation mode always does)."""
        for matrix in self.matrices().values():
            matrix.quantizing = enabled

    def atoms(self) -> Tensor:
        """float32 ``[F, d_out]``: decoder rows in the data's space, quantized as ``decode`` uses them."""
        return self.norm_out.inverse_direction(self.decoder_matrix()())

    def atom_norms(self) -> Tensor:
        """float32 ``[F]``: norms of ``atoms()``, without building them where a rotation keeps norms."""
        return self.decoder_matrix().rows().norms() * self.norm_out.scale

    def decoder_matrix(self) -> QuantizedMatrix:
        """The matrix whose rows are the atoms; coders with several decoders override atoms and norms."""
        matrix = self.matrices().get("W_dec")
        if matrix is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no single W_dec; override atoms and atom_norms"
            )
        return matrix

    def export(self) -> Export:
        """Packed matrices, and every other tensor that inference needs, as float32."""
        tensors: dict[str, Tensor] = {}
        layout: dict[str, Any] = {}
        packed_prefixes = []
        for name, matrix in self.matrices().items():
            packed = matrix.pack()
            layout[name] = {
                "shape": list(packed.shape),
                "layout": packed.layout,
                "parts": sorted(packed.tensors),
            }
            tensors |= {f"{name}.{part}": tensor for part, tensor in packed.tensors.items()}
            packed_prefixes.append(f"{name}.")
        for name, tensor in self._inference_state().items():
            if not name.startswith(tuple(packed_prefixes)):
                tensors[name] = tensor
        return Export({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, layout)

    def restore(self, export: Export) -> None:
        """Take the tensors of an export; the coder then serves packed weights and can no longer train."""
        rest = dict(export.tensors)
        for name, matrix in self.matrices().items():
            entry = export.layout[name]
            matrix.restore(
                {part: rest.pop(f"{name}.{part}") for part in entry["parts"]},
                tuple(entry["shape"]),
                entry["layout"],
            )
        state = self._inference_state()
        expected = {n for n in state if not any(n.startswith(f"{m}.") for m in self.matrices())}
        if set(rest) != expected:
            missing, extra = sorted(expected - set(rest)), sorted(set(rest) - expected)
            raise ConfigError(f"the tensors do not fit the coder: missing {missing}, unexpected {extra}")
        self.load_state_dict(rest, strict=False)
        self.eval()

    def _inference_state(self) -> dict[str, Tensor]:
        """state_dict without the tensors of modules that serve training alone."""
        skip = tuple(f"{n}." for n, m in self.named_modules() if n and getattr(m, "training_only", False))
        return {n: t for n, t in self.state_dict().items() if not (skip and n.startswith(skip))}

    def _fit_normalization(self, sample: Batch) -> None:
        rotate = self.config.rotate
        if rotate == "auto":
            rotate = any(not m.quantizer.is_identity for m in self.matrices().values())
        self.norm_in.fit(sample.x, rotate=bool(rotate))
        if not self.is_autoencoder:
            self.norm_target.fit(sample.y, rotate=bool(rotate))


@torch.no_grad()
def observe(coder: SparseCoder, batch: Batch) -> Observation:
    """One batch through the coder as a metric sees it; the coder should be in evaluation mode."""
    codes = coder.encode(batch.x)
    return Observation(batch.y, coder.decode(codes), codes, coder.atom_norms(), batch.token_ids)
