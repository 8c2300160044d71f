"""The form of a cross-layer transcoder that other libraries hold. Shapes: B tokens, L layers, D, E widths."""

import dataclasses

import pytest
import torch
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.model import CrossLayerTranscoder

from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape, CrossLayerForm, LayerForm
from qsae_core.errors import ArtifactError, ConfigError

X = torch.tensor([[[1.0, 2.0], [3.0, 1.0]]])
BY_HAND = CrossLayerForm(
    (
        LayerForm(
            torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
            torch.tensor([0.5, 0.0]),
            torch.tensor([[[1.0], [10.0]], [[2.0], [20.0]]]),
            torch.tensor([100.0]),
            W_skip=torch.tensor([[0.0, 1.0]]),
        ),
        LayerForm(
            torch.tensor([[-1.0, 0.0], [1.0, 1.0]]),
            torch.tensor([0.0, -1.0]),
            torch.tensor([[[5.0]], [[7.0]]]),
            torch.tensor([1000.0]),
            W_skip=torch.tensor([[2.0, 0.0]]),
        ),
    ),
)
NO_SKIP = dataclasses.replace(BY_HAND.layers[1], W_skip=None)


def test_the_formula_by_hand():
    BY_HAND.validate()
    assert (BY_HAND.n_latents, BY_HAND.widths) == (4, (2, 1, 2, 2))
    assert BY_HAND.encode(X).tolist() == [[1.5, 2.0, 0.0, 3.0]]
    # 1.5 + 4 + 100 + skip 2; 15 + 40 + 21 + 1000 + skip 6
    assert BY_HAND.reconstruct(X).tolist() == [[[107.5], [1082.0]]]
    one = dataclasses.replace(BY_HAND, k=1)
    assert one.encode(X).tolist() == [[0.0, 2.0, 0.0, 3.0]]


def trained(skip, **options):
    """Initialised on data with means and scales of its own, biases moved."""
    torch.manual_seed(0)
    config = CrossLayerConfig(n_latents=24, skip=skip, **options)
    coder = CrossLayerTranscoder(config, CoderShape(6, 4, 3, 3), plain_parts(k=4))
    batch = Batch(5 * torch.randn(200, 3, 6) + 3, 2 * torch.randn(200, 3, 4) - 1)
    coder.initialize(batch)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return coder.eval(), batch.x


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("normalize", ["none", "scale"])
def test_the_form_computes_what_the_coder_does(skip, rotate, normalize):
    coder, x = trained(skip, rotate=rotate, normalize=normalize)
    form = coder.form()
    codes = coder.encode(x)
    torch.testing.assert_close(form.encode(x.double()).float(), codes.to_dense(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        form.reconstruct(x.double()).float(), coder.decode(codes), rtol=1e-4, atol=1e-4
    )
    config = CrossLayerConfig(n_latents=24, skip=skip, rotate=False, normalize="none")
    other = CrossLayerTranscoder(config, coder.shape, plain_parts(k=4))
    other.take_form(form)
    again = other.form()
    assert again.tensors().keys() == form.tensors().keys()
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in form.tensors().items())
    torch.testing.assert_close(other(x), coder(x), rtol=1e-4, atol=1e-4)


def test_it_has_no_dense_form():
    coder, _ = trained(False)
    with pytest.raises(ConfigError, match="more than one encoder and one decoder"):
        coder.dense()
    with pytest.raises(ConfigError, match="an encoder and a decoder for each layer"):
        coder.take_form(None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layers": ()}, "it has no layers"),
        ({"activation": "gated"}, "there is no activation 'gated'"),
        ({"k": 3}, "k is 3, with 2 latents of a layer"),
        ({"activation": "jumprelu"}, "the jumprelu of layer 0 has no threshold"),
        (
            {"layers": BY_HAND.layers[:1]},
            r"W_dec of layer 0 has shape \[2, 2, 1\], and the others ask for \[2, 1, 1\]",
        ),
        (
            {"layers": (BY_HAND.layers[0], dataclasses.replace(BY_HAND.layers[1], W_skip=None))},
            "only some layers",
        ),
    ],
)
def test_what_is_no_cross_layer_form(change, fault):
    with pytest.raises(ArtifactError, match=fault):
        dataclasses.replace(BY_HAND, **change).validate()
