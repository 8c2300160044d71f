"""Every SAE and every quantizer on a GPU: trained, stored, loaded there and on the CPU, evaluated."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.plugins.records import load_plugins

DEVICE, WIDTH, LAYERS = "cuda", 64, 3
REGISTRY = load_plugins().registry
TRAIN = (
    "train --data synthetic --preset tiny --n-latents 256 --steps 10 --batch-size 256 --eval-tokens 2048 "
    f"--no-compare-float --json --device {DEVICE}"
).split()
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def qsae(*arguments):
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def is_the_same_on_both_devices(run, shape):
    there, here = qsae_core.load(run, device=DEVICE), qsae_core.load(run, device="cpu")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    close = 1e-5 * here(x).abs().max().item()
    torch.testing.assert_close(there(x.to(DEVICE)).cpu(), here(x), atol=close, rtol=0)
    evaluated = qsae("evaluate", run, "--device", DEVICE, "--tokens", 2048, "--json")
    assert 0 < evaluated["evaluations"]["reconstruction"]["fvu"] < 2


@pytest.mark.parametrize("name", REGISTRY.names("sae"))
def test_an_sae(name, tmp_path):
    of_layers = REGISTRY.load_target(REGISTRY.get("sae", name)).reads_layers
    layers = ["--data.layers", LAYERS] if of_layers else []
    run = qsae(*TRAIN, "--sae", name, *layers, "--out", tmp_path)["path"]
    is_the_same_on_both_devices(run, (64, LAYERS, WIDTH) if of_layers else (64, WIDTH))


@pytest.mark.parametrize("name", REGISTRY.names("quantizer"))
def test_a_quantizer(name, tmp_path):
    run = qsae(*TRAIN, "--sae", "topk", "--quantizer", name, "--out", tmp_path)["path"]
    is_the_same_on_both_devices(run, (64, WIDTH))


@pytest.mark.parametrize("quantizer", ["gptq", "mixed", "vector"])
def test_a_trained_coder_is_quantized(quantizer, tmp_path):
    run = qsae(*TRAIN, "--sae", "topk", "--out", tmp_path)["path"]
    asked = ["--finetune", "encoder", "--finetune-steps", 5, "--device", DEVICE, "--out", tmp_path, "--json"]
    quantized = qsae("quantize", run, "--quantizer", quantizer, *asked)["path"]
    is_the_same_on_both_devices(quantized, (64, WIDTH))
