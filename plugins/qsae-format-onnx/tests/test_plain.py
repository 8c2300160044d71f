"""PlainCoder: the formula, and what torch.compile and torch.export make of it."""

from __future__ import annotations

import pathlib
import sys

import pytest
import torch
from qsae_format_onnx import PlainCoder
from torch._dynamo.testing import CompileCounter

from qsae_core.artifact.composed import compose_checkpoint
from qsae_core.conformance.toy_forms import forms, vectors
from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError, DataError
from qsae_core.plugins.records import load_plugins

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from forms import BATCHES, BY_HAND, DENSE, assert_close, twins

every_form = pytest.mark.parametrize("form", DENSE.values(), ids=DENSE)
VARIANTS = (
    "ReLU SAE",
    "TopK SAE that ranks by norm",
    "TopK SAE with signed latents",
    "JumpReLU SAE that subtracts b_dec",
    "gated SAE",
    "TopK transcoder with a skip connection",
    "JumpReLU crosscoder of two layers",
)
"""One of each part of the formula."""
every_part = pytest.mark.parametrize("form", [DENSE[name] for name in VARIANTS], ids=VARIANTS)


@pytest.mark.parametrize(
    ("more", "latents", "x_hat"),
    [
        ({}, [2.0, 1.0, 2.0], [14.0, 23.0]),  # 2 (1, 0) + (0, 1) + 2 (1, 1) + (10, 20)
        ({"k": 2}, [2.0, 0.0, 2.0], [14.0, 22.0]),
        # ranked by 2, 1, 2 sqrt(2)
        ({"k": 1, "ranks_by_norm": True}, [0.0, 0.0, 2.0], [12.0, 22.0]),
        (
            {"activation": "jumprelu", "threshold": torch.tensor([2.0, 0.5, 1.5])},
            [0.0, 1.0, 2.0],
            [12.0, 23.0],
        ),
        # x - b_dec = (-8, -19): z = (-8, -19, -28)
        ({"activation": "identity", "subtracts_b_dec": True}, [-8.0, -19.0, -28.0], [-26.0, -27.0]),
        # e^0 (z - b_enc) + b_mag = (2, 1, 3) + (-3, 1, 0), where z > 0
        (
            {"activation": "gated", "r_mag": torch.zeros(3), "b_mag": torch.tensor([-3.0, 1.0, 0.0])},
            [0.0, 2.0, 3.0],
            [13.0, 25.0],
        ),
        ({"W_skip": torch.tensor([[0.0, 1.0], [100.0, 0.0]])}, [2.0, 1.0, 2.0], [15.0, 223.0]),
    ],
    ids=["relu", "topk", "topk by norm", "jumprelu", "identity, offset", "gated", "skip"],
)
def test_by_hand(more, latents, x_hat):
    module = PlainCoder(DenseForm(**BY_HAND, **more))
    x = torch.tensor([[2.0, 1.0]])
    assert module.encode(x).tolist() == [latents]
    assert module(x).tolist() == [x_hat]


@every_form
def test_it_is_the_formula(form):
    module, x = PlainCoder(form), vectors(form)
    x_hat = form.reconstruct(x.flatten(1)).view(64, *x.shape[1:-1], -1)
    for given, rounding in ((x, 1e-14), (x.float(), 1e-5)):
        assert_close(module.encode(given), form.encode(x.flatten(1)), rounding)
        assert_close(module(given), x_hat, rounding)
        if form.W_skip is None:
            assert_close(module.decode(module.encode(given)), x_hat, rounding)
            if form.k is not None:
                assert_close(module.decode_top_k(*module.top_k(given)), x_hat, rounding)
    assert module(x.float()).dtype == module(x.bfloat16()).dtype == torch.float32
    assert module(x).dtype == torch.float64


@every_form
def test_it_is_the_coder(form):
    """But for tokens whose last latent rounding decides, of which there are none here."""
    kind = "sae" if form.W_skip is None and form.W_enc.shape[1] == form.W_dec.shape[1] else "transcoder"
    coder = compose_checkpoint(Checkpoint(form, kind), load_plugins().registry, "a toy form")
    module, x = PlainCoder(coder.form()), vectors(form).float()
    codes = coder.encode(x).to_dense()
    assert torch.equal(module.encode(x) != 0, codes != 0)
    assert_close(module.encode(x), codes)
    assert_close(module(x), coder(x))


