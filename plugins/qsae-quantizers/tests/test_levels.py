"""Reading the first bit planes alone: by hand, and that the error falls with each plane."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste

from qsae_core.contracts.quantizer import Packed

QUANTIZERS = {
    f"{n_bits} bits{' in groups' if group else ''}": lambda shape, n_bits=n_bits, group=group: Ste(
        SteConfig(n_bits=n_bits, **group), shape
    )
    for n_bits in (2, 3, 4, 8)
    for group in ({}, {"granularity": "group", "group_size": 64})
}


def read(quantizer, packed, level):
    """The matrix at a precision, from tensors cut along level_dims as a file gives them."""
    dims = quantizer.level_dims(packed)
    cut = {n: t.narrow(dims[n], 0, level).clone() if n in dims else t for n, t in packed.tensors.items()}
    layout = json.loads(json.dumps(packed.layout))
    return quantizer.unpack(quantizer.at_level(Packed(cut, packed.shape, layout), level))


def test_planes_by_hand():
    # step 1 and three bits: bins -4, -1, 0, 2, 3; the first two planes join them to -2, -1, 0, 1, 1 with
    # points -1.5, -0.5, 0.5, 1.5, 1.5 of twice the step: -3, -1, 1, 3, 3
    weight = torch.tensor([[-3.5, -0.5, 0.5, 2.5, 3.5]])
    quantizer = Ste(SteConfig(n_bits=3, scale="absmax"), (1, 5)).eval()
    packed = quantizer.pack(weight)
    assert quantizer.levels == 3
    assert quantizer.level_dims(packed) == {"codes": 0}
    # <w, c> / <c, c> = (10.5 + .5 + .5 + 7.5 + 10.5) / (9 + 1 + 1 + 9 + 9) = 29.5 / 29 of twice the step
    # and one plane: -1, -1, 1, 1, 1 of twice the step: (3.5 + .5 + .5 + 2.5 + 3.5) / 5 = 2.1
    assert packed.layout["level_scales"] == [
        pytest.approx(4.2, abs=1e-4),
        pytest.approx(59 / 29, abs=1e-4),
        1.0,
    ]
    assert read(quantizer, packed, 3).tolist() == weight.tolist()
    two = torch.tensor([[-1.5, -0.5, 0.5, 1.5, 1.5]]) * (59 / 29)
    torch.testing.assert_close(read(quantizer, packed, 2), two, rtol=1e-5, atol=0)
    one = torch.tensor([[-2.1, -2.1, 2.1, 2.1, 2.1]])
    torch.testing.assert_close(read(quantizer, packed, 1), one, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("kind", ["gauss", "student", "rows of many sizes"])
def test_the_error_falls_with_every_plane(name, kind):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(100, 256, generator=generator)
    if kind == "student":
        weight = weight / torch.randn(100, 5, generator=generator).square().mean(1, keepdim=True).sqrt()
    if kind == "rows of many sizes":
        weight = weight * 10.0 ** torch.linspace(-4, 4, 100)[:, None]
    quantizer = QUANTIZERS[name]((100, 256)).eval()
    packed = quantizer.pack(weight)
    errors = []
    for level in range(1, quantizer.levels + 1):
        w_hat = read(quantizer, packed, level)
        errors.append((weight.double() - w_hat.double()).square().sum().item())
        some = quantizer.at_level(packed, level)
        assert torch.equal(quantizer.lookup(some).matrix(), w_hat)
        assert torch.equal(quantizer.unpack_rows(some, torch.tensor([7, 2])), w_hat[[7, 2]])
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(errors))
    assert torch.equal(w_hat, quantizer.fake_quantize(weight))


def test_low_levels_of_gaussian_rows_are_nearly_as_good_as_their_own_grids():
    # signs lose .363 at least; two planes of a grid made for four bits cannot lose less than .1185
    weight = torch.randn(100, 512, generator=torch.Generator().manual_seed(0))
    quantizer = Ste(SteConfig(n_bits=4), (100, 512)).eval()
    packed = quantizer.pack(weight)
    cosines = [torch.cosine_similarity(weight, read(quantizer, packed, i)) for i in range(1, 5)]
    shares = [(1 - cosine.square()).mean().item() for cosine in cosines]
    assert shares[0] == pytest.approx(0.363, abs=0.003)
    assert 0.118 < shares[1] < 0.15
    assert 0.037 < shares[2] < 0.045
    assert shares[3] < 0.0116


def test_a_level_can_be_cut_again():
    weight = torch.randn(9, 20, generator=torch.Generator().manual_seed(0))
    quantizer = Ste(SteConfig(n_bits=4), (9, 20)).eval()
    packed = quantizer.pack(weight)
    again = quantizer.at_level(quantizer.at_level(packed, 3), 2)
    assert torch.equal(quantizer.unpack(again), read(quantizer, packed, 2))


@pytest.mark.parametrize("options", [{}, {"grid": "binary"}, {"n_bits": 1}])
def test_one_plane_and_trits_have_one_level(options):
    quantizer = Ste(SteConfig(**options), (4, 9)).eval()
    packed = quantizer.pack(torch.randn(4, 9))
    assert quantizer.levels == 1
    assert quantizer.level_dims(packed) == {}
    assert quantizer.at_level(packed, 1) is packed


@pytest.mark.parametrize("level", [0, 4])
def test_a_level_that_is_not_there_is_refused(level):
    quantizer = Ste(SteConfig(n_bits=3), (4, 9)).eval()
    with pytest.raises(ValueError, match=f"precision {level} of 3"):
        quantizer.at_level(quantizer.pack(torch.randn(4, 9)), level)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_bits": 4},
        {"n_bits": 4, "granularity": "tensor"},
        {"n_bits": 4, "granularity": "group", "group_size": 3},
    ],
)
@pytest.mark.parametrize("n_rows", [4, 7])  # as many rows as planes, too
def test_the_first_rows_of_the_packed_form_are_those_of_the_matrix(options, n_rows):
    quantizer = Ste(SteConfig(**options), (n_rows, 12)).eval()
    packed = quantizer.pack(torch.randn(n_rows, 12, generator=torch.Generator().manual_seed(0)))
    dims = quantizer.row_dims(packed)
    cut = {n: t.narrow(dims[n], 0, 2) if n in dims else t for n, t in packed.tensors.items()}
    first = quantizer.unpack(Packed(cut, (2, 12), packed.layout))
    assert torch.equal(first, quantizer.unpack(packed)[:2])


def test_zeros_have_levels_too():
    quantizer = Ste(SteConfig(n_bits=3), (2, 9)).eval()
    packed = quantizer.pack(torch.zeros(2, 9))
    assert packed.layout["level_scales"] == [4.0, 2.0, 1.0]
    assert not read(quantizer, packed, 1).any()
