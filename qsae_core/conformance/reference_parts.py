"""Minimal parts, so that a coder can be checked on core alone. Shapes: B tokens, F latents, D columns.

They stand in for a coder's default parts that are not installed; they obey the same contracts, and the
kit's own tests hold them to its checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig, ComponentSpec, option
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.code_quantizer import CodeQuantizer
from qsae_core.contracts.coder import Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.dense import Kept, Pointwise
from qsae_core.contracts.quantizer import Packed, PackedTensor, Quantizer
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError

MODULE = "qsae_core.conformance.reference_parts"


class PlainConfig(ComponentConfig):
    """No options."""


class TopKConfig(ComponentConfig):
    """Keep the k largest latents of each token."""

    k: int = option(8, "active latents per token", gt=0)


class IdentityQuantizer(Quantizer):
    """Leaves a matrix as it is and stores it as float32."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """The matrix itself."""
        return weight_FD

    def pack(self, weight_FD: Tensor) -> Packed:
        """A float32 copy."""
        return Packed({"values": weight_FD.detach().float().clone()}, self.shape)

    def unpack(self, packed: Packed) -> Tensor:
        """The float32 copy."""
        return packed.tensors["values"]

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The matrix."""
        return {"values": PackedTensor(torch.float32, self.shape)}

    @property
    def is_identity(self) -> bool:
        """True."""
        return True


class SignQuantizer(Quantizer):
    """``w_hat = s_j sign(w)`` with ``s_j = max|w_j|``: coarse, but the same when applied twice."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """Signs times the row's largest entry; the gradient passes straight through."""
        master = weight_FD.detach()
        quantized = _signs(master).to(master.dtype) * master.abs().amax(1, keepdim=True)
        return quantized + (weight_FD - master)  # adds exactly 0, and lets the gradient through

    def pack(self, weight_FD: Tensor) -> Packed:
        """int8 signs and float32 scales."""
        quantized = self.fake_quantize(weight_FD.detach())
        scales = quantized.abs().amax(1, keepdim=True).float()
        return Packed({"codes": _signs(quantized), "scales": scales}, self.shape)

    def unpack(self, packed: Packed) -> Tensor:
        """Signs times scales."""
        return packed.tensors["codes"].float() * packed.tensors["scales"]

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """Signs and scales."""
        scales = PackedTensor(torch.float32, (self.shape[0], 1))
        return {"codes": PackedTensor(torch.int8, self.shape), "scales": scales}

    def check(self, packed: Packed) -> None:
        """Signs are -1 and 1."""
        super().check(packed)
        if bool((packed.tensors["codes"].abs() != 1).any()):
            raise ValueError("codes are -1 and 1")

    def grid(self) -> Tensor:
        """-1 and 1."""
        return torch.tensor([-1.0, 1.0])


def _signs(weight_FD: Tensor) -> Tensor:
    return torch.where(weight_FD >= 0, 1, -1).to(torch.int8)


class IdentityCodes(CodeQuantizer):
    """Leaves the values of codes as they are."""

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """The values themselves."""
        return values_N

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """Not for use: values stay float32."""
        raise TypeError("values of codes are not quantized")

    def unpack(self, levels_N: Tensor, latent_N: Tensor) -> Tensor:
        """Not for use: values stay float32."""
        raise TypeError("values of codes are not quantized")

    @property
    def is_identity(self) -> bool:
        """True."""
        return True


class EighthsCodes(CodeQuantizer):
    """Every magnitude to a multiple of 1/8, at least one and at most 127 of them."""

    bits = 8.0

    def forward(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """Rounded; the gradient passes straight through."""
        values = values_N.detach()
        quantized = (values.abs() * 8).round().clamp(1, 127) / 8 * values.sign()
        return quantized + (values_N - values)

    def pack(self, values_N: Tensor, latent_N: Tensor) -> Tensor:
        """Eighths, and 128 more for negative values."""
        eighths = self(values_N, latent_N).detach() * 8
        return (eighths.abs() + 128 * (eighths < 0)).to(torch.uint8)

    def unpack(self, levels_N: Tensor, latent_N: Tensor) -> Tensor:
        """Values of levels."""
        eighths = levels_N.float()
        return torch.where(eighths >= 128, 128 - eighths, eighths) / 8


class ReLU(Activation):
    """max(z, 0)."""

    keeps_order = True

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """Latents from pre-activations."""
        return pre_acts.relu()

    def pointwise(self) -> Pointwise:
        """``relu``."""
        return Pointwise("relu")


class TopK(SparsityRule):
    """The k largest latents of each token."""

    counts = "k"

    def __init__(self, config: TopKConfig, n_latents: int) -> None:
        super().__init__(config, n_latents)
        if config.k > n_latents:
            raise ConfigError(f"k ({config.k}) exceeds n_latents ({n_latents})")
        self.fixed_k = config.k

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """Rank by latent times importance."""
        ranking = latents_BF if importance_F is None else latents_BF * importance_F
        indices = ranking.topk(self.fixed_k or 0, dim=1).indices
        return SparseCodes.from_top_k(indices, latents_BF.gather(1, indices), self.n_latents)


class L1(SparsityRule):
    """Every latent that is not zero, at a price: ``0.01 sum_j |f_j| ||w_j||``."""

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """The support of the latents."""
        return SparseCodes.from_dense(latents_BF)

    def kept(self) -> Kept:
        """Everything."""
        return Kept()

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor:
        """Mean over tokens."""
        weighted = codes.values.abs() * atom_norms_F[codes.indices.long()]
        return 0.01 * weighted.sum() / codes.batch_size


def plain_parts(k: int = 8, **factories: Callable[[Any], Any]) -> Parts:
    """Parts for a worked example: nothing quantized, ReLU, the k largest latents; each can be replaced.

    Args:
        k: active latents per token.
        factories: slot -> factory, in place of the plain one (``quantizer=lambda shape: ...``).
    """
    plain = PlainConfig()
    usual: dict[str, Callable[[Any], Any]] = {
        "quantizer": lambda shape: IdentityQuantizer(plain, shape),
        "encoder_quantizer": lambda shape: IdentityQuantizer(plain, shape),
        "code_quantizer": lambda n_latents: IdentityCodes(plain, n_latents),
        "activation": lambda n_latents: ReLU(plain, n_latents),
        "sparsity": lambda n_latents: TopK(TopKConfig(k=k), n_latents),
    }
    return Parts(**(usual | factories))


REFERENCES = {
    (spec.kind, spec.name): spec
    for spec in (
        ComponentSpec("quantizer", "none", PlainConfig, f"{MODULE}:IdentityQuantizer"),
        ComponentSpec("quantizer", "sign", PlainConfig, f"{MODULE}:SignQuantizer"),
        ComponentSpec("code_quantizer", "none", PlainConfig, f"{MODULE}:IdentityCodes"),
        ComponentSpec("code_quantizer", "eighths", PlainConfig, f"{MODULE}:EighthsCodes"),
        ComponentSpec("activation", "relu", PlainConfig, f"{MODULE}:ReLU"),
        ComponentSpec("sparsity", "topk", TopKConfig, f"{MODULE}:TopK"),
        ComponentSpec("sparsity", "l1", PlainConfig, f"{MODULE}:L1"),
    )
}
"""(kind, name) -> the kit's part."""


def reference(kind: str, name: str) -> ComponentSpec:
    """The kit's part that stands in for one that is not installed: of that name, or a typical one."""
    typical = {"quantizer": "sign", "code_quantizer": "eighths", "activation": "relu", "sparsity": "topk"}
    return REFERENCES.get((kind, name)) or REFERENCES[kind, typical[kind]]
