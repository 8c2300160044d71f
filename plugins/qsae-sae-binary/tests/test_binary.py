"""The binary SAE by hand: two latents in two dimensions, weights of four bits in steps of 1/2."""

import json

import numpy as np
import pytest
import torch
from qsae_sae_binary import BinaryConfig
from qsae_sae_binary.model import BinarySAE

import qsae_core
from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import Budget, CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.plugins.records import load_plugins
from qsae_core.training import run as training_run
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Watcher


def make(n_latents=2, width=2, k=1, **options):
    parts = plain_parts(k=k, quantizer=lambda shape: pytest.fail("it has no quantizer"))
    config = BinaryConfig(n_latents=n_latents, normalize="none", rotate=False, **options)
    return BinarySAE(config, CoderShape(width, width), parts)


def worked_example(**options):
    """Atoms (-3, 2) and (0.5, 3.5): bits 1010 and 0100, 0001 and 0111."""
    coder = make(gamma=4.0, temperature=1.0, auxk_coefficient=0.0, **options)
    with torch.no_grad():
        integers = torch.tensor([[-6, 4], [1, 7]])
        coder.W_dec.master.copy_(coder.W_dec.quantizer.logits_of(integers, 2.0))
        coder.W_enc.weight.copy_(torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))
    return coder


def test_the_decoder_is_what_its_bits_say():
    coder = worked_example().eval()
    assert coder.atoms().tolist() == [[-3.0, 2.0], [0.5, 3.5]]
    # latents 2 and 1, norms of atoms 3.606 and 3.536: the first one is kept
    x = torch.tensor([[-2.0, 1.0]])
    assert coder.encode(x).to_dense().tolist() == [[2.0, 0.0]]
    assert coder(x).tolist() == [[-6.0, 4.0]]
    assert coder.loss(Batch(x, x)).terms["mse"].item() == pytest.approx(0.5 * (16 + 9))


def test_latents_are_ranked_by_what_they_add():
    coder = worked_example().eval()
    # latents 1 and 1.01; 1 * sqrt(13) = 3.606 against 1.01 * sqrt(12.5) = 3.571
    assert coder.encode(torch.tensor([[-1.0, 1.01]])).to_dense()[0].tolist() == [1.0, 0.0]


def test_soft_weights_first_and_hard_ones_from_quantize_after_on():
    coder = worked_example().train()
    x = torch.tensor([[-2.0, 1.0]])
    p = torch.sigmoid(torch.tensor(2.0)).item()  # logits are twice their temperature
    coder.quantize_weights(False)
    # 1010: p 2 - 8 p + (1 - p) (1 + 4); 0100: 4 p + (1 - p) (1 + 2 - 8)
    soft = [0.5 * (5 * (1 - p) - 6 * p), 0.5 * (4 * p - 5 * (1 - p))]
    reconstruction = coder.loss(Batch(x, x)).reconstruction
    torch.testing.assert_close(reconstruction, 2.0 * torch.tensor([soft]))
    coder.quantize_weights(True)
    assert coder.loss(Batch(x, x)).reconstruction.tolist() == [[-6.0, 4.0]]


def test_polarization_weighs_bits_by_their_squared_places():
    coder = worked_example(polarization=3.0).train()
    coder.begin_training(Budget(10, 100, 10))
    x = torch.tensor([[-2.0, 1.0]])
    assert coder.loss(Batch(x, x)).terms["polarization"].item() == 0.0  # it starts from nothing
    coder.W_dec.quantizer.progress.fill_(0.5)
    with torch.no_grad():
        coder.W_dec.master.fill_(200.0)  # settled, but for two bits at p = 1/2
        coder.W_dec.master[0, 0, 3] = 0.0
        coder.W_dec.master[1, 1, 0] = 0.0
    # 3 * 0.5 * (64 / 85 * 1/4 + 1 / 85 * 1/4) over two atoms of two weights, in units of V = 3
    coder.units.variance.fill_(3.0)
    wanted = 3 * 1.5 * (65 / 85) / 4 / 2 / 2
    assert coder.loss(Batch(x, x)).terms["polarization"].item() == pytest.approx(wanted, rel=1e-5)
    assert "polarization" not in coder.eval().loss(Batch(x, x)).terms


