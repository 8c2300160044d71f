"""Float matrices of a packed coder, for code that reads weights. Shapes: D in, E out, F latents."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.contracts import DenseForm

SMALLEST_NORM = 1e-8
"""As SAELens clamps it."""


class Dequantized:
    """What SAELens calls the weights of an SAE, over the vectors as the data has them.

    Each is made anew whenever it is asked for, on the SAE's device and in its type, and kept nowhere: it
    costs what an SAE in floats costs. Of latents that are no single product with an encoder there is
    ``W_dec`` alone; the others raise qsae's ConfigError with the reason.
    """

    cfg: Any
    dtype: torch.dtype
    coder_json: Tensor

    @property
    def coder(self) -> MatrixCoder:
        """The coder.

        Raises:
            RuntimeError: before weights were loaded.
        """
        coder = self.__dict__["_coder"]
        if coder is None:
            raise RuntimeError("it has no weights yet: SAE.load_from_disk(PATH) loads them")
        found: MatrixCoder = coder
        return found

    @property
    def W_enc(self) -> Tensor:
        """``[D, F]``: latents before the activation are ``x W_enc + b_enc``."""
        return self._given(self._plain().W_enc.T, latents=1)

    @property
    def b_enc(self) -> Tensor:
        """``[F]``."""
        return self._given(self._plain().b_enc, latents=1)

    @property
    def W_dec(self) -> Tensor:
        """``[F, E]``: the atoms as ``decode`` uses them."""
        return self._given(self.coder.dictionary(), latents=-1)

    @property
    def b_dec(self) -> Tensor:
        """``[E]``."""
        return self._given(self._plain().b_dec)

    @property
    def threshold(self) -> Tensor | None:
        """``[F]``, of a JumpReLU and of gated latents, which are one; else None."""
        threshold_F = self._plain().threshold
        return None if threshold_F is None else self._given(threshold_F, latents=1)

    @property
    def W_skip(self) -> Tensor | None:
        """``[E, D]``, or None."""
        W_skip = self._plain().W_skip
        return None if W_skip is None else self._given(W_skip)

    @property
    def atom_norms(self) -> Tensor:
        """float32 ``[F]``: the norms of the atoms as they are stored; these are kept."""
        if self.__dict__.get("_norms") is None:
            self.__dict__["_norms"] = self.coder.dictionary().norm(dim=1).clamp(min=SMALLEST_NORM)
        norms_F: Tensor = self.__dict__["_norms"]
        return norms_F.to(self.coder_json.device)

    def _plain(self) -> DenseForm:
        return self.coder.dense().plain()

    def _given(self, tensor: Tensor, latents: int = 0) -> Tensor:
        """On the SAE's device and in its type; with ``latents``, times the power of the atoms' norms."""
        tensor = tensor.detach().to(self.coder_json.device)
        if latents and self.cfg.folds_W_dec_norm:
            norms_F = self.atom_norms
            tensor = tensor * norms_F if latents > 0 else tensor / norms_F[:, None]
        return tensor.to(self.dtype)

    # --- folding

    def fold_W_dec_norm(self) -> None:
        """From here on atoms have norm 1 and latents are times their norms; what is reconstructed stays, but
        for rounding. The packed weights stay too."""
        self.cfg.folds_W_dec_norm = True

    def fold_and_get_W_dec_norm(self) -> Tensor:
        """``fold_W_dec_norm``; ``[F]``, the norms before it."""
        norms_F = self.W_dec.norm(dim=1).clamp(min=SMALLEST_NORM)
        self.fold_W_dec_norm()
        return norms_F

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> NoReturn:
        """Refused: it changes weights."""
        raise NotImplementedError(_NOT_FOLDED)

    def fold_activation_whitening(self, *tensors: Tensor) -> NoReturn:
        """Refused: it changes weights."""
        raise NotImplementedError(_NOT_FOLDED)


_NOT_FOLDED = (
    "packed weights are not changed: `qsae export RUN --format saelens` writes float weights, in which this "
    "can be folded"
)
