"""A served coder in one call: the bits of the operations one by one, and when these run instead."""

import copy
import pickle

import pytest
import torch
from qsae_bench.inference_speed import sample_inputs, untrained

from qsae_core.coders import linear
from qsae_core.coders.fusable import refusal_to_fuse_decoding, refusal_to_fuse_encoding
from qsae_core.compose.compose import compose_kernel_set
from qsae_core.compose.kernels import activate_kernels
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts import SparseCodes
from qsae_core.errors import DataError
from qsae_core.kernels.fused import DECODES_WITH, ENCODES_WITH, compiled_together
from qsae_core.plugins.records import load_plugins

FOUR = {"use": "ste", "n_bits": 4}
TREES = {
    "ternary": {"sae": {"use": "ternary", "n_latents": 1024}, "sparsity": {"use": "topk", "k": 8}},
    "floats": {"sae": {"use": "topk", "n_latents": 1024}, "sparsity": {"use": "topk", "k": 8}},
    "eight bits, signed, rows of any norm": {
        "sae": {"use": "vanilla", "n_latents": 1024},
        "sparsity": {"use": "topk", "k": 8},
        "activation": {"use": "identity"},
        "quantizer": {"use": "rtn", "n_bits": 8},
        "encoder_quantizer": FOUR,
    },
    "quantized values": {
        "sae": {"use": "topk", "n_latents": 1024},
        "sparsity": {"use": "topk", "k": 8},
        "quantizer": FOUR,
        "encoder_quantizer": FOUR,
        "code_quantizer": {"use": "ste"},
    },
}


def served(tree, width=48, screen="int8", kernels="auto"):
    """A coder as if it had been loaded, with biases and statistics that are not zero."""
    registry = load_plugins().registry
    activate_kernels(kernels, registry)
    config = resolve([Layer(tree, "test")], registry)
    coder = untrained(config, registry, width, screen=screen, arithmetic="exact")
    generator = torch.Generator().manual_seed(3)
    for tensor in (coder.b_enc, coder.b_dec, coder.norm_in.mean):
        tensor.data.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    for module in coder.modules():
        if hasattr(module, "range"):  # of quantized values
            module.range.fill_(4.0)
    return coder


@pytest.fixture
def fuses():
    registry = load_plugins().registry
    sets = [compose_kernel_set(name, registry) for name in registry.names("kernel")]
    offered = [set(each.operations()) for each in sets if each.unavailable() is None]
    if not any(set(ENCODES_WITH + DECODES_WITH) <= operations for operations in offered):
        pytest.skip("no kernel set here has all the operations that are fused")
    activate_kernels("auto", registry)
    assert compiled_together(ENCODES_WITH + DECODES_WITH, "cpu")  # core found nothing wrong with them


def inputs_of(coder, batch):
    with torch.no_grad():
        return sample_inputs(coder, max(batch, 1), seed=1)[:batch].contiguous()


def one_by_one(monkeypatch):
    """From here on no coder is asked for a fused operation."""
    for name in ("fused_encoder", "fused_decoder"):
        monkeypatch.setattr(linear, name, lambda coder, base: None)


@pytest.mark.usefixtures("fuses")
@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("width", [48, 61, 96])  # 61 is odd: the rotation has one block
def test_one_call_has_the_bits_of_the_operations_one_by_one(name, width, monkeypatch):
    coder = served(TREES[name], width)
    batches = [inputs_of(coder, batch) for batch in (0, 1, 3, 70)]
    codes = [coder.encode(x) for x in batches]
    decoded = [coder.decode(each) for each in codes]
    assert coder.served_encoder.refusal is None
    assert coder.served_decoder.refusal is None
    one_by_one(monkeypatch)
    for x, ours, reconstruction in zip(batches, codes, decoded, strict=True):
        theirs = coder.encode(x)
        assert torch.equal(ours.indices, theirs.indices)
        assert torch.equal(ours.values, theirs.values)
        assert torch.equal(ours.offsets, theirs.offsets)
        assert (ours.k, ours.n_latents) == (theirs.k, theirs.n_latents)
        assert torch.equal(reconstruction, coder.decode(theirs))


@pytest.mark.usefixtures("fuses")
def test_a_gradient_to_x_is_followed_and_the_codes_stay():
    coder = served(TREES["ternary"])
    x = inputs_of(coder, 5)
    codes, reconstruction = coder.encode(x), coder(x)
    assert not codes.values.requires_grad
    followed = x.clone().requires_grad_()
    with_gradient = coder.encode(followed)
    assert with_gradient.values.requires_grad
    assert torch.equal(with_gradient.values, codes.values)
    again = coder(followed)
    assert torch.equal(again, reconstruction)
    again.square().sum().backward()
    # along u the change of the loss is <grad, u>, as long as the support stays
    direction, step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), 1e-3
    ahead, behind = (coder(x + sign * step * direction).double() for sign in (1, -1))
    change = ahead.square().sum() - behind.square().sum()
    assert torch.equal(coder.encode(x + step * direction).indices, codes.indices)
    assert torch.equal(coder.encode(x - step * direction).indices, codes.indices)
    assert (change / (2 * step)).item() == pytest.approx((followed.grad * direction).sum().item(), rel=2e-2)


