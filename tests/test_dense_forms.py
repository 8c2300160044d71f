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
        ({"b_dec": torch.zeros(1).half()}, "b_dec is torch.float16, not float32"),
        ({"b_dec": torch.tensor([float("nan")])}, "b_dec has NaN"),
        ({"activation": "gelu"}, "there is no activation 'gelu'"),
        ({"activation": "jumprelu"}, "activation jumprelu without thresholds"),
        ({"threshold": torch.zeros(3)}, "activation relu with thresholds"),
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
    gated = Pointwise("jumprelu", torch.tensor([0.0, 3.0, 3.0]), torch.full((3,), 2.0), torch.ones(3))
    assert gated(z).tolist() == [[-0.0, 0.0, 5.0]]  # 2 z + 1 = (-1, 2, 5)
    norms = torch.tensor([1.0, 10.0, 1.0])
    latents = torch.tensor([[1.0, 0.5, 2.0]])
    assert Kept(largest=1)(latents, norms).tolist() == [[0.0, 0.5, 0.0]]
    assert Kept(above=2)(latents, norms).tolist() == [[0.0, 0.5, 0.0]]
    assert Kept()(latents, norms).tolist() == latents.tolist()


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
    # mean / scale + b_dec = (1, 2.5)
    assert form.b_enc.tolist() == [-6.0, 7.5, -4.0]
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
