"""The ternary SAE by hand: the decoder that codes meet is the quantized one, the masters are what learns."""

import pytest
import torch
from qsae_sae_ternary import TernaryConfig
from qsae_sae_ternary.model import TernarySAE

from qsae_core.component import ComponentConfig
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.contracts.quantizer import Packed, PackedTensor, Quantizer


class Ternary(Quantizer):
    """Half of the largest entry is the threshold and three quarters of it the scale; just for these tests."""

    def fake_quantize(self, weight_FD):
        largest = weight_FD.detach().abs().amax(1, keepdim=True)
        hat = torch.sign(weight_FD) * (weight_FD.abs() >= 0.5 * largest) * 0.75 * largest
        return weight_FD + (hat - weight_FD).detach()

    def pack(self, weight_FD):
        return Packed({"values": self.fake_quantize(weight_FD)}, self.shape)

    def unpack(self, packed):
        return packed.tensors["values"]

    def packed_tensors(self):
        return {"values": PackedTensor(torch.float32, self.shape)}


def make(quantizer=Ternary):
    parts = plain_parts(k=1, quantizer=lambda shape: quantizer(ComponentConfig(), shape))
    coder = TernarySAE(TernaryConfig(n_latents=2, normalize="none", rotate=False), CoderShape(2, 2), parts)
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[0.8, 0.2], [0.6, 0.8]]))
    return coder


def test_the_reconstruction_uses_quantized_atoms():
    coder = make().eval()
    x = torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    # row 0: threshold 0.4, scale 0.6 -> (0.6, 0); row 1: threshold 0.4, scale 0.6 -> (0.6, 0.6)
    torch.testing.assert_close(coder(x), torch.tensor([[1.2, 0.0], [3.0, 3.0]]))
    torch.testing.assert_close(coder.atom_norms(), torch.tensor([0.6, 0.72**0.5]))


def test_gradients_pass_straight_through_to_the_masters():
    coder = make()
    x = torch.tensor([[2.0, 1.0]])
    output = coder.loss(Batch(x, x))
    # f = (2, 0), x_hat = (1.2, 0), error x_hat - x = (-0.8, -1): d mse / d w_hat_0 = 2 * error * f
    assert output.terms["mse"].item() == pytest.approx(0.64 + 1.0)
    output.terms["mse"].backward()
    gradient = coder.W_dec.weight.grad
    torch.testing.assert_close(gradient, torch.tensor([[-3.2, -4.0], [0.0, 0.0]]))


def test_while_quantization_is_off_training_sees_the_masters_and_evaluation_does_not():
    coder = make()
    coder.quantize_weights(False)
    x = torch.tensor([[2.0, 1.0]])
    torch.testing.assert_close(coder.loss(Batch(x, x)).reconstruction, torch.tensor([[1.6, 0.4]]))
    torch.testing.assert_close(coder.eval()(x), torch.tensor([[1.2, 0.0]]))
