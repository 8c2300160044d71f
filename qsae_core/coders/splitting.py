"""Whether a coder can be trained in parts, each process with some of its latents, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

from torch import Tensor

from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.component import name_of
from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.sparsity import SparsityRule


def maths_splits(variant: type[Any]) -> bool:
    """What the first class says, from the variant up, that has a ``splits_latents`` of its own; False where
    one before it defines anything anew, which may look over all latents."""
    made = (FunctionType, property, classmethod, staticmethod)
    for cls in variant.__mro__:
        own = vars(cls)
        if "splits_latents" in own:
            return bool(own["splits_latents"])
        if any(isinstance(value, made) for value in own.values()):
            return False
    return False


def latent_tensors(state: Mapping[str, Tensor], n_latents: int) -> frozenset[str]:
    """Of a LinearCoder's state those with a row for each latent: both masters, ``b_enc``, the dead counters,
    and what activation and code quantizer have for each."""
    return frozenset({"W_enc.weight", "W_dec.weight", "b_enc", "dead.tokens_since_fired"}) | {
        name
        for name, tensor in state.items()
        if name.startswith(("activation.", "code_quantizer.")) and tensor.shape[:1] == (n_latents,)
    }


def refusal_to_share(coder: SparseCoder) -> str | None:
    """Why the gradient of a batch is not made of those of its parts; None where it is."""
    for name, module in coder.named_modules():
        if isinstance(module, QuantizedMatrix) and not module.quantizer.linear_gradient:
            return (
                f"the gradient that quantizer '{name_of(module.quantizer)}' of {name} gives for a batch is "
                "no sum of those for its parts"
            )
    return None


def refusal_of_parts(coder: SparseCoder) -> str | None:
    """Why the parts that a coder is made of cannot serve some of its latents alone; None where they can."""
    for name, module in coder.named_modules():
        if isinstance(module, QuantizedMatrix):
            quantizer = module.quantizer
            if not (quantizer.is_identity or quantizer.by_row):
                return (
                    f"quantizer '{name_of(quantizer)}' of {name} does not quantize each row by itself alone"
                )
        elif isinstance(module, QuantizedValues):
            if not (module.quantizer.is_identity or module.quantizer.splits):
                return f"code quantizer '{name_of(module.quantizer)}' does not say that it can"
        elif isinstance(module, SparsityRule):
            keeps_largest = module.fixed_k is not None and module.selects_largest
            if not (keeps_largest or module.splits):
                return f"sparsity rule '{name_of(module)}' does not say that it can"
    return None
