"""Dense forms by hand: the formula, what validation refuses, and what folding puts into the matrices."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from qsae_core import CoderConfig
from qsae_core.coders import LinearCoder
from qsae_core.conformance.reference_parts import PlainConfig, ReLU, plain_parts
from qsae_core.contracts import Batch, CoderShape, DenseForm, Kept, LossOutput, Pointwise
from qsae_core.errors import ArtifactError, ConfigError

FORM = DenseForm(
    W_enc=torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
    b_enc=torch.tensor([0.5, 0.0, 0.0]),
    W_dec=torch.tensor([[1.0], [10.0], [100.0]]),
    b_dec=torch.tensor([7.0]),
)
X = torch.tensor([[1.0, 1.25]])
# z = (1 + 0.5, 1.25, -1)


class PlainSAE(LinearCoder):
    """A LinearCoder with any loss."""

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


class FreeRows(PlainSAE):
    """Ranks by the norms of its atoms."""

    unit_norm_rows = False


def coder(cls=PlainSAE, k=1, **options):
    config = CoderConfig(n_latents=3, **{"normalize": "scale", "rotate": False, **options})
    return cls(config, CoderShape(2, 2), plain_parts(k=k)).eval()


@pytest.mark.parametrize(
    ("change", "latents", "output"),
    [
        ({}, [1.5, 1.25, 0.0], 1.5 + 12.5 + 7),
        ({"k": 1}, [1.5, 0.0, 0.0], 1.5 + 7),
        ({"k": 1, "ranks_by_norm": True}, [0.0, 1.25, 0.0], 12.5 + 7),  # 1.5 * 1 < 1.25 * 10
        ({"activation": "identity"}, [1.5, 1.25, -1.0], 1.5 + 12.5 - 100 + 7),
        ({"activation": "jumprelu", "threshold": torch.tensor([1.5, 1.0, -2])}, [0.0, 1.25, -1.0], 12.5 - 93),
        ({"W_skip": torch.tensor([[2.0, 4.0]])}, [1.5, 1.25, 0.0], 1.5 + 12.5 + 7 + 2 + 5),
    ],
)
def test_the_formula(change, latents, output):
    form = dataclasses.replace(FORM, **change)
    form.validate()
    assert form.encode(X).tolist() == [latents]
    assert form.reconstruct(X).item() == output
    assert form.reconstruct(X.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"b_enc": torch.zeros(2)}, "b_enc has shape \\[2\\], and the others ask for \\[3\\]"),
        ({"W_dec": torch.zeros(2, 1)}, "W_dec has shape \\[2, 1\\], and the others ask for \\[3, 1\\]"),
        ({"W_enc": torch.zeros(3)}, "W_enc has shape \\[3\\], and is a matrix"),
        ({"b_dec": torch.zeros(1).double()}, "b_dec is torch.float64, not float32, float16 or bfloat16"),
        ({"b_dec": torch.tensor([float("nan")])}, "b_dec has NaN"),
        ({"activation": "gelu"}, "there is no activation 'gelu'"),
        ({"activation": "jumprelu"}, "activation jumprelu without threshold"),
        ({"threshold": torch.zeros(3)}, "activation relu with threshold"),
        ({"activation": "gated", "r_mag": torch.zeros(3)}, "activation gated without b_mag"),
        ({"subtracts_b_dec": True}, "b_dec \\[1\\] is subtracted from vectors of width 2"),
        ({"layers": 2}, "widths 2 and 1 do not divide into 2 layers"),
        ({"k": 4}, "k is 4, with 3 latents"),
        ({"k": 0}, "k is 0"),
        ({"W_skip": torch.zeros(2, 1)}, "W_skip has shape \\[2, 1\\], and the others ask for \\[1, 2\\]"),
    ],
)
def test_what_is_no_dense_form_is_refused(change, fault):
    with pytest.raises(ArtifactError, match=fault) as caught:
        dataclasses.replace(FORM, **change).validate("some.file")
    assert caught.value.where == "some.file"


def test_no_latents_are_refused():
    form = DenseForm(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 2), torch.zeros(2))
    with pytest.raises(ArtifactError, match="no latents"):
        form.validate()


def test_the_words_for_activations_and_rules():
    z = torch.tensor([[-1.0, 0.5, 2.0]])
    jump = Pointwise("jumprelu", torch.tensor([0.0, 0.5, 1.0]))
    assert jump(z).tolist() == [[-0.0, 0.0, 2.0]]
    twice = torch.full((3,), 2.0).log()
    gated = Pointwise("gated", r_mag=twice, b_mag=torch.tensor([9.0, -2.0, 1.0]), b_gate=torch.ones(3))
    assert gated(z).tolist() == [
        [0.0, 0.0, pytest.approx(3.0)]
    ]  # 2 (z - 1) + b_mag = (5, -3, 3), open: 2 and 3
    norms = torch.tensor([1.0, 10.0, 1.0])
    latents = torch.tensor([[1.0, 0.5, 2.0]])
    assert Kept(largest=1)(latents, norms).tolist() == [[0.0, 0.5, 0.0]]
    assert Kept(above=2)(latents, norms).tolist() == [[0.0, 0.5, 0.0]]
    assert Kept()(latents, norms).tolist() == latents.tolist()


GATED = DenseForm(
    W_enc=torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
    b_enc=torch.tensor([1.0, -1.0, 0.0]),
    W_dec=torch.eye(3)[:, :2],
    b_dec=torch.tensor([1.0, 2.0]),
    activation="gated",
    r_mag=torch.tensor([0.0, 1.0, -1.0]),
    b_mag=torch.tensor([-0.5, 0.5, 3.0]),
    subtracts_b_dec=True,
)
VARIANTS = {
    "gated": GATED,
    "gated, nothing subtracted": dataclasses.replace(GATED, subtracts_b_dec=False),
    "relu": dataclasses.replace(GATED, activation="relu", r_mag=None, b_mag=None),
    "bfloat16": GATED.in_dtypes(torch.bfloat16),
}


@pytest.mark.parametrize("form", VARIANTS.values(), ids=VARIANTS)
def test_one_function_written_in_several_ways(form):
    form.validate()
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    latents, output = form.encode(x), form.reconstruct(x)
    assert 0.2 < (latents > 0).double().mean() < 0.8
    plain = form.plain()
    assert (plain.activation, plain.subtracts_b_dec) == (form.activation.replace("gated", "jumprelu"), False)
    assert {tensor.dtype for tensor in plain.tensors().values()} == {torch.float32}
    wide = form.in_dtypes(torch.float32)
    for other in (plain, wide.with_offset(True), wide.with_offset(False)):
        torch.testing.assert_close(other.encode(x), latents, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(other.reconstruct(x), output, rtol=1e-6, atol=1e-6)
    assert form.with_offset(form.subtracts_b_dec) is form


def test_the_gate_by_hand():
    x = torch.tensor([[3.0, 1.0]])
    # x - b_dec = (2, -1); without b_gate z = (2, -2, 1); gates (3, -3, 1) > 0; 2 - .5 and e^-1 1 + 3
    assert GATED.encode(x).tolist() == [[1.5, 0.0, pytest.approx(3 + 2.718281828**-1)]]


def test_b_dec_of_another_width_cannot_be_subtracted():
    with pytest.raises(ArtifactError, match="another width"):
        FORM.with_offset(True)


def test_folding_by_hand():
    """W ((x - mean) / scale - b_dec) + b_enc = W / scale x + (b_enc - W (mean / scale + b_dec))."""
    sae = coder()
    with torch.no_grad():
        sae.norm_in.mean.copy_(torch.tensor([1.0, 3.0]))
        sae.norm_in.scale.fill_(2.0)
        sae.W_enc.master.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0], [4.0, 0.0]]))
        sae.W_dec.master.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        sae.b_enc.copy_(torch.tensor([0.0, 10.0, 0.0]))
        sae.b_dec.copy_(torch.tensor([0.5, 1.0]))
    form = sae.dense()
    assert form.W_enc.tolist() == [[0.5, 1.0], [0.0, 0.5], [2.0, 0.0]]
    # b_dec as the data has it is scale b_dec + mean = (2, 5)
    assert (form.b_enc.tolist(), form.subtracts_b_dec) == ([0.0, 10.0, 0.0], True)
    # mean / scale + b_dec = (1, 2.5)
    assert form.plain().b_enc.tolist() == [-6.0, 7.5, -4.0]
    sae.subtract_b_dec = False
    moved = sae.dense()
    assert (moved.b_enc.tolist(), moved.subtracts_b_dec) == (
        [-3.5, 8.5, -2.0],
        False,
    )  # mean / scale = (.5, 1.5)
    assert torch.equal(form.W_dec, 2 * sae.W_dec.master)
    assert form.b_dec.tolist() == [0.5 * 2 + 1, 1.0 * 2 + 3]
    assert (form.activation, form.k, form.ranks_by_norm, form.W_skip) == ("relu", 1, False, None)


def test_rows_of_any_norm_rank_by_it():
    assert coder(FreeRows).dense().ranks_by_norm


class Doubled(ReLU):
    """Of no other library."""

    def pointwise(self):
        return None


class OwnDecoder(PlainSAE):
    """Decodes in its own way."""

    def decode_normalized(self, codes, W_dec_FE):
        return 2 * super().decode_normalized(codes, W_dec_FE)


def test_what_has_no_dense_form_says_why():
    with pytest.raises(ConfigError, match="OwnDecoder has no dense form: it defines 'decode_normalized'"):
        coder(OwnDecoder).dense()
    parts = plain_parts(activation=lambda n: Doubled(PlainConfig(), n))
    config = CoderConfig(n_latents=8, normalize="none", rotate=False)
    with pytest.raises(ConfigError, match="no activation 'Doubled'"):
        PlainSAE(config, CoderShape(2, 2), parts).dense()


def test_a_bias_that_takes_over_the_share_of_b_dec_is_not_rounded_to_16_bits():
    """300 entries of 300 times 300 are beyond float16, and 8 bits of bfloat16 would lose the small bias."""
    rows = torch.full((2, 300), 300.0)
    form = DenseForm(rows, torch.tensor([1.0, 2.0]), rows.clone(), torch.full((300,), 300.0))
    for dtype in (torch.float16, torch.bfloat16):
        moved = form.in_dtypes(dtype).with_offset(True)
        assert moved.b_enc.tolist() == [27_000_001.0 // 2 * 2, 27_000_002.0]  # float32 has even ones there
        assert moved.W_enc.dtype == dtype
