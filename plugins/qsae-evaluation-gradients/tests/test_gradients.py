"""Gradients by hand, straight-through gradients of known losses, and what has to be left as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from qsae_evaluation_gradients import GradientsConfig, grid
from qsae_evaluation_gradients.differences import cosine, mismatch
from qsae_evaluation_gradients.evaluation import Gathered
from qsae_evaluation_gradients.findings import _jackknife
from qsae_evaluation_gradients.trainable import Trainable, why_not
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste
from torch import Tensor

from qsae_core import CoderConfig
from qsae_core.coders import CoderSet, LinearCoder
from qsae_core.coders.serving import StoredMasters
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts import Batch, CoderShape, LossOutput, Observation, Parts, Result
from qsae_core.kernels import squared_error

WIDTH, LATENTS = 8, 16


class Sae(LinearCoder):
    """Squared error alone."""

    def loss(self, batch: Batch) -> LossOutput:
        x, codes, x_hat, _, _ = self.training_pass(batch)
        return LossOutput({"mse": squared_error(x, x_hat)}, codes, x, x_hat)


class Counting(Sae):
    """The loss is multiplied by one buffer, which backward needs as it was, and by a count of losses."""

    times: Tensor
    count: Tensor

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.register_buffer("times", torch.ones(()))
        self.register_buffer("count", torch.ones(()))

    def loss(self, batch: Batch) -> LossOutput:
        out = super().loss(batch)
        terms = {name: term * self.times * float(self.count) for name, term in out.terms.items()}
        self.count += 1
        return out._replace(terms=terms)


class Linear(LinearCoder):
    """``sum a W_dec + sum of the mean of x times b_dec``: linear in both, and in nothing else."""

    def loss(self, batch: Batch) -> LossOutput:
        x, codes, x_hat, _, W_dec = self.training_pass(batch)
        terms = {"weights": (direction() * W_dec.dense()).sum(), "bias": (batch.x.mean(0) * self.b_dec).sum()}
        return LossOutput(terms, codes, x, x_hat)


def direction() -> Tensor:
    """a: what the linear loss multiplies the weights by."""
    return torch.randn(LATENTS, WIDTH, generator=torch.Generator().manual_seed(9))


def vectors(n: int = 48) -> Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1))


def made(kind: type[LinearCoder] = Sae, **options: Any) -> LinearCoder:
    """A coder in evaluation mode; its decoder goes through ``ste`` with these options, if there are any."""
    parts = plain_parts(k=4)
    if options:
        parts = parts._replace(quantizer=lambda shape: Ste(SteConfig(**options), shape))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        coder = kind(CoderConfig(n_latents=LATENTS), CoderShape(WIDTH, WIDTH), parts)
        coder.initialize(Batch(vectors(), vectors()))
    return coder.eval()


def seen(coder: LinearCoder, x: Tensor, first: int | None = None) -> Observation:
    with torch.no_grad():
        codes = coder.encode(x)
        return Observation(x, coder.decode(codes), codes, coder.atom_norms(), inputs=x, first=first)


def gathered(coder: LinearCoder, *parts: Tensor, **options: Any) -> Gathered:
    accumulator = Gathered(GradientsConfig(**{"batch": 16, "tokens": 48, "directions": 3} | options), coder)
    for part in parts:
        accumulator.update(seen(coder, part))
    return accumulator


def result(coder: LinearCoder, x: Tensor | None = None, **options: Any) -> Result:
    with torch.no_grad():  # as core asks
        return gathered(coder, vectors() if x is None else x, **options).result()


def test_mismatch_and_cosine_by_hand() -> None:
    one, three_four = torch.tensor([2.0, 0.0]), torch.tensor([3.0, 4.0])
    assert mismatch(three_four, three_four) == 0
    assert mismatch(three_four, torch.zeros(2)) == 1
    assert mismatch(one, torch.tensor([1.0, 0.0])) == 1 / 2
    assert mismatch(torch.zeros(2), one) is None
    assert cosine(one, three_four) == pytest.approx(3 / 5)
    assert cosine(one, torch.zeros(2)) is None


def test_the_jackknife_by_hand() -> None:
    """Of a mean of n numbers it is the usual standard error: 1, 2, 6 have the variance 7."""
    x = torch.tensor([1.0, 2.0, 6.0])
    without = [float((x.sum() - each) / 2) for each in x]
    assert _jackknife(without) == pytest.approx(math.sqrt(7 / 3))
    assert _jackknife([1.0, None]) is None
    assert _jackknife([]) is None


@pytest.mark.parametrize("kind", [Sae, Linear])
def test_without_a_quantizer_there_is_no_mismatch(kind: type[LinearCoder]) -> None:
    found = result(made(kind), perturbation=1e-3).values
    assert found["ste_mismatch"] == pytest.approx(0, abs=2e-3)
    assert found["ste_cosine"] == pytest.approx(1, abs=1e-5)
    assert found["flip_mismatch"] == pytest.approx(0, abs=2e-3)
    assert found["passed_cosine"] == pytest.approx(1)
    assert found["saturated_share"] is None
    assert found["near_boundary_share"] is None


def test_a_wrong_gradient_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the gradient: a mismatch of 1, whatever the directions are."""
    gradients = Trainable.gradients
    monkeypatch.setattr(
        Trainable, "gradients", lambda self, b: {n: 2 * g for n, g in gradients(self, b).items()}
    )
    assert result(made(Linear)).values["ste_mismatch"] == pytest.approx(1, abs=1e-2)


