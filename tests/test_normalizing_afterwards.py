"""A trained coder that knows no normalisation is given one before it is fine-tuned; its function stays."""

from __future__ import annotations

import json
import pathlib
import shlex

import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core import CoderConfig, TranscoderConfig
from qsae_core.coders import LinearCoder
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts import Batch, CoderShape, LossOutput
from qsae_core.quantization import calibrated
from qsae_core.quantization.spaces import normalize_coder, rotate_coder

D, E, F = 8, 12, 32
TRAIN = (
    "train --sae topk --normalize none --n-latents 128 --k 4 --data-path large.pt --steps 60 "
    "--batch-size 256 --eval-tokens 1024 --eval-every 0 --statistics-tokens 512 "
    "--threads 1 --eval reconstruction --no-compare-float --name large"
)


class Subtracts(LinearCoder):
    """Subtracts b_dec before it encodes."""

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


class DoesNot(Subtracts):
    """Does not."""

    subtract_b_dec = False


class Transcodes(DoesNot):
    """To another width."""

    is_autoencoder = False


@pytest.mark.parametrize("cls", [Subtracts, DoesNot, Transcodes])
@pytest.mark.parametrize("rotated", [False, True])
def test_the_function_stays(cls, rotated):
    torch.manual_seed(0)
    options = {"n_latents": F, "normalize": "none", "rotate": False}
    autoencodes = cls is not Transcodes
    config = CoderConfig(**options) if autoencodes else TranscoderConfig(**options, skip=True)
    coder = cls(config, CoderShape(D, D if autoencodes else E), plain_parts(k=4))
    torch.nn.init.normal_(coder.b_dec)
    torch.nn.init.normal_(coder.b_enc, std=0.1)
    if coder.W_skip is not None:
        torch.nn.init.normal_(coder.W_skip)
    if rotated:
        rotate_coder(coder)
    x = 50 * torch.randn(200, D) + 20
    y = x if autoencodes else 3 * torch.randn(200, E) - 7
    coder.eval()
    codes, output = coder.encode(x).to_dense(), coder(x)
    normalize_coder(coder, Batch(x, y))
    for norm, vectors in ((coder.norm_in, x), (coder.norm_out, y)):
        mean, rms = vectors.mean(0), (vectors - vectors.mean(0)).square().mean().sqrt()
        assert torch.allclose(norm.mean, mean, rtol=1e-5)
        assert norm.scale.item() == pytest.approx(rms.item(), rel=1e-5)
    assert torch.allclose(coder.encode(x).to_dense(), codes, rtol=1e-4, atol=1e-4)
    assert torch.allclose(coder(x), output, rtol=1e-4, atol=1e-3)


def qsae(line):
    done = CliRunner().invoke(cli, shlex.split(line))
    assert done.exit_code == 0, done.output
    return done.output


def test_fine_tuning_does_not_depend_on_the_unit_of_the_vectors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(128, 32, generator=generator)
    codes = torch.rand(8000, 128, generator=generator) * (torch.rand(8000, 128, generator=generator) < 0.03)
    torch.save(300 * (codes @ atoms + 1), "large.pt")
    qsae(TRAIN)
    (run,) = pathlib.Path("results/large").glob("*/*")
    found = []
    for name, tuning in (("plain", ""), ("tuned", "--finetune encoder --finetune-steps 60")):
        line = f"quantize {run} --quantizer rtn --n-bits 2 --tokens 2048 --json --name {name} {tuning}"
        text = qsae(line)
        assert ("normalising the coder's inputs" in text) is (name == "tuned")
        summary = json.loads(text[text.index("{") :])
        found.append(summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"])
        (quantized,) = pathlib.Path("results", name).glob("*/*")
        assert qsae_core.load(quantized).config.normalize == ("scale" if name == "tuned" else "none")
    assert found[1] < found[0]


def test_fine_tuning_knows_the_unit_of_its_loss(tmp_path, monkeypatch):
    """A stored coder does not; V is the variance of the calibration vectors, here those of a file that is
    calibrated on whole: 128 latents of uniform size on 3% of tokens each, times atoms of norm 1."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(128, 32, generator=generator))
    codes = torch.rand(8000, 128, generator=generator) * (torch.rand(8000, 128, generator=generator) < 0.03)
    torch.save(10 * (codes @ atoms), "large.pt")
    qsae(TRAIN.replace("--normalize none", "--normalize center"))
    (run,) = pathlib.Path("results/large").glob("*/*")
    seen = []
    monkeypatch.setattr(calibrated, "finetune", lambda coder, *_: seen.append(coder.units.variance.item()))
    qsae(f"quantize {run} --quantizer rtn --n-bits 2 --tokens 2048 --finetune encoder --finetune-steps 60")
    # E f^2 - (E f)^2 of one latent is 0.03 / 3 - 0.015^2; atoms of norm 1, times 10
    variance = 128 * (0.03 / 3 - 0.015**2) * 100
    assert seen[0] == pytest.approx(variance, rel=0.2)