def test_soft_and_hard_fvu_of_a_batch():
    coder = worked_example().train()
    x = torch.tensor([[-2.0, 1.0], [-4.0, 1.0]])
    values = coder.loss(Batch(x, x)).values
    # hard: (-6, 4) and (-12, 8) against a spread of 2 around (-3, 1)
    assert values["fvu_hard"].item() == pytest.approx((16 + 9 + 64 + 49) / 2)
    assert values["fvu_gap"].item() == pytest.approx((values["fvu_hard"] - values["fvu_soft"]).item())
    settled = worked_example(tau=9.0)
    with torch.no_grad():
        settled.W_dec.master.mul_(9.0)
    assert settled.train().loss(Batch(x, x)).values["fvu_gap"].abs().item() < 1e-3


def test_it_starts_from_the_bits_of_a_random_unit_dictionary():
    torch.manual_seed(0)
    coder = make(64, 96).eval()
    atoms, norms = coder.atoms(), coder.atoms().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(64), atol=0.1, rtol=0)
    cosines = (atoms @ atoms.T / norms[:, None] / norms[None]).fill_diagonal_(0)
    assert cosines.abs().max() < 0.5  # p = 1/2 everywhere would make all atoms parallel
    # and the encoder from its transpose
    encoder = coder.W_enc() / coder.W_enc().norm(dim=1, keepdim=True)
    assert (encoder * atoms / norms[:, None]).sum(1).min() > 0.98


def test_the_temperature_falls_and_bits_are_put_back_on_the_line():
    coder = make(8, 4, final_temperature=0.25, recode_every=2, temperature=1.0)
    trainer = Trainer(coder, TrainConfig(steps=4, lr=0.3, warmup=0.0, decay=0.0), "coder")
    x = torch.randn(16, 4)
    hard = []
    for step in range(4):
        trainer.step(Batch(x, x), step)
        bits = coder.W_dec.quantizer
        hard.append(bits.probabilities(coder.W_dec.master.detach()))
    assert coder.W_dec.quantizer.temperature.item() == pytest.approx(0.25)
    assert coder.W_dec.quantizer.progress.item() == 1.0
    settled = coder.W_dec.master.detach().clone()
    coder.W_dec.quantizer.recode_(settled)
    torch.testing.assert_close(settled, coder.W_dec.master.detach(), atol=1e-3, rtol=0)


class Silent(Watcher):
    """Says nothing."""


def test_a_run_s_artifact_serves_bit_for_bit_and_by_planes(tmp_path):
    states = np.random.default_rng(0).normal(size=(2048, 16)).astype(np.float32)
    np.save(tmp_path / "states.npy", states)
    plugins = load_plugins()
    tree = {
        "sae": {"use": "binary", "n_latents": 64, "n_bits": 3},
        "sparsity": {"use": "topk", "k": 6},
        "data": {"use": "tensors", "path": str(tmp_path / "states.npy")},
        "train": {"steps": 6, "batch_size": 64, "eval_every": 0, "eval_tokens": 128, "log_every": 1},
        "run": {"out": str(tmp_path), "threads": 1, "save_float": True},
        "evaluate": ["reconstruction"],
        "metrics": ["reconstruction"],
    }
    run = training_run.train(resolve([checked_layer(tree, "test")], plugins.registry), plugins, Silent())
    assert not (run.checkpoints / "float_twin").exists()  # there is no such coder without quantization
    last = json.loads((run.path / "metrics" / "log.jsonl").read_text().splitlines()[-1])
    assert {"fvu_soft", "fvu_hard", "fvu_gap"} <= last.keys()
    coder = qsae_core.load(run.path)
    assert coder.levels == 3
    x = torch.from_numpy(states[:32])
    for level in (1, 2):
        part = qsae_core.load(run.path, level=level)
        assert part.matrices()["W_dec"].pack().tensors["codes"].shape[0] == level
        assert torch.equal(part(x), coder.at_level(level)(x))
    # the float dictionary is that of the probabilities
    soft, hard = coder.dictionary(quantized=False), coder.dictionary()
    assert soft.shape == hard.shape
    assert torch.nn.functional.cosine_similarity(soft, hard).min() > 0.8