@pytest.mark.usefixtures("fuses")
def test_what_is_written_or_put_in_a_tensor_s_place_counts():
    coder = served(TREES["ternary"])
    x = inputs_of(coder, 4)
    before, codes = coder(x), coder.encode(x)
    with torch.no_grad():
        coder.b_dec.add_(1.0)
    shifted = coder.decode(codes)
    expected = coder.norm_in.inverse(
        coder.W_dec()[codes.indices.long()].mul(codes.values[:, None]).view(4, 8, -1).sum(1) + coder.b_dec
    )
    assert torch.allclose(shifted, expected, atol=1e-5)
    assert not torch.allclose(shifted, before, atol=1e-2)
    coder.b_dec.data = coder.b_dec.data - 1.0  # another tensor in its place
    assert torch.allclose(coder.decode(codes), before, atol=1e-5)
    coder.norm_in.mean = coder.norm_in.mean + 2.0
    assert torch.allclose(coder.decode(codes), before + 2.0, atol=1e-5)
    coder.sparsity.fixed_k = 3
    assert coder.encode(x).k == 3


@pytest.mark.usefixtures("fuses")
def test_a_copy_reads_its_own_tensors():
    coder = served(TREES["ternary"])
    x = inputs_of(coder, 2)
    before = coder(x)
    duplicate = copy.deepcopy(coder)
    with torch.no_grad():
        duplicate.b_dec.add_(1.0)
    assert torch.equal(coder(x), before)
    assert not torch.equal(duplicate(x), before)


@pytest.mark.parametrize("kernels", ["none", "auto"])
def test_a_coder_that_has_served_can_be_pickled(kernels):
    coder = served(TREES["ternary"], kernels=kernels)
    x = inputs_of(coder, 2)
    expected = coder(x)
    again = pickle.loads(pickle.dumps(coder))
    assert (again.served_encoder, again.served_decoder) == (None, None)  # addresses are a process's own
    assert torch.equal(again(x), expected)
    activate_kernels("auto", load_plugins().registry)


@pytest.mark.usefixtures("fuses")
def test_serving_changes_no_state():
    coder = served(TREES["ternary"])
    kept = {name: tensor.clone() for name, tensor in coder.state_dict().items()}
    x = inputs_of(coder, 3)
    coder(x)
    assert torch.equal(coder(x), coder(x))
    assert all(torch.equal(kept[name], tensor) for name, tensor in coder.state_dict().items())


@pytest.mark.usefixtures("fuses")
def test_what_is_no_vector_and_no_code_is_refused_as_ever():
    coder = served(TREES["ternary"])
    x = inputs_of(coder, 3)
    codes = coder.encode(x)
    assert torch.equal(coder.encode(x.double()).indices, codes.indices)  # float64 is read as float32
    assert torch.equal(coder.encode(x.t().contiguous().t()).values, codes.values)
    spoiled = x.clone()
    spoiled[1, 7] = torch.nan
    with pytest.raises(DataError, match="first in row 1"):
        coder.encode(spoiled)
    with pytest.raises(DataError, match="shape"):
        coder.encode(x[:, :-1])
    for wrong in (-1, 1024):
        indices = codes.indices.clone()
        indices[5] = wrong
        with pytest.raises(DataError, match=f"latent {wrong}"):
            coder.decode(SparseCodes(indices, codes.values, codes.offsets, 1024, codes.k))


@pytest.mark.usefixtures("fuses")
@pytest.mark.parametrize(
    ("tree", "options", "encoding", "decoding"),
    [
        (TREES["ternary"], {"kernels": "none"}, "no active kernel set", "no active kernel set"),
        (TREES["ternary"], {"screen": "none"}, "int8 screen", None),
        ({**TREES["ternary"], "sparsity": {"use": "topk", "k": 40}}, {}, "so many", None),
        ({**TREES["floats"], "sparsity": "batchtopk"}, {"screen": "none"}, "int8 screen", None),
        ({**TREES["floats"], "quantizer": "hqq"}, {}, None, "unpacked"),
        ({"sae": {"use": "residual-quantized", "n_latents": 1024}}, {"screen": "none"}, "int8 screen", None),
    ],
)
def test_the_reason_is_said_and_the_operations_run_one_by_one(tree, options, encoding, decoding):
    coder = served(tree, **options)
    x = inputs_of(coder, 3)
    assert torch.equal(coder(x), coder.decode(coder.encode(x)))
    for reason, wanted in (
        (refusal_to_fuse_encoding(coder, linear.LinearCoder), encoding),
        (refusal_to_fuse_decoding(coder, linear.LinearCoder), decoding),
    ):
        assert reason is None if wanted is None else wanted in reason
    activate_kernels("auto", load_plugins().registry)


@pytest.mark.usefixtures("fuses")
def test_a_variant_s_own_mathematics_is_not_passed_over():
    coder = served(TREES["ternary"])

    class Doubled(type(coder)):
        def decode_normalized(self, codes, W_dec_FE):
            return 2 * super().decode_normalized(codes, W_dec_FE)

    x = inputs_of(coder, 2)
    codes, plain = coder.encode(x), coder(x)
    coder.__class__, coder.served_decoder = Doubled, None
    assert "defines decode_normalized" in refusal_to_fuse_decoding(coder, linear.LinearCoder)
    mean = coder.norm_in.mean
    assert torch.allclose(coder.decode(codes) - mean, 2 * (plain - mean), atol=1e-4)
