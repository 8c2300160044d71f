"""CoderSet: one coder for each of several layers, as a coder of them all.

Shapes: B tokens, L layers, D width, F latents of all coders together, N entries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from qsae_core.coders import inputs
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.coder import AtomErrors, CoderShape, LossOutput, SparseCoder
from qsae_core.contracts.codes import SparseCodes, join_latents, split_latents
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError, DataError


class CoderSet(SparseCoder):
    """Coders that know nothing of each other, each of one layer, and together are a coder of all of them.

    They were trained on the vectors of one forward pass, and each is what it would be alone. As a whole they
    read ``[B, L, d_in]`` and give ``[B, L, d_out]``; the latents of the first layer come first. In a language
    model each reads what the ones before it have left of its layer (``layers_read``).

    Args:
        members: name of the layer -> its coder, in the order of layers; of one shape.

    Raises:
        ConfigError: if there is none, or their shapes differ.
    """

    reads_layers = True

    def __init__(self, members: Mapping[str, MatrixCoder]) -> None:
        coders = list(members.values())
        shapes = {coder.shape for coder in coders}
        if len(shapes) != 1 or next(iter(shapes))[2:] != (1, 1):
            raise ConfigError(
                "coders of a set have one shape, and read a layer each",
                where=", ".join(f"{name}: {tuple(c.shape)}" for name, c in members.items()) or "no coder",
            )
        shape, n = coders[0].shape, len(coders)
        super().__init__(coders[0].config, CoderShape(shape.d_in, shape.d_out, n, n), coders[0].parts)
        self.names, self.coders = tuple(members), nn.ModuleList(coders)
        self.ends = list(itertools.accumulate(coder.n_latents for coder in coders))
        """Number of the latent behind the last one of each layer."""
        self.n_latents = self.ends[-1]
        self.is_autoencoder = coders[0].is_autoencoder
        self.term_periods = {
            f"{name}/{term}": n for name, coder in members.items() for term, n in coder.term_periods.items()
        }

    def by_layer(self) -> Sequence[MatrixCoder]:
        """The coders, in the order of layers."""
        return [cast(MatrixCoder, coder) for coder in self.coders]

    def __getitem__(self, name: str | int) -> MatrixCoder:
        """The coder of a layer, by its name or number in the model.

        Raises:
            ConfigError: if there is none of that name.
        """
        if str(name) not in self.names:
            raise ConfigError(f"there is no coder of layer {name!r}", allowed=", ".join(self.names))
        return dict(zip(self.names, self.by_layer(), strict=True))[str(name)]

    def __iter__(self) -> Iterator[str]:
        """The names of layers."""
        return iter(self.names)

    def __len__(self) -> int:
        """How many layers."""
        return len(self.names)

    def encode(self, x: Tensor) -> SparseCodes:
        """``[B, L, d_in]`` -> the codes of all layers."""
        first = self.by_layer()[0]
        x = inputs.vectors(x, self.shape, True, first.norm_in.mean, not self.training)
        parts = zip(self.by_layer(), x.unbind(1), strict=True)
        return self.join([coder.encode(x_BD.contiguous()) for coder, x_BD in parts], x)

    def join(self, codes: Sequence[SparseCodes], x: Tensor) -> SparseCodes:
        """The codes of each layer as those of the set; ``x`` is what was encoded."""
        return replace(join_latents(codes), inputs=x if self.has_skip else None)

    def split(self, codes: SparseCodes) -> list[SparseCodes]:
        """The codes of the set as those of each layer."""
        inputs.check_codes(codes, self.n_latents)
        parts = split_latents(codes, self.ends)
        if codes.inputs is None:
            return parts
        sides = codes.inputs.unbind(1)
        return [
            replace(part, inputs=x_BD.contiguous() if coder.has_skip else None)
            for coder, part, x_BD in zip(self.by_layer(), parts, sides, strict=True)
        ]

    def decode(self, codes: SparseCodes) -> Tensor:
        """Codes -> ``[B, L, d_out]``."""
        parts = zip(self.by_layer(), self.split(codes), strict=True)
        return torch.stack([coder.decode(part) for coder, part in parts], dim=1)

    def loss(self, batch: Batch) -> LossOutput:
        """The terms of all coders, each under its layer's name."""
        outputs = [coder.loss(batch.layer(i)) for i, coder in enumerate(self.by_layer())]
        named = list(zip(self.names, outputs, strict=True))
        return LossOutput(
            {f"{name}/{term}": value for name, out in named for term, value in out.terms.items()},
            self.join([out.codes for out in outputs], batch.x),
            torch.stack([out.target for out in outputs], dim=1),
            torch.stack([out.reconstruction for out in outputs], dim=1),
            {f"{name}/{key}": value for name, out in named for key, value in out.values.items()},
        )

    def atoms(self) -> Tensor:
        """``[F, L, d_out]``: zero in every layer but the latent's own, so L times as large as their own."""
        atoms = torch.zeros(self.n_latents, self.shape.layers_out, self.shape.d_out, device=self.device)
        for i, (rows, coder) in enumerate(zip(self._ranges(), self.by_layer(), strict=True)):
            atoms[rows, i] = coder.atoms()
        return atoms

    def atom_norms(self) -> Tensor:
        """``[F, L]``."""
        return self._in_own_layer([coder.atom_norms() for coder in self.by_layer()])

    def layers_read(self, layer: int) -> tuple[int, ...]:
        """Its own alone."""
        return (layer,)

    def reconstruct_layer(self, x: Tensor, layer: int) -> Tensor:
        """``[B, 1, d_in] -> [B, d_out]``, by the layer's coder.

        Raises:
            DataError: for vectors of more layers than its own.
        """
        if x.dim() != 3 or x.shape[1] != 1:
            raise DataError(
                f"the vectors have the shape {list(x.shape)}", allowed="[B, 1, d_in]: its layer alone"
            )
        y_hat: Tensor = self.coders[layer](x[:, 0].contiguous())
        return y_hat

    @property
    def has_skip(self) -> bool:
        """Whether any of them has."""
        return any(coder.has_skip for coder in self.by_layer())

    def dead_share(self) -> float | None:
        """Of the latents of all layers; None where one of the coders does not count them."""
        shares = [(coder.dead_share(), coder.n_latents) for coder in self.by_layer()]
        known = [share * n for share, n in shares if share is not None]
        return sum(known) / self.n_latents if len(known) == len(shares) else None

    def code_levels(self, codes: SparseCodes) -> Tensor | None:
        """uint8 ``[N]``, of each layer's own code quantizer; None where one of them has float32 values."""
        found = [
            coder.code_levels(part) for coder, part in zip(self.by_layer(), self.split(codes), strict=True)
        ]
        levels = torch.empty_like(codes.indices, dtype=torch.uint8)
        for rows, of_layer in zip(self._ranges(), found, strict=True):
            if of_layer is None:
                return None
            levels[(codes.indices >= rows.start) & (codes.indices < rows.stop)] = of_layer
        return levels

    def atom_errors(self) -> AtomErrors | None:
        """Of all latents; None where one of the coders does not know them."""
        return self.join_errors([coder.atom_errors() for coder in self.by_layer()])

    def join_errors(self, of_each: Sequence[AtomErrors | None]) -> AtomErrors | None:
        """Those of each layer as those of the set; None where one is not known."""
        known = [errors for errors in of_each if errors is not None]
        if len(known) < len(of_each):
            return None
        sines = torch.cat([errors.squared_sines for errors in known])
        return AtomErrors(sines, self._in_own_layer([errors.norms for errors in known]))

    def _ranges(self) -> list[slice]:
        return [slice(start, end) for start, end in itertools.pairwise([0, *self.ends])]

    def _in_own_layer(self, columns: list[Tensor]) -> Tensor:
        """``[F, L]`` of each layer's ``[F_l]``, zero elsewhere."""
        placed = columns[0].new_zeros(self.n_latents, len(columns))
        for i, (rows, column) in enumerate(zip(self._ranges(), columns, strict=True)):
            placed[rows, i] = column
        return placed


def as_one(coders: Mapping[str | None, MatrixCoder]) -> MatrixCoder | CoderSet:
    """The one coder, whose layer is None; or those of several layers, by their names, as one."""
    if None in coders:
        return coders[None]
    return CoderSet({str(layer): coder for layer, coder in coders.items()})
