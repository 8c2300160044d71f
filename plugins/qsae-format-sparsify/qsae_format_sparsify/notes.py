"""What a user should know of a file, beside what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsae_core.contracts import DenseForm


def notes(cfg: Mapping[str, Any], kind: str, dense: DenseForm) -> tuple[str, ...]:
    """Sentences, those that apply."""
    found = []
    if kind == "transcoder" and dense.subtracts_b_dec:
        found.append(
            "b_dec is taken off what this transcoder reads, as sparsify did until 12 February 2025; the "
            'coder has that in the bias of its encoder, and is exported with "transcode": true'
        )
    if cfg.get("multi_topk"):
        found.append(
            "with multi_topk, sparsify's forward gives what the 4 k largest latents make; here, as in its "
            "encode and decode, there are k"
        )
    if len({tensor.dtype for tensor in dense.tensors().values()}) > 1:
        found.append("its tensors are of several types, which sparsify turns into that of W_dec")
    return tuple(found)
