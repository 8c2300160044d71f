"""Rules for SAEs and transcoders: the spaces in which parameters lie. Shapes: B tokens, F latents."""

from __future__ import annotations

import torch

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder import trained
from qsae_core.conformance.coder_dense import TIES
from qsae_core.conformance.coder_samples import Variant, built
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect
from qsae_core.quantization.spaces import refusal_to_rotate, rotate_coder

RULES = Rules()
ROUNDING = 1e-4
"""By which a code and a reconstruction may differ after the spaces were turned, relative to the largest."""


@RULES.each_case(
    "spaces", "with every dimension turned that lies in a space of its vectors, it computes what it did."
)
def _spaces(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    refusal = refusal_to_rotate(coder)
    if refusal is not None:
        raise NotApplicable(refusal)
    if coder.is_quantized or bool(coder.norm_in.rotated):
        raise NotApplicable("it is quantized, or rotated already")
    with torch.no_grad():
        _expect_unmoved(coder, batch.x)


def _expect_unmoved(coder: MatrixCoder, x: torch.Tensor) -> None:
    codes_BF, output = coder.encode(x).to_dense(), coder(x)
    rotate_coder(coder)
    turned_BF = coder.encode(x).to_dense()
    same_B = ((codes_BF != 0) == (turned_BF != 0)).all(1)
    others = 1 - same_B.double().mean().item()
    expect(others <= TIES, f"turned, it has other active latents for {others:.0%} of the tokens.")
    pairs = {"latents": (codes_BF, turned_BF), "reconstructions": (output, coder(x))}
    for name, (before, after) in pairs.items():
        error, size = (after - before)[same_B].abs().max().item(), before.abs().max().item()
        expect(
            error <= ROUNDING * size, f"turned, it gives {name} that are off by {error:.3g} of {size:.3g}."
        )