def test_the_slope_of_a_linear_loss_is_that_of_its_flips() -> None:
    """The loss is <a, Q(w)>: G = a, what it changes by is <a, change of Q>, and g = a is only near to it."""
    found = result(made(Linear, grid="ternary"), directions=6)
    assert found.values["flip_mismatch"] == pytest.approx(0, abs=1e-3)
    assert found.values["passed_cosine"] == pytest.approx(1)  # ternary grids hand all gradients on
    assert found.values["clipped_share"] == 0
    mismatched = found.values["ste_mismatch"]
    assert mismatched is not None
    assert mismatched > 0.1
    assert found.baseline["ste_mismatch"] == pytest.approx(0, abs=1e-3)
    assert found.chance["ste_mismatch"] == 1
    assert found.uncertainty["ste_mismatch"] is not None
    assert found.uncertainty["ste_mismatch"] > 0


def test_fine_grids_have_a_smaller_mismatch_than_coarse_ones() -> None:
    """Moved by many steps of the grid, a weight's rounded value moves as the weight itself."""
    of_bits = [
        result(made(Linear, n_bits=n_bits, scale="absmax"), directions=8, perturbation=0.05)
        for n_bits in (2, 4, 8)
    ]
    coarse, middle, fine = (found.values["ste_mismatch"] for found in of_bits)
    assert coarse is not None
    assert middle is not None
    assert fine is not None
    assert coarse > middle > fine
    assert fine < 0.2


def test_norms_by_hand() -> None:
    """The gradient of W_dec is a, that of b_dec the batch's mean: (1, 0, ...) and (0, 1, ...)."""
    x = torch.eye(WIDTH)[:2]
    found = result(made(Linear), x, batch=1, tokens=2)
    a = float(direction().square().sum())
    assert found.values["grad_norm"] == pytest.approx(math.sqrt(a + 1), rel=1e-5)
    # mean ||g||^2 = a + 1, ||mean g||^2 = a + 1/2: twice the difference is noise
    assert found.values["noise_share"] == pytest.approx(1 / (a + 1), rel=1e-3)
    norms = {row[0]: row[2] for row in found.tables["parameters"].rows}
    assert norms["W_dec.weight"] == pytest.approx(math.sqrt(a), rel=1e-5)
    assert norms["b_dec"] == pytest.approx(1)
    assert (norms["b_enc"], norms["W_enc.weight"]) == (0, 0)
    rows = found.per_latent["grad_norm"]
    assert rows.tolist() == pytest.approx(direction().norm(dim=1).tolist(), rel=1e-5)


def with_rows(rows: list[list[float]], **options: Any) -> LinearCoder:
    """A coder with these first rows of the decoder, and zeros."""
    coder = made(**options)
    with torch.no_grad():
        coder.W_dec.master.zero_()
        for row, values in zip(coder.W_dec.master, rows, strict=False):
            row[: len(values)] = torch.tensor(values)
    return coder.train().eval()


def test_weights_at_the_ends_by_hand() -> None:
    """With scale 1: 1, 0, -1, 0 and four zeros. Rows of scale 0 are at no end."""
    matrix = with_rows([[1.0, 0.1, -1.0, 0.0]], grid="ternary", scale="absmax").W_dec
    at_ends = grid.saturated(matrix)
    assert at_ends is not None
    assert at_ends[0].tolist() == [True, False, True, *[False] * 5]
    assert not at_ends[1:].any()
    assert grid.saturated(made(grid="binary").W_dec) is None  # every weight is


