"""``mixed``: widths by hand and against every choice, storage of odd shapes, rows that have no bits."""

import itertools

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_quantizers_post_training import GptqConfig, MixedConfig
from qsae_quantizers_post_training.gptq import Gptq
from qsae_quantizers_post_training.mixed import MOST_BITS, Mixed, widths
from qsae_quantizers_post_training.uniform import Uniform
from safetensors.torch import load_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import artifact, places
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.quantizer import Calibration, Packed


def left_over(weight, n_bits):
    """Squared error of each row, on a grid of that width."""
    if n_bits == 0:
        return weight.square().sum(1)
    grid = Uniform(n_bits, halves=True)
    scale = grid.best(weight)
    return (weight - grid.round(weight, scale) * scale[:, None]).square().sum(1)


def test_energy_decides_by_hand():
    # one bit of a normal row removes 64% of its error, the second 24%, the third 8%: with energies of 1 and
    # 100 the strong row takes three bits (8 > .64) and the fourth (2.6 > .64) before the weak one has any
    torch.manual_seed(0)
    weight = torch.randn(1, 512).repeat(2, 1)
    assert widths(weight, torch.tensor([1.0, 100.0]), 2.0).tolist() == [0, 4]
    assert widths(weight, torch.tensor([1.0, 1.0]), 2.0).tolist() == [2, 2]
    assert widths(weight, torch.tensor([1.0, 1.0]), 8.0).tolist() == [8, 8]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_widths_have_less_error(seed):
    torch.manual_seed(seed)
    weight, energy = torch.randn(3, 64), torch.rand(3) ** 4
    found = widths(weight, energy, 2.0)
    errors = torch.stack([left_over(weight, b) for b in range(MOST_BITS + 1)])
    cost = {
        chosen: sum(float(energy[j] * errors[b, j]) for j, b in enumerate(chosen))
        for chosen in itertools.product(range(MOST_BITS + 1), repeat=3)
        if sum(chosen) == 6
    }
    assert cost[tuple(found.tolist())] == pytest.approx(min(cost.values()))


def test_it_stores_the_bits_that_it_says():
    torch.manual_seed(0)
    weight, energy = torch.randn(100, 64), torch.logspace(-4, 0, 100)
    quantizer = Mixed(MixedConfig(n_bits=1.5), (100, 64))
    quantizer.widths.copy_(widths(weight, energy, 1.5))
    packed = quantizer.pack(weight)
    assert packed.bits_per_weight == 1.5 + (16 + 8) / 64
    assert packed.tensors["codes"].numel() == 150 * 8
    assert quantizer.widths[0] == 0
    assert not quantizer.unpack(packed)[0].any()
    assert quantizer.widths[-1] > 2


def test_codes_of_unequal_energy_lose_less_than_by_gptq():
    torch.manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(128, 64), dim=1)
    dense = torch.rand(2048, 128) * (torch.rand(2048, 128) < 0.1) * torch.logspace(-1.5, 0.5, 128)
    calibration = Calibration(SparseCodes.from_dense(dense), dense @ weight)
    errors = {}
    for quantizer in (Mixed(MixedConfig(n_bits=2), (128, 64)), Gptq(GptqConfig(n_bits=2), (128, 64))):
        quantizer.initialize(weight)
        quantized = quantizer.calibrate(weight, calibration)
        assert torch.equal(quantizer.fake_quantize(quantized), quantized)
        errors[type(quantizer).__name__] = (dense @ (weight - quantized)).square().sum().item()
    assert errors["Mixed"] < errors["Gptq"] / 3


def test_it_is_moved_and_loaded_with_its_widths():
    weight = torch.randn(8, 16)
    quantizer = Mixed(MixedConfig(n_bits=2), (8, 16))
    quantizer.widths.copy_(torch.arange(8))
    other = Mixed(MixedConfig(n_bits=2), (8, 16))
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other.fake_quantize(weight), quantizer.fake_quantize(weight))


@settings(max_examples=80)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 9999))
def test_it_is_stored_bit_for_bit(n_rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_rows, width, generator=generator) * 10.0 ** (seed % 7 - 3)
    quantizer = Mixed(MixedConfig(n_bits=3), (n_rows, width))
    quantizer.widths.copy_(torch.randint(0, 9, (n_rows,), generator=generator))
    once = quantizer.fake_quantize(weight)
    assert torch.equal(quantizer.fake_quantize(once), once)
    packed = quantizer.pack(weight)
    fresh = Mixed(MixedConfig(n_bits=3), (n_rows, width))
    assert torch.equal(fresh.unpack(packed), once)
    assert torch.equal(fresh.lookup(packed).matrix(), once)
    some = torch.randperm(n_rows, generator=generator)
    assert torch.equal(fresh.unpack_rows(packed, some), once[some])
    # the codes of other rows are not read
    begin = int(quantizer.widths[0]) * -(-width // 8)
    blank = packed.tensors | {
        "codes": torch.cat([packed.tensors["codes"][:begin], torch.zeros(0, dtype=torch.uint8)])
    }
    assert torch.equal(fresh.unpack_rows(Packed(blank, packed.shape), torch.tensor([0])), once[:1])


def test_a_latent_whose_row_has_no_bits_takes_no_place(tmp_path):
    """It would add nothing, and stand where another one should."""
    train = "train --sae topk --data synthetic --n-latents 256 --k 8 --steps 60 --no-compare-float --name f"
    quantize = f"quantize {tmp_path}/f/synthetic/60 --quantizer mixed --n-bits 0.5 --name q"
    for command in (f"{train} --batch-size 256", f"{quantize} --finetune encoder --finetune-steps 20"):
        result = CliRunner().invoke(cli, f"{command} --out {tmp_path}".split())
        assert result.exit_code == 0, result.output
    coder = qsae_core.load(tmp_path / "q" / "synthetic" / "20")
    none_F = (coder.dictionary() == 0).all(1)
    assert 20 < none_F.sum() < 236
    codes = coder.encode(torch.randn(500, 64) * 3)
    assert not none_F[codes.indices[codes.active]].any()
    assert codes.active.sum() == 8 * 500


def test_a_level_reads_the_bytes_of_its_own_rows(tmp_path):
    """A nested coder's first eighth of latents: an eighth of the codes, of rows of about 2 bits."""
    train = "train --sae matryoshka --quantizer mixed --n-bits 2 --data synthetic --n-latents 256 --steps 3"
    command = f"{train} --batch-size 64 --no-compare-float --name m --out {tmp_path}"
    assert CliRunner().invoke(cli, command.split()).exit_code == 0
    (folder,) = tmp_path.glob("m/*/*/checkpoints/final")
    stored, level_bytes = load_file(folder / places.TENSORS), artifact.level_bytes(folder)
    widths_F, row = stored["W_dec.widths"].int(), 64 // 8
    others_F = [stored[n].nbytes // 256 for n in ("W_enc.weight", "b_enc", "W_dec.widths", "W_dec.scales")]
    for level in (1, 2):
        rows = slice(32 * level, 32 * (level + 1))
        more = level_bytes[level] - level_bytes[level - 1]
        assert more == int(widths_F[rows].sum()) * row + 32 * sum(others_F)