def test_of_equal_latents_one_or_the_other_stays():
    form = twins()
    module, x = PlainCoder(form), vectors(form)
    top_acts, top_indices = module.top_k(x)
    wanted = form.encode(x)
    assert_close(top_acts.sort(1).values, wanted.topk(5, dim=1).values.sort(1).values, 1e-14)
    kept_B = [sorted(row) for row in (top_indices // 2).tolist()]
    assert kept_B == [sorted(row) for row in (wanted.topk(5, dim=1).indices // 2).tolist()]
    assert_close(module(x), form.reconstruct(x), 1e-14)


@every_part
def test_torch_compiles_it_as_one_graph_for_every_batch(form):
    torch._dynamo.reset()
    module, x = PlainCoder(form), vectors(form).float()
    for part in (module, module.encode):
        counter = CompileCounter()
        compiled = torch.compile(part, fullgraph=True, backend=counter, dynamic=True)
        for size in (64, 7):
            given = x[:size].clone()  # of a view torch asks for the size of its base as well
            assert_close(compiled(given), part(given), 1e-6)
        assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TopK transcoder with a skip connection", "gated SAE"])
def test_torch_compiles_it_to_machine_code(name):
    torch._dynamo.reset()
    module, x = PlainCoder(DENSE[name]), vectors(DENSE[name]).float()
    compiled = torch.compile(module, fullgraph=True)
    for size in BATCHES:
        assert_close(compiled(x[:size]), module(x[:size]))


@every_part
def test_torch_exports_it_with_a_batch_of_any_size(form, tmp_path):
    module, x = PlainCoder(form), vectors(form).float()
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "coder.pt2")
    loaded = torch.export.load(tmp_path / "coder.pt2").module()
    for size in BATCHES:
        assert_close(loaded(x[:size]), module(x[:size]), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["TopK SAE that ranks by norm", "gated SAE", "JumpReLU transcoder with a skip connection"]
)
def test_16_bits_are_kept_and_computed_with_in_float32(name, dtype):
    form = DENSE[name].in_dtypes(dtype)
    module, x = PlainCoder(form), vectors(form)
    assert {module.get_buffer(field).dtype for field in form.tensors()} == {dtype}
    assert_close(module.encode(x.float()), form.encode(x))
    assert_close(module(x.float()), form.reconstruct(x))


def test_buffers_are_what_the_form_has():
    form = DENSE["TopK SAE that ranks by norm"]
    module = PlainCoder(form)
    assert module.state_dict().keys() == {"W_enc", "b_enc", "W_dec", "b_dec", "W_dec_norms"}
    assert list(module.parameters()) == []
    assert module.W_enc is form.W_enc
    other = PlainCoder(
        DenseForm(*(torch.zeros_like(t) for t in form.tensors().values()), k=5, ranks_by_norm=True)
    )
    other.load_state_dict(module.state_dict())
    x = vectors(form)
    assert torch.equal(other(x), module(x))


def test_gradients_reach_the_vectors():
    form = DENSE["ReLU SAE"]
    x = vectors(form).requires_grad_()
    PlainCoder(form)(x).sum().backward()
    pre_acts = x.detach() @ form.W_enc.double().T + form.b_enc
    wanted = (form.W_dec.double().sum(1) * (pre_acts > 0)) @ form.W_enc.double()
    assert_close(x.grad, wanted, 1e-12)


def test_what_is_refused():
    with pytest.raises(ArtifactError, match="cross-layer transcoder"):
        PlainCoder(forms()["TopK cross-layer transcoder"])
    module = PlainCoder(DENSE["ReLU crosscoder of two layers"])
    with pytest.raises(DataError, match=r"\[64, 8\]") as refused:
        module(torch.zeros(64, 8))
    assert refused.value.allowed == "[B, 2, 4]"
    with pytest.raises(DataError, match="no fixed number"):
        module.top_k(torch.zeros(64, 2, 4))