def test_weights_near_a_boundary_by_hand() -> None:
    """With scale 1 the boundary is at 1/2, and moves by 0.05 with the scale: 0.47 + 0.1 is past it."""
    matrix = with_rows([[1.0, 0.47, -1.0, 0.05]], grid="ternary", scale="absmax").W_dec
    before = matrix.master.detach().clone()
    near = grid.near_boundary(matrix, 0.1, seed=0)
    assert near is not None
    assert near[0, :4].tolist() == [False, True, False, False]
    assert torch.equal(matrix.master, before)
    smaller = grid.near_boundary(matrix, 0.01, seed=0)
    assert smaller is not None
    assert not smaller[0, :4].any()


def test_clipped_weights_are_those_beyond_the_grid() -> None:
    """Two bits reach as far as two steps on either side of 0."""
    coder = made(Linear, n_bits=2)
    found = result(coder)
    lookup = coder.W_dec.quantizer.lookup(coder.W_dec.pack())
    assert lookup is not None
    beyond = coder.W_dec.master.abs() > 2 * lookup.scales[:, None]
    assert 0 < int(beyond.sum()) < beyond.numel()
    assert found.values["clipped_share"] == pytest.approx(float(beyond.double().mean()))
    a = direction()
    passed = float(a[~beyond].norm() / a.norm())  # cos(a without these, a)
    assert found.values["passed_cosine"] == pytest.approx(passed, rel=1e-5)


def same(a: Result, b: Result) -> None:
    for kind in ("values", "baseline", "uncertainty"):
        assert getattr(a, kind) == getattr(b, kind), kind
    assert a.tables == b.tables
    for name, column in b.per_latent.items():
        assert torch.equal(a.per_latent[name], column)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_does_not_matter(size: int) -> None:
    coder = made(n_bits=4)
    same(gathered(coder, *vectors(50).split(size)).result(), gathered(coder, vectors(50)).result())


def test_each_loss_begins_with_the_same_counters() -> None:
    trained = Trainable(made(Counting), seed=0)
    batch = Batch(vectors(), vectors())
    first = trained.loss(batch)
    assert trained.loss(batch) == first
    trained.gradients(batch)
    assert trained.loss(batch) == first


def test_parts_merge_into_the_whole() -> None:
    coder, x = made(n_bits=4), vectors()
    late = gathered(coder)
    late.update(seen(coder, x[30:], first=30))
    early = gathered(coder)
    early.update(seen(coder, x[:30], first=0))
    late.merge(early)
    same(late.result(), gathered(coder, x).result())


def test_tokens_beyond_the_first_ones_are_not_kept() -> None:
    coder = made(n_bits=4)
    found = gathered(coder, vectors(40), vectors(40), tokens=50, batch=20)
    assert sum(len(piece.x) for piece in found.pieces) == 50
    assert [len(batch) for batch in found.batches()] == [20, 20]
    assert [len(batch) for batch in gathered(coder, vectors(5), batch=20).batches()] == [5]
    nothing = gathered(coder).result().values
    assert nothing["n_tokens"] == nothing["n_batches"] == 0
    assert {v for n, v in nothing.items() if not n.startswith("n_")} == {None}


def test_the_coder_is_left_as_it_is() -> None:
    coder = made(n_bits=4)
    before = {name: tensor.clone() for name, tensor in coder.state_dict().items()}
    out, state = coder(vectors()), torch.random.get_rng_state()
    result(coder)
    after = coder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(coder(vectors()), out)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not coder.training
    assert all(p.grad is None for p in coder.parameters())


def loaded(coder: LinearCoder, masters: StoredMasters | None) -> LinearCoder:
    """The coder as an artifact gives it back."""
    found = type(coder)(coder.config, coder.shape, coder.parts)
    found.restore(coder.export())
    found.masters = masters
    return found


def test_what_is_missing_in_an_artifact_without_masters_and_what_keeps_it() -> None:
    coder = made(n_bits=4)
    for masters in (None, StoredMasters("somewhere", None)):
        reason = why_not(loaded(coder, masters))
        assert reason is not None
        assert "the float masters of W_enc, W_dec, and the state of the loss, were not kept" in reason
        assert "--save-float" in reason
    state = {name: tensor.clone() for name, tensor in coder.state_dict().items()}
    kept = loaded(coder, StoredMasters("somewhere", state.__getitem__))
    assert why_not(kept) is None
    same(result(kept), result(coder))


def test_a_lower_level_and_a_set_of_coders_say_why_not() -> None:
    coder = made(n_bits=4)
    state = dict(coder.state_dict())
    lower = coder.at_level(2)
    assert isinstance(lower, LinearCoder)
    lower.masters = StoredMasters("somewhere", state.__getitem__)
    assert "at a lower level" in str(why_not(lower))
    assert "each layer has a coder of its own" in str(why_not(CoderSet({"0": made(), "1": made()})))
