"""QsaeSAE: an SAE of SAELens around a coder of qsae, whose weights stay packed.

Shapes: D width of the input, E width of the output, F latents; ``...`` any leading dimensions.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from qsae_format_saelens import ARCHITECTURE, STORED_FILES, file_of_bytes
from sae_lens import SAE, SAEConfig
from sae_lens.saes.topk_sae import TopK
from torch import Tensor

import qsae_core
from qsae_core.coders import MatrixCoder
from qsae_core.contracts import SparseCodes
from qsae_in_saelens.dequantized import Dequantized


@dataclass
class QsaeSAEConfig(SAEConfig):  # type: ignore[misc]  # sae_lens has no types here
    """What cfg.json says: SAELens' own fields, and two."""

    apply_b_dec_to_input: bool = False
    """Never: ``b_enc`` has what an offset gives."""
    d_out: int | None = None
    """E, of a transcoder; None: that of the input."""
    folds_W_dec_norm: bool = False  # noqa: N815 (SAELens' own word)
    """Whether latents are those of atoms of norm 1."""

    @classmethod
    def architecture(cls) -> str:
        """``qsae``."""
        return ARCHITECTURE


class QsaeSAE(Dequantized, SAE):  # type: ignore[misc]
    """``encode``, ``decode`` and ``forward`` of a coder as ``qsae_core.load`` gives it, bit for bit.

    What it is made of are two buffers of bytes, which casts leave alone; they are what is saved.
    ``cfg.dtype`` is the type of what goes in and out; the coder computes in float32 whatever that is.
    """

    def initialize_weights(self) -> None:
        """Without a coder: ``load_state_dict`` makes it."""
        for name in STORED_FILES:
            self.register_buffer(name, torch.empty(0, dtype=torch.uint8, device=self.device))
        self.__dict__.update(_coder=None, _norms=None)  # no submodule: casts would reach it

    def get_activation_fn(self) -> Callable[[Tensor], Tensor]:
        """ReLU, as a TopK that keeps all latents. ``encode`` has the coder's own rule; but from a TopK
        SAEDashboard takes whole codes, and of others it puts columns of weights in their places."""
        return TopK(self.cfg.d_sae)

    # --- the interface of SAEs

    def encode(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., F]``: dense latents."""
        sae_in = self.hook_sae_input(self.reshape_fn_in(x.to(self.dtype)))
        latents_BF = self.coder.encode(_rows(sae_in)).to_dense()
        if self.cfg.folds_W_dec_norm:
            latents_BF = latents_BF * self.atom_norms
        return self.hook_sae_acts_post(latents_BF.to(self.dtype).view(*sae_in.shape[:-1], -1))

    def decode(self, feature_acts: Tensor) -> Tensor:
        """``[..., F]`` -> ``[..., E]``, without a skip connection, as of SAELens' own transcoders."""
        return self._decoded(feature_acts, None)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., E]``, the skip connection included."""
        if not self.coder.has_skip:
            return super().forward(x)
        return self.hook_sae_output(self._decoded(self.encode(x), x.to(self.dtype)))

    def _decoded(self, feature_acts: Tensor, inputs: Tensor | None) -> Tensor:
        latents_BF = _rows(feature_acts)
        if self.cfg.folds_W_dec_norm:
            latents_BF = latents_BF / self.atom_norms
        codes = SparseCodes.from_dense(latents_BF)
        if self.coder.has_skip:
            nothing = latents_BF.new_zeros(len(latents_BF), self.cfg.d_in)
            codes = replace(codes, inputs=nothing if inputs is None else _rows(inputs))
        sae_out = self.coder.decode(codes).to(self.dtype).view(*feature_acts.shape[:-1], -1)
        return self.reshape_fn_out(self.hook_sae_recons(sae_out), self.d_head)

    # --- loading, and being moved

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Bytes again, whatever floating-point type SAELens has cast them to."""
        for name in STORED_FILES:
            state_dict[name] = state_dict[name].to(torch.uint8)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take the bytes, and make the coder of them.

        Raises:
            ArtifactError: if they are damaged, or were altered.
            PluginError: if a component of the coder is not installed; the message names the distribution.
        """
        for name in STORED_FILES:
            if name in state_dict:  # the size is the file's
                setattr(self, name, torch.empty_like(state_dict[name], device=self.coder_json.device))
        done = super().load_state_dict(state_dict, strict=strict, assign=assign)
        coder = coder_of({name: getattr(self, name) for name in STORED_FILES})
        self.__dict__.update(_coder=coder.to(self.coder_json.device), _norms=None)
        return done

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QsaeSAE:
        """Casts reach buffers of bytes by their device alone; the coder follows these."""
        super()._apply(fn, recurse)
        if self.__dict__["_coder"] is not None:
            self.coder.to(self.coder_json.device)
        return self


def coder_of(stored: Mapping[str, Tensor]) -> MatrixCoder:
    """The coder whose files are these bytes, in evaluation mode, on the CPU.

    Raises:
        ArtifactError, PluginError: as ``QsaeSAE.load_state_dict``.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, file in STORED_FILES.items():
            data = stored[name].cpu().numpy().tobytes()
            (pathlib.Path(folder) / file).write_bytes(file_of_bytes(data, f"sae_weights.safetensors: {name}"))
        return qsae_core.load(folder)


def _rows(x: Tensor) -> Tensor:
    """float32 ``[B, D]`` of ``[..., D]``."""
    return x.reshape(-1, x.shape[-1]).float()
