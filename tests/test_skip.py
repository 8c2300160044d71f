"""Skip connections: what decode needs besides latents, through cutting, files, levels and quantization.

Worked by hand with two inputs, one output and two latents.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qsae_core.coder_options import CoderConfig, NestedConfig, TranscoderConfig
from qsae_core.coders.linear import LinearCoder
from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape, LossOutput, SparseCodes
from qsae_core.contracts.codes import concatenate, join_latents, split_latents
from qsae_core.errors import DataError


class Transcoder(LinearCoder):
    is_autoencoder = unit_norm_rows = subtract_b_dec = False

    def loss(self, batch: Batch) -> LossOutput:
        _, codes, y_hat, _, _ = self.training_pass(batch)
        y = self.norm_out(batch.y)
        return LossOutput({"mse": (y - y_hat).square().sum(1).mean()}, codes, y, y_hat)


class NestedSkip(TranscoderConfig, NestedConfig):
    """Both."""


def make(config: CoderConfig, shape: tuple[int, int] = (2, 1), k: int = 1) -> Transcoder:
    torch.manual_seed(0)
    return Transcoder(config, CoderShape(*shape), plain_parts(k=k))


def by_hand(skip: bool = True) -> Transcoder:
    coder = make(TranscoderConfig(n_latents=2, normalize="none", skip=skip)).eval()
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[2.0], [1.0]]))
        coder.b_dec.fill_(0.5)
        if coder.W_skip is not None:
            coder.W_skip.copy_(torch.tensor([[10.0, 100.0]]))
    return coder


X = torch.tensor([[2.0, 1.0], [1.0, -3.0]])
"""Latent 0 is 3 for the first (3 ||2|| > 1 ||1||), latent 1 is 4 for the second."""


def test_decode_adds_what_goes_past_the_latents() -> None:
    coder = by_hand()
    codes = coder.encode(X)
    assert coder.has_skip
    assert codes.inputs is X
    # 3 * 2 + 0.5 + 10 * 2 + 100 * 1; and 4 * 1 + 0.5 + 10 * 1 - 100 * 3
    assert coder.decode(codes).tolist() == [[126.5], [-285.5]]
    assert torch.equal(coder(X), coder.decode(codes))
    without = by_hand(skip=False)
    assert not without.has_skip
    assert without.encode(X).inputs is None
    assert without(X).tolist() == [[6.5], [4.5]]


def test_it_is_zero_at_the_start_and_learns() -> None:
    coder = make(TranscoderConfig(n_latents=8, skip=True), (6, 3), k=2)
    data = torch.Generator().manual_seed(1)
    x = torch.randn(512, 6, generator=data)
    batch = Batch(x, x @ torch.randn(6, 3, generator=data))
    coder.initialize(batch)
    assert coder.W_skip is not None
    assert coder.W_skip.shape == (3, 6)
    assert not coder.W_skip.any()
    optimizer = torch.optim.Adam(coder.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        coder.loss(batch).terms["mse"].backward()
        optimizer.step()
    # a linear target is the skip connection's alone: what is left is what the latents disturb
    assert coder.loss(batch).terms["mse"] < 0.02 * 3


def test_both_sides_have_a_normalisation_of_their_own() -> None:
    coder = make(TranscoderConfig(n_latents=4, rotate=True, skip=True), (4, 2), k=1)
    x = 3 + 5 * torch.randn(200, 4)
    coder.initialize(Batch(x, 7 - 2 * x[:, :2]))
    coder.eval()
    with torch.no_grad():
        coder.W_dec.weight.zero_()
        coder.b_dec.zero_()
        assert coder.W_skip is not None
        coder.W_skip.normal_()
        z = ((x - coder.norm_in.mean) / coder.norm_in.scale) @ coder.norm_in.direction(torch.eye(4))
        y = (z @ coder.W_skip.T) @ coder.norm_out.direction(torch.eye(2)).T
        expected = y * coder.norm_out.scale + coder.norm_out.mean
        torch.testing.assert_close(coder(x), expected)


def test_codes_without_inputs_are_refused_with_what_to_do() -> None:
    coder = by_hand()
    codes = coder.encode(X)
    with pytest.raises(DataError, match="no inputs, and the decoder has a skip connection") as caught:
        coder.decode(replace(codes, inputs=None))
    assert "dataclasses.replace(codes, inputs=x)" in str(caught.value)
    with pytest.raises(DataError, match="1 inputs for 2 tokens"):
        coder.decode(replace(codes, inputs=X[:1]))
    assert torch.equal(coder.decode(replace(codes, inputs=X.double())), coder(X))
    by_hand(skip=False).decode(replace(codes, inputs=None))


def test_inputs_go_with_the_codes_wherever_they_go() -> None:
    coder = by_hand()
    codes = coder.encode(X)
    expected = coder(X)
    assert torch.equal(coder.decode(codes.first(1)), expected[:1])
    assert torch.equal(coder.decode(codes.first(5)), expected)
    assert torch.equal(coder.decode(codes.detach()), expected)
    assert torch.equal(coder.decode(codes.to("cpu")), expected)
    doubled = codes.with_values(2 * codes.values)
    assert coder.decode(doubled).tolist() == [[132.5], [-281.5]]
    parts = [coder.encode(x) for x in X.split(1)]
    assert torch.equal(coder.decode(concatenate(parts)), expected)
    assert concatenate([parts[0], replace(parts[1], inputs=None)]).inputs is None
    groups = split_latents(codes, [1, 2])
    assert all(group.inputs is X for group in groups)
    assert torch.equal(coder.decode(join_latents(groups)), expected)
    assert codes.to("meta").inputs.is_meta  # type: ignore[union-attr]
    assert SparseCodes.from_dense(codes.to_dense()).inputs is None
    x = X.clone().requires_grad_()
    assert not coder.encode(x).detach().inputs.requires_grad  # type: ignore[union-attr]


def test_the_dense_form_has_it_in_the_space_of_the_data() -> None:
    coder = make(TranscoderConfig(n_latents=8, rotate=True, skip=True), (4, 2), k=2)
    x = 3 + 5 * torch.randn(200, 4)
    coder.initialize(Batch(x, 7 - 2 * x[:, :2]))
    coder.eval()
    with torch.no_grad():
        assert coder.W_skip is not None
        coder.W_skip.normal_()
        dense = coder.dense()
        assert dense.W_skip is not None
        torch.testing.assert_close(dense.reconstruct(x.double()).float(), coder(x))
        # what the output changes by where the latents stay the same
        codes = coder.encode(x)
        moved = coder.decode(replace(codes, inputs=x + 1)) - coder.decode(codes)
        torch.testing.assert_close(moved, dense.W_skip.sum(1).expand_as(moved), rtol=1e-3, atol=1e-3)


def test_every_level_has_the_skip_connection_whole() -> None:
    config = NestedSkip(n_latents=6, group_sizes=(2, 4), skip=True)
    coder = make(config, (4, 3), k=2)
    x = torch.randn(100, 4)
    coder.initialize(Batch(x, x @ torch.randn(4, 3)))
    coder.eval()
    with torch.no_grad():
        assert coder.W_skip is not None
        coder.W_skip.normal_()
    small = coder.at_level(1)
    assert isinstance(small, Transcoder)
    assert torch.equal(small.W_skip, coder.W_skip)  # type: ignore[arg-type]
    assert "W_skip" not in coder.export().cuts
    assert torch.equal(small.decode(small.encode(x)), small(x))


def test_calibration_leaves_the_part_of_the_skip_connection_out() -> None:
    coder = by_hand()
    y: Tensor = coder(X).detach()
    # of an exact output, what is left to the latents is f W_dec: 3 * 2 and 4 * 1
    ((name, calibration),) = coder.calibrations(Batch(X, y), coder.encode(X))
    assert (name, calibration.target.tolist()) == ("W_dec", [[6.0], [4.0]])
