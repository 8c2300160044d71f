"""MatrixCoder: a coder of normalised vectors with packed matrices; what every variant derives from.

Shapes: B tokens, D model width, F latents, N entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from qsae_core.coder_options import CoderConfig
from qsae_core.coders import inputs, nesting, serving, splitting
from qsae_core.coders.dense import no_dense_form
from qsae_core.coders.matrices import CoderMatrices
from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix, gathered
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.contracts.coder import AtomErrors, CoderShape, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.cross_layer import Form
from qsae_core.contracts.data import Batch
from qsae_core.contracts.dense import ROWS_AT_ONCE, DenseForm
from qsae_core.contracts.quantizer import Lookup
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.kernels import Kind, partners
from qsae_core.reading import let_go


class MatrixCoder(CoderMatrices):
    """A ``SparseCoder`` whose parameters live in a normalised space, and whose matrices may be quantized.

    ``encode`` and ``decode`` take and give vectors in the data's own space; ``loss`` works in the normalised
    one. Parameters are float32 masters; what quantizers and files have to do with them is in
    ``CoderMatrices``. Here is what a trained coder can be asked: its dictionary before and after
    quantization, its packed numbers, its levels.
    """

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.own_latents = partners().part(config.n_latents)
        self.n_latents = self.own_latents.stop - self.own_latents.start
        layers_in, layers_out = (n if self.normalizes_layers else 1 for n in shape[2:])
        self.norm_in = Normalization(shape.d_in, config.normalize, layers_in)
        if not self.is_autoencoder:
            self.norm_target = Normalization(shape.d_out, config.normalize, layers_out)

    own_latents: slice
    """Which latents of the dictionary this process has, ``n_latents`` of them: all, unless it is trained in
    parts (``train.latent_parallel``)."""
    splits_latents: ClassVar[bool] = False
    """Whether it can be trained in parts: its loss is made of what is about each latent alone, and of what
    asks ``kernels.partners()``. A class that derives from one that can, and defines anything anew, has to
    say so itself."""
    normalizes_layers: ClassVar[bool] = False
    """Whether each of several layers has a mean and a scale of its own; else they share them."""
    screen: Kind = "none"
    """How encoding looks for the largest latents: exactly, or among a low-precision product's candidates."""
    masters: serving.StoredMasters | None = None
    """Of a loaded coder: its float masters, if they were kept."""

    # --- what a variant may define

    def initialize(self, sample: Batch) -> None:
        """Set normalisation, biases and learned scales from a sample of training vectors, once.

        Raises:
            DataError: if all vectors of the sample, or all targets, are the same.
        """
        rotate = self.config.rotate
        if rotate == "auto":
            rotate = any(not m.quantizer.is_identity for m in self.matrices().values())
        inputs.check_varies(sample.x, "vectors")
        self.norm_in.fit(sample.x, rotate=bool(rotate))
        if not self.is_autoencoder:
            inputs.check_varies(sample.y, "targets")
            self.norm_target.fit(sample.y, rotate=bool(rotate))

    def unit_norm_matrices(self) -> list[QuantizedMatrix]:
        """Matrices whose masters keep rows of unit norm.

        The trainer takes from their gradients what lies along the rows, and renormalises the rows after the
        optimiser's step, in the same pass over memory.
        """
        return []

    def spaces(self) -> Mapping[str, tuple[Normalization, ...]]:
        """Parameter name -> the normalised space in which each of its last dimensions lies: one for rows that
        read or are written, two for a map of inputs to outputs (the output's first). A dimension may be
        several layers one after another. A coder that does not say gives nothing.
        """
        return {}

    def rotated_parameters(self) -> Mapping[str, Normalization]:
        """Parameter name -> the normalisation whose rotation its last dimension went through: those of
        ``spaces``, of matrices where the master is the matrix itself.

        Features lean towards the data's own axes, and Adam, which is not invariant under rotations, learns
        them slower in others. So the optimiser takes the steps of these parameters in the data's axes.
        """
        other_forms = {f"{name}.weight" for name, matrix in self.matrices().items() if not matrix.is_plain}
        return {name: norms[-1] for name, norms in self.spaces().items() if name not in other_forms}

    def rate_factors(self) -> Mapping[str, float]:
        """Parameter name -> what the run's learning rate is multiplied by for it; 1 for those that are not
        named."""
        return {}

    def dense(self) -> DenseForm:
        """The whole coder as dense float32 matrices over the data's own vectors, on the CPU, quantized as
        evaluation uses them: what formats of other libraries write.

        Raises:
            ConfigError: if there is none that computes the same, with the reason.
        """
        raise no_dense_form(self, "it is more than one encoder and one decoder matrix")

    def form(self) -> Form:
        """What a checkpoint of another library may hold of it: ``dense()``, unless a coder has another form.

        Raises:
            ConfigError: if it has none.
        """
        return self.dense()

    def take_form(self, form: Form) -> None:
        """Become what a form describes, with matrices, biases and thresholds as they are: of a coder that was
        just made, without normalisation. What it computes otherwise, ``form`` shows.

        Raises:
            ConfigError: if it is made of other matrices.
        """
        raise no_dense_form(self, "it is more than one encoder and one decoder matrix")

    def form_to_take(self, form: Form) -> Form:
        """The same function, written as this coder computes it."""
        return form

    def refusal_to_screen(self) -> str | None:
        """Why ``screen`` cannot be other than ``none`` here; None where it can."""
        return "it does not encode through a screen"

    @classmethod
    def refusal_to_split(cls) -> str | None:
        """Why a coder of this class cannot be trained in parts; None where rule and quantizers decide."""
        return None if splitting.maths_splits(cls) else "it does not say that it can"

    def refusal_of_parts(self) -> str | None:
        """Why what this coder is made of cannot; None where it can."""
        return splitting.refusal_of_parts(self)

    def latent_tensors(self) -> frozenset[str]:
        """Names in ``state_dict`` of tensors with a row for each of its latents, of a coder that can be
        trained in parts; all others are about the whole dictionary."""
        raise NotImplementedError("a coder that cannot be trained in parts")

    def screened_rules(self) -> Sequence[SparsityRule]:
        """The rules, each of latents of its own, whose entries are found through ``screen``; asked where
        ``refusal_to_screen`` has nothing against it."""
        return ()

    # --- what every coder has

    def read(self, x: Tensor, layers: int | None = None) -> Tensor:
        """The vectors that ``encode`` was given, in the coder's type (float32); what is none is refused.

        Args:
            layers: how many of its layers they are of; None: all.

        Raises:
            DataError: for another shape, a type without fractions, another device, or no tensor; in
                evaluation mode on the CPU also for vectors that are not finite.
        """
        shape = self.shape if layers is None else self.shape._replace(layers_in=layers)
        return inputs.vectors(x, shape, self.reads_layers, self.norm_in.mean, not self.training)

    @property
    def dictionary_size(self) -> int:
        """Latents of one encoder matrix, by which automatic learning rates go; coders with several override
        it. Of a coder that is trained in parts they are those of all parts."""
        return self.config.n_latents

    @property
    def norm_out(self) -> Normalization:
        """Normalisation of what is reconstructed: for an autoencoder that of its input."""
        return self.norm_in if self.is_autoencoder else self.norm_target

    @property
    def device(self) -> torch.device:
        """Where the normalisation's tensors live, and with them everything."""
        return self.norm_in.mean.device

    def reconstruct_stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """One reconstruction for each batch, on the coder's device; one batch at a time is in memory."""
        for x in batches:
            yield self.reconstruct(x.to(self.device) if isinstance(x, Tensor) else x)

    def atoms(self) -> Tensor:
        """float32 ``[F, d_out]`` (``[F, L, d_out]`` where layers are normalised one by one): decoder rows in
        the data's space, quantized as ``decode`` uses them."""
        if torch.is_grad_enabled() or not self.has_own_rows:
            return self.norm_out.inverse_direction(self.placed([m() for m in self.decoders().values()]))
        matrix = self.decoder_matrix()
        parts = (self.norm_out.inverse_direction(self.placed([rows_RE])) for rows_RE in matrix.blocks())
        return gathered(parts, matrix.shape[0])

    def atoms_of(self, latents_U: Tensor) -> Tensor:
        """As ``atoms``, of these latents alone where each atom is one row."""
        if not self.has_own_rows:
            return super().atoms_of(latents_U)
        rows_UE = self.decoder_matrix().rows().take(latents_U)
        return self.norm_out.inverse_direction(self.placed([rows_UE]))

    @property
    def has_own_rows(self) -> bool:
        """Whether each atom is one row of a single decoder, so that ``atoms_of`` makes no others."""
        return self.places_rows and len(self.decoders()) == 1

    def placed(self, rows: Sequence[Tensor]) -> Tensor:
        """``[F, d_out]`` (``[F, L, d_out]``), normalised: rows of ``decoders`` as the atoms that they are;
        coders with several decoders override it."""
        (rows_FE,) = rows
        return self.norm_out.by_layer(rows_FE)

    @property
    def places_rows(self) -> bool:
        """Whether ``placed`` is about each row of a single decoder for itself."""
        return type(self).placed is MatrixCoder.placed

    def atom_norms(self) -> Tensor:
        """float32 ``[F]`` (``[F, L]``): norms of ``atoms()``, without building them."""
        if self.norm_out.layers == 1:
            return self.decoder_matrix().rows().norms() * self.norm_out.scale
        return self.placed([m() for m in self.decoders().values()]).norm(dim=2) * self.norm_out.scale.view(-1)

    def dictionary(self, *, quantized: bool = True) -> Tensor:
        """float32, of the shape of ``atoms()``: the atoms in the data's space, as ``decode`` uses them or
        (``quantized`` False) as they were before quantization.

        Raises:
            ArtifactError: if the atoms before quantization were not kept.
        """
        with torch.no_grad():
            if quantized:
                return self.atoms()
            found = self.decoders().items()
            rows = [serving.float_rows(name, m, self.masters).to(self.device) for name, m in found]
            return self.norm_out.inverse_direction(self.placed(rows))

    def codes_and_scales(self) -> Lookup:
        """The decoder's integer codes ``[F, D]``, the points that they stand for, and the scales.

        An entry is ``points[code] * scale`` of its row (or of its group within the row), in the normalised
        and, where it is so, rotated space in which the coder works.

        Raises:
            ConfigError: if the decoder is several matrices, or not stored as codes into a table of points.
        """
        with torch.no_grad():
            return serving.stored_codes(self.decoders())

    def code_levels(self, codes: SparseCodes) -> Tensor | None:
        """uint8 ``[N]``: the level at which each value of this coder's codes is stored, 0 where it is zero;
        None where values are float32. Coders with several code quantizers, or whose active latents have one
        value each, override it."""
        found = [m.quantizer for m in self.modules() if isinstance(m, QuantizedValues)]
        quantizers = [quantizer for quantizer in found if not quantizer.is_identity]
        if not quantizers:
            return None
        if len(found) > 1 or quantizers[0].n_latents != codes.n_latents:
            raise NotImplementedError(
                f"{type(self).__name__} has several code quantizers; override code_levels"
            )
        return quantizers[0].pack(codes.values, codes.indices)

    @torch.no_grad()
    def atom_errors(self) -> AtomErrors | None:
        """What quantization does to the rows of ``decoders``, each over all layers where there are several;
        None where there is no such matrix, or masters were not kept."""
        found = self.decoders()
        if not found:
            return None
        if all(m.quantizer.is_identity for m in found.values()):
            return AtomErrors(torch.zeros(self.n_latents, dtype=torch.float64), self.atom_norms())
        before = [serving.rows_before_quantization(name, m, self.masters) for name, m in found.items()]
        known = [rows.to(self.device) for rows in before if rows is not None]
        return self.errors_of_rows(known) if len(known) == len(found) else None

    @torch.no_grad()
    def errors_of_rows(self, before: Sequence[Tensor]) -> AtomErrors:
        """What quantizers made of these rows of ``decoders``, in the normalised space. Cosines are those of
        that space."""
        after = (matrix.blocks() for matrix in self.decoders().values())
        sines = [serving.squared_sines(a_FD, b_FD) for a_FD, b_FD in zip(before, after, strict=True)]
        by_row = len(before) == 1 and self.places_rows
        blocks = [[rows] for rows in before[0].split(ROWS_AT_ONCE)] if by_row else [before]
        norms = []
        for rows in blocks:
            norms.append(self.placed(rows).norm(dim=-1) * self.norm_out.scale.flatten())
            let_go(rows[0])
        return AtomErrors(torch.cat(sines), torch.cat(norms))

    def at_level(self, level: int) -> MatrixCoder:
        """The coder as its level ``level`` (1 to ``levels``), for inference; its tensors are packed.

        Raises:
            ConfigError: if there is no such level.
        """
        nesting.check_level(level, self.levels)
        if level == self.levels:
            return self
        shell = self.shell_of_level(level)
        shell.restore(self.export().at_level(level))
        shell.screen = self.screen
        return shell.to(self.device)
