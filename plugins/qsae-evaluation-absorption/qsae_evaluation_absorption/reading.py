"""What evaluations read of a coder: codes and decoder rows as numpy has them."""

from __future__ import annotations

from typing import Any

from scipy.sparse import csr_array

from qsae_core.contracts import EvaluationContext, SparseCodes
from qsae_evaluation_absorption.probes import Floats


def compressed(codes: SparseCodes) -> Any:
    """The codes as a sparse float64 array ``[B, F]`` without stored zeros."""
    values, indices, offsets = (t.detach().cpu() for t in (codes.values, codes.indices, codes.offsets))
    shape = (codes.batch_size, codes.n_latents)
    array = csr_array((values.double().numpy(), indices.numpy(), offsets.numpy()), shape=shape)
    array.eliminate_zeros()
    return array


def atoms(context: EvaluationContext) -> Floats:
    """Decoder rows ``[F, D]`` in the data's space, float32."""
    found: Floats = context.coder.atoms().detach().float().cpu().numpy()
    return found


def several_layers(context: EvaluationContext) -> str | None:
    """Why a coder of several layers is not measured; None for one of a single layer."""
    shape = context.coder.shape
    if (shape.layers_in, shape.layers_out) == (1, 1):
        return None
    if context.coder.by_layer():
        return "a probe is of one layer's vectors, and each layer's coder is evaluated alone"
    return "a probe is of one layer's vectors, and this coder reads or reconstructs several at once"
