"""A loaded coder is frozen and stays float32, whatever a process takes for its default type."""

import itertools

import pytest
import torch

from qsae_core.compose.compose import compose_coder
from qsae_core.compose.kernels import activate_kernels
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError
from qsae_core.plugins.records import load_plugins

WIDTH = 32
SEVERAL = {"crosscoder", "route", "route-matryoshka"}
REGISTRY = load_plugins().registry
PARTS = [
    *({"sae": name} for name in REGISTRY.names("sae")),
    *({"sae": "topk", "quantizer": q, "encoder_quantizer": q} for q in REGISTRY.names("quantizer")),
    *({"sae": "topk", "activation": name} for name in REGISTRY.names("activation")),
    *({"sae": "topk", "sparsity": name} for name in REGISTRY.names("sparsity") if name != "l0"),
    {"sae": "jumprelu", "sparsity": "l0", "activation": "jumprelu"},
    {"sae": "topk", "code_quantizer": "ste"},
]


@pytest.fixture
def bfloat16_by_default():
    """As in a process that has set up a language model so."""
    yield lambda: torch.set_default_dtype(torch.bfloat16)
    torch.set_default_dtype(torch.float32)


def restored_twice(parts, between=lambda: None):
    """A coder as loaded, another one loaded after ``between()``, and vectors for them."""
    tree = {**parts, "sae": {"use": parts["sae"], "n_latents": 128}, "data": "synthetic"}
    config = resolve([Layer(tree, "test")], REGISTRY)
    layers = 3 if parts["sae"] in SEVERAL else 1
    shape = CoderShape(WIDTH, WIDTH, layers, layers)
    size = (64, layers, WIDTH) if layers > 1 else (64, WIDTH)
    x = torch.randn(size, generator=torch.Generator().manual_seed(1))
    trained = compose_coder(config, REGISTRY, shape)
    trained.initialize(Batch(x, x))
    export = trained.eval().export()
    coders = []
    for before in (lambda: None, between):
        before()
        coders.append(compose_coder(config.coder_dict(), REGISTRY, shape))
        coders[-1].restore(export)
    return *coders, x


def tensors_of(coder):
    return dict(itertools.chain(coder.named_parameters(), coder.named_buffers()))


@pytest.mark.parametrize("kernels", ["none", "auto"])
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(map(str, parts.values())))
def test_the_default_type_of_a_process_changes_nothing(parts, kernels, bfloat16_by_default):
    activate_kernels(kernels, REGISTRY)
    usual, coder, x = restored_twice(parts)
    with torch.no_grad():
        codes, expected = usual.encode(x), usual(x)
    usual, coder, x = restored_twice(parts, bfloat16_by_default)
    assert torch.get_default_dtype() == torch.bfloat16
    assert {t.dtype for t in tensors_of(coder).values() if t.is_floating_point()} == {torch.float32}
    with torch.no_grad():
        found = coder.encode(x)
        assert torch.equal(found.indices, codes.indices)
        assert torch.equal(found.values, codes.values)
        assert torch.equal(coder.decode(found), expected)
    activate_kernels("auto", REGISTRY)


@pytest.mark.parametrize("convert", ["bfloat16", "half", "double"])
def test_another_type_is_refused_with_what_works(convert):
    coder, _, x = restored_twice({"sae": "ternary"})
    expected = coder(x)
    with pytest.raises(ConfigError, match="computes in float32") as caught:
        getattr(coder, convert)()
    assert "vectors of any floating-point type" in str(caught.value)
    with pytest.raises(ConfigError, match="computes in float32"):
        torch.nn.ModuleList([coder]).to(dtype=torch.bfloat16)
    assert torch.equal(coder(x), expected)  # nothing was converted before it was refused
    # what it says: vectors of that type are read
    assert torch.equal(coder(x.bfloat16()), coder(x.bfloat16().float()))
    assert coder.float().to("cpu") is coder


@pytest.mark.parametrize("screen", ["none", "int8"])
@pytest.mark.parametrize("sae", ["topk", "ternary", "gated", "binary-latent"])
def test_codes_of_a_loaded_coder_ask_for_no_gradient_unless_x_does(sae, screen):
    coder, _, x = restored_twice({"sae": sae})
    coder.screen = screen if coder.refusal_to_screen() is None else "none"
    assert not [name for name, parameter in coder.named_parameters() if parameter.requires_grad]
    codes = coder.encode(x)
    assert codes.values.numpy().shape == codes.indices.shape  # numpy refuses what requires grad
    assert not coder.decode(codes).requires_grad
    followed = x.clone().requires_grad_()
    coder(followed).square().sum().backward()
    assert followed.grad is not None
    assert followed.grad.abs().sum() > 0
    values = codes.values.clone().requires_grad_()
    coder.decode(codes.with_values(values)).sum().backward()
    assert values.grad is not None
    assert values.grad.abs().sum() > 0


def test_a_level_is_frozen_too():
    coder, _, _ = restored_twice({"sae": "matryoshka"})
    level = coder.at_level(1)
    assert level is not coder
    assert not [name for name, parameter in level.named_parameters() if parameter.requires_grad]
