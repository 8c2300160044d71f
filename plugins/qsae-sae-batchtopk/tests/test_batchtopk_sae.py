"""The BatchTopK SAE by hand; the rule's own numbers are in qsae-sparsity."""

import pytest
import torch
from qsae_sae_batchtopk import BatchTopKConfig
from qsae_sae_batchtopk.model import BatchTopKSAE

from qsae_core.component import ComponentConfig
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.sparsity import SparsityRule


class TwoOfAll(SparsityRule):
    """The two largest latents of a batch, wherever they are."""

    def select(self, latents_BF, importance_F=None):
        kept = latents_BF >= latents_BF.flatten().topk(2).values[-1]
        return SparseCodes.from_dense(latents_BF * kept)


def test_a_token_may_take_what_another_leaves():
    config = BatchTopKConfig(n_latents=2, normalize="none", rotate=False, auxk_coefficient=0.0)
    parts = plain_parts(sparsity=lambda n: TwoOfAll(ComponentConfig(), n))
    coder = BatchTopKSAE(config, CoderShape(2, 2), parts)
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
    x = torch.tensor([[3.0, 2.0], [1.0, 0.5]])
    output = coder.loss(Batch(x, x))
    assert output.codes.to_dense().tolist() == [[3.0, 2.0], [0.0, 0.0]]
    # errors 0 and 1.25, mean over tokens
    assert output.terms["mse"].item() == pytest.approx(0.625)
    assert set(output.terms) == {"mse"}
