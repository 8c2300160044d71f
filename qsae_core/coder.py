"""SparseCoder: the contract of every SAE and transcoder. Shapes: B tokens, D model width, F latents."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsae_core import nesting, serving
from qsae_core.coder_records import Budget, CoderShape, LossOutput, Parts
from qsae_core.codes import SparseCodes
from qsae_core.component import CoderConfig
from qsae_core.data import Batch
from qsae_core.errors import ConfigError
from qsae_core.export import Export
from qsae_core.kernels import Kind
from qsae_core.measures import Observation
from qsae_core.normalization import Normalization
from qsae_core.quantized_matrix import QuantizedMatrix
from qsae_core.quantized_values import QuantizedValues
from qsae_core.quantizer import Lookup

__all__ = ["Budget", "CoderShape", "Export", "LossOutput", "Parts", "SparseCoder", "observe"]


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

    @property
    def levels(self) -> int:
        """How many nested levels there are: groups of latents where ``config.prefixes()`` nests them, bit
        planes of the decoder elsewhere; 1 where there is neither."""
        return nesting.level_count(self)

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
            yield self.reconstruct(x.to(self.device))

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

    def atom_errors(self) -> Tensor | None:
        """float64 ``[F]``: 1 - cos^2 between each row of ``W_dec``, of all layers where there are several,
        before and after quantization; None where there is no such matrix, or its masters were not kept."""
        return serving.atom_errors(self)

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
        """Whether training passes through the quantizers, of codes too (evaluation mode always does)."""
        for module in self.modules():
            if isinstance(module, QuantizedMatrix | QuantizedValues):
                module.quantizing = enabled

    def begin_quantization(self) -> None:
        """Called once before the first step that passes through the quantizers after a float start."""
        for matrix in self.matrices().values():
            matrix.quantizer.initialize(matrix.master.detach())

    def freeze_decoder(self, frozen: bool) -> None:
        """Whether training leaves the quantized decoder as it is and goes on with all else.

        ``W_dec``, where it is quantized; coders with several decoders override this.
        """
        decoder = self.matrices().get("W_dec")
        if decoder is not None and not decoder.quantizer.is_identity:
            decoder.freeze(frozen)

    @property
    def is_quantized(self) -> bool:
        """Whether any of its quantizers, of weights or of codes, changes anything."""
        parts = (m.quantizer for m in self.modules() if isinstance(m, QuantizedMatrix | QuantizedValues))
        return any(not quantizer.is_identity for quantizer in parts)

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

    def decoder_matrix(self) -> QuantizedMatrix:
        """The matrix whose rows are the atoms; coders with several decoders override atoms and norms."""
        matrix = self.matrices().get("W_dec")
        if matrix is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no single W_dec; override atoms and atom_norms"
            )
        return matrix

    def export(self) -> Export:
        """Packed matrices, every other tensor that inference needs, and what each level needs of them."""
        packed = {name: matrix.pack() for name, matrix in self.matrices().items()}
        tensors = {f"{name}.{part}": t for name, form in packed.items() for part, t in form.tensors.items()}
        rest = self._rest(self.inference_state())
        cuts, level_rows = nesting.cuts_of(self, packed, rest)
        layout: dict[str, Any] = {}
        for name, form in packed.items():
            entry = {"shape": list(form.shape), "layout": form.layout, "parts": sorted(form.tensors)}
            layout[name] = entry | ({"level_rows": level_rows[name]} if name in level_rows else {})
        tensors |= rest
        return Export({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, layout, cuts)

    def restore(self, export: Export) -> None:
        """Take the tensors of an export; the coder then serves packed weights and can no longer train.

        Of an export that is cut to a level, a coder of that level's size takes the tensors.
        """
        rest = dict(export.tensors)
        planes = export.level if self.config.prefixes() is None else None
        for name, matrix in self.matrices().items():
            entry = export.layout[name]
            tensors = {part: rest.pop(f"{name}.{part}") for part in entry["parts"]}
            level = planes if name == "W_dec" else None
            matrix.restore(tensors, tuple(entry["shape"]), entry["layout"], level)
        expected = set(self._rest(self.inference_state()))
        if set(rest) != expected:
            missing, extra = sorted(expected - set(rest)), sorted(set(rest) - expected)
            raise ConfigError(f"the tensors do not fit the coder: missing {missing}, unexpected {extra}")
        self.load_state_dict(rest, strict=False)
        self.eval()

    def inference_state(self) -> dict[str, Tensor]:
        """state_dict without the tensors of modules that serve training alone."""
        skip = tuple(f"{n}." for n, m in self.named_modules() if n and getattr(m, "training_only", False))
        return {n: t for n, t in self.state_dict().items() if not (skip and n.startswith(skip))}

    def _rest(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a state that belong to no matrix."""
        prefixes = tuple(f"{name}." for name in self.matrices())
        return {n: t for n, t in state.items() if not (prefixes and n.startswith(prefixes))}

    def _fit_normalization(self, sample: Batch) -> None:
        rotate = self.config.rotate
        if rotate == "auto":
            rotate = any(not m.quantizer.is_identity for m in self.matrices().values())
        self.norm_in.fit(sample.x, rotate=bool(rotate))
        if not self.is_autoencoder:
            self.norm_target.fit(sample.y, rotate=bool(rotate))


@torch.no_grad()
def observe(coder: SparseCoder, batch: Batch, atom_errors: Tensor | None = None) -> Observation:
    """One batch through the coder as a metric sees it; the coder should be in evaluation mode.

    Args:
        atom_errors: ``coder.atom_errors()``, computed once for all batches.
    """
    codes = coder.encode(batch.x)
    return Observation(
        coder.target(batch),
        coder.decode(codes),
        codes,
        coder.atom_norms(),
        batch.token_ids,
        coder.code_levels(codes),
        atom_errors,
    )
