"""A trained coder is turned, each side by a rotation of its own width; its function stays.

Shapes: N vectors, L layers, D width of the source, E width of the target, F latents.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from qsae_activations import JumpReLUConfig
from qsae_activations.jumprelu import JumpReLU
from qsae_sae_crosscoder import CrosscoderConfig
from qsae_sae_crosscoder.model import Crosscoder
from qsae_sae_route import RouteConfig
from qsae_sae_route.model import RouteSAE
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.model import CrossLayerTranscoder
from qsae_transcoder_matryoshka import MatryoshkaTranscoderConfig
from qsae_transcoder_matryoshka.model import MatryoshkaTranscoder
from qsae_transcoder_transcoder import SparseTranscoderConfig
from qsae_transcoder_transcoder.model import SparseTranscoder

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape
from qsae_core.errors import ConfigError
from qsae_core.quantization.spaces import refusal_to_rotate, rotate, rotate_coder

N, L, D, E, F = 300, 3, 24, 20, 96
TRANSCODERS = [
    (SparseTranscoder, SparseTranscoderConfig, 1),
    (MatryoshkaTranscoder, MatryoshkaTranscoderConfig, 1),
    (CrossLayerTranscoder, CrossLayerConfig, L),
]
CASES = [(*one, skip, E) for one, skip in itertools.product(TRANSCODERS, (False, True))]
CASES += [(Crosscoder, CrosscoderConfig, L, None, D)]


def made(cls, config, layers, skip, width) -> tuple[MatrixCoder, Batch]:
    """With every parameter away from where it begins, and means and scales that differ from side to side."""
    torch.manual_seed(0)
    options = {"n_latents": F, "rotate": False} | ({} if skip is None else {"skip": skip})
    shape = CoderShape(D, width, layers, layers)
    coder = cls(config(**options), shape, plain_parts(k=4))
    several = () if layers == 1 else (layers,)
    x = 3 * torch.randn(N, *several, D) + 2
    batch = Batch(x, x) if skip is None else Batch(x, 7 * torch.randn(N, *several, width) - 50)
    coder.initialize(batch)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return coder.eval(), batch


@pytest.mark.parametrize(("cls", "config", "layers", "skip", "width"), CASES)
def test_what_it_computes_stays(cls, config, layers, skip, width):
    coder, batch = made(cls, config, layers, skip, width)
    with torch.no_grad():
        codes, output, atoms = coder.encode(batch.x).to_dense(), coder(batch.x), coder.atoms()
        before = {name: tensor.clone() for name, tensor in coder.named_parameters()}
        rotate_coder(coder)
        assert coder.norm_in.rotated
        assert coder.norm_out.rotated
        torch.testing.assert_close(coder.encode(batch.x).to_dense(), codes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(coder(batch.x), output, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(coder.atoms(), atoms, rtol=1e-4, atol=1e-4)
    turned = {name for name, tensor in coder.named_parameters() if not torch.equal(tensor, before[name])}
    assert turned == set(before) - {"b_enc"}


def test_rows_are_spread_over_the_axes_of_their_own_side():
    """24 = 4 x 6 and 20 = 4 x 5: the Hadamard matrix of four gives each of four axes half of what was on one,
    and the dense factor divides that further."""
    coder, _ = made(SparseTranscoder, SparseTranscoderConfig, 1, True, E)
    with torch.no_grad():
        coder.W_enc.master.copy_(torch.eye(D)[torch.arange(F) % D])
        coder.W_dec.master.copy_(torch.eye(E)[torch.arange(F) % E])
        rotate_coder(coder)
        for matrix in (coder.W_enc, coder.W_dec):
            assert matrix.master.abs().max() < 0.5
            torch.testing.assert_close(matrix.master.norm(dim=1), torch.ones(F))


def test_a_side_that_is_rotated_already_stays_as_it_is():
    coder, batch = made(SparseTranscoder, SparseTranscoderConfig, 1, True, E)
    with torch.no_grad():
        output = coder(batch.x)
        coder.norm_in.rotate()
        coder.W_enc.master.copy_(coder.norm_in.direction(coder.W_enc.master))
        coder.W_skip.copy_(coder.norm_in.direction(coder.W_skip))
        reader = coder.W_enc.master.clone()
        assert rotate(coder, "auto", print)
        assert torch.equal(coder.W_enc.master, reader)
        torch.testing.assert_close(coder(batch.x), output, rtol=1e-4, atol=1e-3)


def test_thresholds_as_many_as_the_data_is_wide_are_no_part_of_its_space():
    parts = plain_parts(k=4, activation=lambda n: JumpReLU(JumpReLUConfig(), n))
    coder = SparseTranscoder(SparseTranscoderConfig(n_latents=D), CoderShape(D, E), parts)
    assert refusal_to_rotate(coder) is None


def test_what_cannot_be_turned_is_refused_with_the_parameters():
    coder = RouteSAE(RouteConfig(n_latents=F), CoderShape(D, D, L), plain_parts(k=4))
    said: list[str] = []
    assert not rotate(coder, "auto", said.append)
    assert "not rotated: it has parameters of the data's width besides" in said[0]
    with pytest.raises(ConfigError, match="this coder cannot be rotated: it has parameters"):
        rotate(coder, True, said.append)
    assert not rotate(coder, False, said.append)
    assert len(said) == 1
