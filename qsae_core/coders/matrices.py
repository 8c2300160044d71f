"""CoderMatrices: what quantizers and files have to do with a coder's matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from qsae_core.coders import inputs, nesting
from qsae_core.coders.drawn_rows import blank_rows
from qsae_core.coders.export import Cut, Export
from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.coders.stored_form import StoredParts, check_export
from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.quantizer import Packed

Coder = TypeVar("Coder", bound="CoderMatrices")


class CoderMatrices(SparseCoder):
    """A coder whose matrices quantizers serve, and which is stored packed, level inside level.

    Matrices that a quantizer may serve are ``QuantizedMatrix`` modules; modules with ``training_only = True``
    are saved in checkpoints and left out of what is exported.
    """

    def matrices(self) -> dict[str, QuantizedMatrix]:
        """Module name -> every matrix that a quantizer may serve."""
        return {name: m for name, m in self.named_modules() if isinstance(m, QuantizedMatrix)}

    def decoders(self) -> dict[str, QuantizedMatrix]:
        """Module name -> the matrices whose rows are the atoms: ``W_dec``; or ``W_dec.0``, ``W_dec.1``, ...
        where each has latents of its own, in their order. None in a coder that decodes otherwise."""
        return {n: m for n, m in self.matrices().items() if n.partition(".")[0] == "W_dec"}

    def decoder_matrix(self) -> QuantizedMatrix:
        """The only one of ``decoders``.

        Raises:
            NotImplementedError: where there is none, or more than one.
        """
        found = list(self.decoders().values())
        if len(found) != 1:
            raise NotImplementedError(f"{type(self).__name__} has {len(found)} decoder matrices")
        return found[0]

    def quantize_weights(self, enabled: bool) -> None:
        """Whether training passes through the quantizers, of codes too (evaluation mode always does)."""
        for module in self.modules():
            if isinstance(module, QuantizedMatrix | QuantizedValues):
                module.quantizing = enabled

    def begin_quantization(self) -> None:
        """Called once before the first step that passes through the quantizers after a float start."""
        for matrix in self.matrices().values():
            matrix.quantizer.initialize(matrix.master.detach())

    def freeze_decoder(self, frozen: bool, *, plain: bool = False) -> None:
        """Whether training leaves quantized ``decoders`` as they are and goes on with all else.

        Args:
            plain: those in float too.
        """
        for decoder in self.decoders().values():
            if plain or not decoder.quantizer.is_identity:
                decoder.freeze(frozen)

    @property
    def is_quantized(self) -> bool:
        """Whether any of its quantizers, of weights or of codes, changes anything."""
        parts = (m.quantizer for m in self.modules() if isinstance(m, QuantizedMatrix | QuantizedValues))
        return any(not quantizer.is_identity for quantizer in parts)

    @property
    def levels(self) -> int:
        """How many nested levels there are: groups of latents where ``config.prefixes()`` nests them, bit
        planes of the decoders elsewhere; 1 where there is neither."""
        return nesting.level_count(self.config.prefixes(), self.decoders())

    def export(self) -> Export:
        """Packed matrices, every other tensor that inference needs, and what each level needs of them."""
        packed = {name: matrix.pack() for name, matrix in self.matrices().items()}
        tensors = {f"{name}.{part}": t for name, form in packed.items() for part, t in form.tensors.items()}
        rest = self.unpacked_state()
        cuts, level_rows = self._cuts(packed, rest)
        layout: dict[str, Any] = {}
        for name, form in packed.items():
            entry = {"shape": list(form.shape), "layout": form.layout, "parts": sorted(form.tensors)}
            layout[name] = entry | ({"level_rows": level_rows[name]} if name in level_rows else {})
        tensors |= rest
        return Export({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, layout, cuts)

    def _cuts(
        self, packed: dict[str, Packed], rest: dict[str, Tensor]
    ) -> tuple[dict[str, Cut], dict[str, list[int]]]:
        if self.levels == 1:
            return {}, {}
        if self.config.prefixes() is None:
            return nesting.plane_cuts(self.decoders(), packed), {}
        shells = [self.shell_of_level(level) for level in range(1, self.levels)]
        smaller = [(shell.matrices(), shell.inference_state()) for shell in shells]
        return nesting.prefix_cuts(self.matrices(), packed, rest, smaller)

    def shell_of_level(self: Coder, level: int) -> Coder:
        """A coder of the same class, as large as a level is, with initial weights; ``restore`` fills it."""
        config = self.config if self.config.prefixes() is None else self.config.first_groups(level)
        with torch.random.fork_rng(devices=[]), blank_rows():
            return type(self)(config, self.shape, self.parts)

    def restore(self, export: Export) -> None:
        """Take the tensors of an export; the coder then serves packed weights and can no longer train. Its
        parameters are frozen; gradients to what it encodes and decodes stay.

        Of an export that is cut to a level, a coder of that level's size takes the tensors.

        Raises:
            ValueError: if it is not the export of a coder with the same options.
        """
        self.check_export(export)
        rest = dict(export.tensors)
        planes = export.level if self.config.prefixes() is None else None
        decoders = self.decoders()
        for name, matrix in self.matrices().items():
            entry = export.layout[name]
            tensors = {part: rest.pop(f"{name}.{part}") for part in entry["parts"]}
            level = planes if name in decoders else None
            matrix.restore(tensors, tuple(entry["shape"]), entry["layout"], level)
        self.load_state_dict(rest, strict=False)
        self.eval().requires_grad_(False)

    def _apply(self: Coder, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Coder:
        """Moves it to a device; refuses another type, in which products with packed weights do not exist."""
        inputs.check_type(fn(torch.empty(0, dtype=torch.float32)).dtype)
        moved: Coder = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def inference_state(self) -> dict[str, Tensor]:
        """state_dict without the tensors of modules that serve training alone."""
        skip = tuple(f"{n}." for n, m in self.named_modules() if n and getattr(m, "training_only", False))
        return {n: t for n, t in self.state_dict().items() if not (skip and n.startswith(skip))}

    def unpacked_state(self) -> dict[str, Tensor]:
        """The tensors of ``inference_state`` that belong to no matrix: they are stored as they are."""
        prefixes, state = tuple(f"{name}." for name in self.matrices()), self.inference_state()
        return {n: t for n, t in state.items() if not (prefixes and n.startswith(prefixes))}

    def check_export(self, export: Export) -> None:
        """Refuse what is not the export of a coder with the same options, before it is taken.

        Raises:
            ValueError: with the first thing that is otherwise.
        """
        in_planes = frozenset(self.decoders() if self.config.prefixes() is None else ())
        check_export(StoredParts(self.matrices(), self.unpacked_state(), in_planes), export)

    def check_stored(self) -> None:
        """Notice now what would fail, or give no numbers, when it is used.

        Raises:
            ValueError: with what it is; or what a quantizer raises of a stored form that none wrote.
        """
        for name, module in self.named_modules():
            if isinstance(module, Normalization):
                module.check_stored(name)
            elif isinstance(module, QuantizedMatrix):
                module.check_stored()
