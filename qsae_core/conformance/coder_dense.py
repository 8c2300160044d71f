"""Rules for SAEs and transcoders: the dense form. Shapes: B tokens, E width of the output, F latents."""

from __future__ import annotations

import torch

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder import trained
from qsae_core.conformance.coder_samples import buildable
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect
from qsae_core.contracts.cross_layer import Form
from qsae_core.contracts.dense import DenseForm
from qsae_core.errors import QsaeError

RULES = Rules()
ROUNDING = 1e-5
"""By which a code and a reconstruction in float32 may differ from the dense form's in float64, relative to
the largest of them."""
TIES = 0.05
"""Share of tokens whose last latent may be another: two pre-activations, or one and a threshold, may be so
close that rounding decides."""


@RULES.each_case(
    "dense", "form() computes what encode and forward do (but for rounding), or refuses with a QsaeError."
)
def _dense(subject: Subject, case: Case) -> None:
    found = 0
    for variant, coder in buildable(subject, case):
        coder, batch = trained(subject, case, coder)
        try:
            form = coder.form()
        except QsaeError:
            continue
        found += 1
        expect_same_function(coder, form, batch.x, f"the form {variant.label}")
    if not found:
        raise NotApplicable("it has no dense form")


@torch.no_grad()
def expect_same_function(coder: MatrixCoder, form: Form, x_BD: torch.Tensor, what: str) -> None:
    """Fail unless codes and reconstructions of a coder are those of a form."""
    read = x_BD.double()
    if isinstance(form, DenseForm):
        read = read.flatten(1)  # layers one after another
    codes_BF, wanted_BF = coder.encode(x_BD).to_dense().double(), form.encode(read)
    expect(codes_BF.shape == wanted_BF.shape, f"{what} gives {list(wanted_BF.shape)} latents.")
    same_B = ((codes_BF != 0) == (wanted_BF != 0)).all(1)
    others = 1 - same_B.double().mean().item()
    expect(others <= TIES, f"{what} has other active latents for {others:.0%} of the tokens.")
    pairs = {
        "latents": (codes_BF, wanted_BF),
        "reconstructions": (coder(x_BD).double().flatten(1), form.reconstruct(read).flatten(1)),
    }
    for name, (actual, wanted) in pairs.items():
        error, size = (actual - wanted)[same_B].abs().max().item(), actual.abs().max().item()
        expect(error <= ROUNDING * size, f"{what} gives {name} that are off by {error:.3g} of {size:.3g}.")
