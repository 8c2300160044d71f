"""The training step: rates by hand, and one step against torch's autograd and Adam on the dense formula."""

import contextlib
import gc
import math
import os
import subprocess
import sys

import pytest
import torch
from qsae_sae_topk import TopKConfig
from qsae_sae_topk.model import TopKSAE

from qsae_core import kernels
from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.reference_parts import (
    L1,
    IdentityQuantizer,
    PlainConfig,
    SignQuantizer,
    plain_parts,
)
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError
from qsae_core.training.optimizer import Adam
from qsae_core.training.screening import screen_recall
from qsae_core.training.step_sums import StepSums
from qsae_core.training.trainer import Trainer, auto_learning_rate, schedule

PLAIN = PlainConfig()


def make_coder(n_latents=32, width=8, k=4, quantizer=IdentityQuantizer, **options):
    torch.manual_seed(0)
    parts = plain_parts(k=k, quantizer=lambda shape: quantizer(PLAIN, shape))
    config = TopKConfig(n_latents=n_latents, **{"normalize": "none", "rotate": False} | options)
    return TopKSAE(config, CoderShape(width, width), parts)


def test_the_schedule_rises_stays_and_falls():
    rates = [schedule(step, 20, warmup=0.2, decay=0.2) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:16] == [1.0] * 12
    assert rates[16:] == [1.0, 0.75, 0.5, 0.25]
    assert schedule(0, 20, warmup=0.0, decay=0.0) == 1.0


def test_the_automatic_rate_follows_size_and_budget():
    assert auto_learning_rate(2**14, 100_000) == pytest.approx(2e-4)
    assert auto_learning_rate(2**16, 100_000) == pytest.approx(1e-4)
    assert auto_learning_rate(2**14, 5_000) == pytest.approx(2e-4 * 2)
    assert auto_learning_rate(2**14, 10) == pytest.approx(2e-4 * 10)


def test_steps_equal_dense_autograd_with_torch_adam():
    coder = make_coder(auxk_coefficient=0.0)
    config = TrainConfig(steps=50, batch_size=64, lr=1e-3, warmup=0.0, decay=0.0, clip=None)
    W_enc, b_enc, W_dec, b_dec = (
        coder.W_enc.weight.detach().clone().requires_grad_(),
        coder.b_enc.detach().clone().requires_grad_(),
        coder.W_dec.weight.detach().clone().requires_grad_(),
        coder.b_dec.detach().clone().requires_grad_(),
    )
    adam = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=1e-3)
    trainer = Trainer(coder, config, "coder")
    for step in range(5):
        x = torch.randn(64, 8)
        trainer.step(Batch(x, x), step)

        adam.zero_grad()
        z = torch.relu((x - b_dec) @ W_enc.T + b_enc)
        kept = torch.zeros_like(z).scatter(1, z.topk(4, dim=1).indices, 1.0)
        loss = (x - ((z * kept) @ W_dec + b_dec)).square().sum(1).mean()
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
        adam.step()
        with torch.no_grad():
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    for ours, dense in ((coder.W_enc.weight, W_enc), (coder.b_enc, b_enc), (coder.W_dec.weight, W_dec)):
        torch.testing.assert_close(ours, dense, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(coder.b_dec, b_dec, rtol=1e-4, atol=1e-5)


def test_a_rotated_coder_learns_as_one_that_is_not():
    """Adam is not invariant under rotations; its steps are those of the data's axes."""
    torch.manual_seed(0)
    sample = torch.randn(512, 12) * torch.logspace(-1, 1, 12)
    trained = []
    for rotate in (False, True):
        coder = make_coder(width=12, normalize="scale", rotate=rotate)
        coder.initialize(Batch(sample, sample))
        if trained:  # the same coder, seen in the rotated space
            for name, matrix in coder.matrices().items():
                matrix.master.data = coder.norm_in.direction(trained[0].start[name])
        coder.start = {name: m.master.detach().clone() for name, m in coder.matrices().items()}
        trainer = Trainer(coder, TrainConfig(steps=30, lr=0.01, batch_size=64), "coder")
        for step in range(30):
            x = sample[step * 16 : step * 16 + 64]
            trainer.step(Batch(x, x), step)
        trained.append(coder.eval())
    plain, rotated = trained
    assert bool(rotated.norm_in.rotated)
    assert plain.reconstruct(sample).sub(sample).square().mean() < 0.2 * sample.square().mean()
    torch.testing.assert_close(rotated.reconstruct(sample), plain.reconstruct(sample), rtol=0, atol=0.01)


def test_clipping_scales_what_the_optimiser_sees():
    # the first moments after one step are (1 - beta1) times the clipped gradients
    coder = make_coder()
    trainer = Trainer(coder, TrainConfig(steps=10, clip=0.5), "coder")
    x = 100 * torch.randn(64, 8)
    trainer.step(Batch(x, x), 0)
    moments = [t for name, t in trainer.optimizer.state().items() if name.startswith("exp_avg.")]
    norm = math.sqrt(sum((m / 0.1).square().sum().item() for m in moments))
    assert norm == pytest.approx(0.5, rel=1e-3)
    assert trainer.report()["grad_norm"] > 100  # what is reported is the norm before clipping


def test_quantization_starts_at_its_share_of_the_steps():
    coder = make_coder()
    trainer = Trainer(coder, TrainConfig(steps=10, quantize_after=0.3), "coder")
    seen = []
    for step in range(10):
        x = torch.randn(16, 8)
        trainer.step(Batch(x, x), step)
        seen.append(coder.W_dec.quantizing)
    assert seen == [False] * 3 + [True] * 7


def test_a_frozen_decoder_stays_and_the_encoder_goes_on():
    coder = make_coder(quantizer=SignQuantizer)
    trainer = Trainer(coder, TrainConfig(steps=10, quantize_after=0.2, freeze_decoder_after=0.6), "coder")
    x = torch.randn(64, 8)
    masters, encoders = [], []
    for step in range(10):
        trainer.step(Batch(x, x), step)
        masters.append(coder.W_dec.master.detach().clone())
        encoders.append(coder.W_enc.master.detach().clone())
    assert not torch.equal(masters[5], masters[4])
    assert all(torch.equal(master, masters[5]) for master in masters[6:])
    assert not torch.equal(encoders[9], encoders[8])
    # what training reads is what evaluation reads
    assert torch.equal(coder.W_dec.rows().dense(), coder.eval().W_dec())


def test_a_float_decoder_is_not_frozen():
    coder = make_coder()
    trainer = Trainer(coder, TrainConfig(steps=4, freeze_decoder_after=0.5), "coder")
    before = coder.W_dec.master.detach().clone()
    trainer.step(Batch(torch.randn(64, 8), torch.randn(64, 8)), 3)
    assert not torch.equal(coder.W_dec.master, before)


@pytest.mark.parametrize("quantizer", [None, SignQuantizer])
def test_a_decoder_that_is_frozen_from_the_start_stays_random(quantizer):
    coder = make_coder() if quantizer is None else make_coder(quantizer=quantizer)
    trainer = Trainer(coder, TrainConfig(steps=10, freeze_decoder=True), "coder")
    decoder, encoder = coder.W_dec.master.detach().clone(), coder.W_enc.master.detach().clone()
    for step in range(10):
        x = torch.randn(64, 8)
        trainer.step(Batch(x, x), step)
    assert torch.equal(coder.W_dec.master, decoder)
    assert not torch.equal(coder.W_enc.master, encoder)


def test_scales_are_learned_again_when_quantization_begins():
    seen = []

    class Noting(IdentityQuantizer):
        def initialize(self, weight):
            seen.append(weight.clone())

    coder = make_coder(quantizer=Noting)
    trainer = Trainer(coder, TrainConfig(steps=4, quantize_after=0.5), "coder")
    for step in range(4):
        trainer.step(Batch(torch.randn(64, 8), torch.randn(64, 8)), step)
        assert len(seen) == (1 if step >= 2 else 0)


def test_the_report_is_the_mean_over_steps_since_the_last():
    coder = make_coder()
    trainer = Trainer(coder, TrainConfig(steps=10), "coder")
    assert trainer.report() == {}
    losses, errors, spreads = [], 0.0, 0.0
    for step in range(3):
        x = torch.randn(16, 8)
        with torch.no_grad():
            coder.eval()
            x_hat = coder(x)
        losses.append((x - x_hat).square().sum(1).mean().item())
        errors += (x - x_hat).square().sum().item()
        spreads += (x - x.mean(0)).square().sum().item()
        trainer.step(Batch(x, x), step)
    report = trainer.report()
    assert report["loss/mse"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert report["fvu"] == pytest.approx(errors / spreads, rel=1e-5)
    assert report["l0"] <= 4


@pytest.mark.parametrize("screen", ["bf16", "int8"])
def test_a_screened_run_ends_where_the_exact_one_does(screen):
    x = torch.randn(256, 8)
    ends = {}
    for kind in ("none", screen):
        coder = make_coder(n_latents=64)
        trainer = Trainer(coder, TrainConfig(steps=40, lr=3e-3, screen=kind), "coder")
        for step in range(40):
            trainer.step(Batch(x, x), step)
        assert all(p.dtype == torch.float32 for p in coder.parameters())
        assert all(m.dtype == torch.float32 for n, m in trainer.optimizer.state().items() if "exp" in n)
        ends[kind] = trainer.means.sums[-1].terms["mse"]
        report = trainer.report()
        assert ("screen_recall" in report) == (kind != "none")
    assert ends[screen] == pytest.approx(ends["none"], rel=0.02)
    assert report["screen_recall"] > 0.98


def test_recall_is_the_share_of_the_exact_entries_that_are_found(monkeypatch):
    coder = make_coder(n_latents=32, k=4).eval()
    coder.screen = "bf16"
    x = torch.randn(16, 8)
    assert screen_recall(coder, x) == 1.0
    first_latents = torch.arange(12, dtype=torch.int32).expand(16, 12)
    monkeypatch.setattr(kernels.Screen, "candidates", lambda *_: first_latents)  # blind to latents from 12 on
    coder.screen = "none"
    exact = coder.encode(x)
    found = (exact.indices[exact.active] < 12).double().mean().item()
    coder.screen = "bf16"
    assert 0 < found < 1
    assert screen_recall(coder, x) == pytest.approx(found)


def test_a_screen_needs_a_rule_that_keeps_the_largest():
    coder = make_coder()
    coder.sparsity = L1(PLAIN, 32)
    with pytest.raises(ConfigError, match="does not keep a fixed number of the largest"):
        Trainer(coder, TrainConfig(steps=10, screen="int8"), "coder")


def test_state_goes_around_through_tensors():
    coder, other = make_coder(), make_coder()
    config = TrainConfig(steps=10, lr=1e-2)
    trainer, copy = Trainer(coder, config, "a"), Trainer(other, config, "b")
    batches = [torch.randn(16, 8) for _ in range(6)]
    for step in range(3):
        trainer.step(Batch(batches[step], batches[step]), step)
    copy.load_state({name: tensor.clone() for name, tensor in trainer.state().items()})
    for step in range(3, 6):
        for each in (trainer, copy):
            each.step(Batch(batches[step], batches[step]), step)
    for ours, theirs in zip(coder.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_term_of_every_eighth_step_is_shown_with_its_average_weight():
    """AuxK of eight steps is there at the eighth, eight times as heavy; logs neither leap then nor fall
    behind it, a resumed run's no more than others."""
    coder = make_coder(auxk_coefficient=0.5, dead_after_tokens=16, restart=False)
    with torch.no_grad():
        coder.b_enc[:3] = -100.0  # three latents that no token reaches
    trainer, config = Trainer(coder, TrainConfig(steps=32), "coder"), TrainConfig(steps=32)
    reports, optimised = [], {}
    for step in range(10):
        x = torch.randn(16, 8)
        trainer.step(Batch(x, x), step)
        optimised[step + 1] = trainer.means.sums[-1].terms
        reports.append(trainer.report())
    assert [step for step, terms in optimised.items() if "auxk" in terms] == [8]
    assert all("loss/auxk" not in report for report in reports[:7])
    term = optimised[8]["auxk"]
    assert term > 0
    for report in reports[7:]:
        assert report["loss/auxk"] == pytest.approx(term / 8)
        assert report["loss"] == pytest.approx(report["loss/mse"] + term / 8)
    resumed = Trainer(make_coder(auxk_coefficient=0.5, dead_after_tokens=16, restart=False), config, "coder")
    resumed.load_state(trainer.state())
    resumed.step(Batch(x, x), 10)
    assert resumed.report()["loss/auxk"] == pytest.approx(term / 8)


class Restarts(TopKSAE):
    """Says that the first row of its decoder was set anew at step 2, and reports a value."""

    step = 0

    def loss(self, batch):
        return super().loss(batch)._replace(values={"thrice": torch.tensor(3.0 * self.step)})

    def after_step(self, step):
        self.step = step

    def restarted(self):
        rows = torch.zeros(self.W_dec.shape, dtype=torch.bool)
        rows[0] = True
        return {"W_dec.weight": rows} if self.step == 2 else {}


def test_what_is_not_defined_at_a_step_is_reported_as_none():
    """Shares of the variance of a batch of one, as nested coders log them, are 0 / 0."""
    trainer = Trainer(make_coder(), TrainConfig(steps=4), "coder")
    values = {"fvu_1": float("nan"), "twice": 2.0}
    trainer.means.sums = [StepSums(1, {"mse": 1.0}, values, 1.0, 0.0, 1.0, 1.0)]
    report = trainer.report()
    assert (report["fvu_1"], report["fvu"], report["twice"]) == (None, None, 2.0)


def test_what_was_set_anew_has_the_second_moments_of_the_others():
    """Columns (1, 3, 8) and (2, 4, 0): means 4 and 2."""
    weight = torch.nn.Parameter(torch.zeros(3, 2))
    adam = Adam({"w": weight}, [], {}, rate_factors={}, beta1=0.9, beta2=0.999, clip=None)
    first, second = torch.ones(3, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]])
    adam.load_state({"step.w": torch.tensor(5), "exp_avg.w": first, "exp_avg_sq.w": second})
    adam.forget({"w": torch.tensor([[True, True], [False, True], [False, False]])})
    assert adam.state()["exp_avg.w"].tolist() == [[0, 0], [1, 0], [1, 1]]
    assert adam.state()["exp_avg_sq.w"].tolist() == [[4, 2], [3, 0], [8, 0]]  # (1, 1) is no whole row


def test_parameters_move_at_their_own_rates():
    """Adam's first step is the rate, whatever the gradient."""
    parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in ("slow", "fast")}
    adam = Adam(parameters, [], {}, rate_factors={"fast": 8.0}, beta1=0.9, beta2=0.999, clip=None)
    for parameter in parameters.values():
        parameter.grad = torch.tensor([3.0, -0.5])
    adam.step(0.01)
    assert parameters["slow"].tolist() == pytest.approx([-0.01, 0.01])
    assert parameters["fast"].tolist() == pytest.approx([-0.08, 0.08])


def test_the_optimiser_forgets_what_was_set_anew():
    parts = make_coder().parts
    coder = Restarts(make_coder().config, CoderShape(8, 8), parts)
    trainer = Trainer(coder, TrainConfig(steps=4, batch_size=64, warmup=0.0, decay=0.0), "coder")
    for step in range(2):
        x = torch.randn(64, 8)
        trainer.step(Batch(x, x), step)
        moment = trainer.optimizer.state()["exp_avg.W_dec.weight"]
        assert bool(moment[0].any()) == (step == 0)
        assert moment[1:].any()
    # beside the terms, a mean over the steps since the last report: (0 + 3) / 2
    assert trainer.report()["thrice"] == 1.5


@pytest.mark.parametrize("kernel_set", [kernels.torch_only, contextlib.nullcontext])
def test_steps_hold_no_gradients(kernel_set):
    """Not one matrix more after six steps than after three, whoever computes them."""
    coder = make_coder(n_latents=61, width=19)
    x = torch.randn(64, 19)
    coder.initialize(Batch(x, x))
    trainer = Trainer(coder, TrainConfig(steps=100, batch_size=64), "coder")
    with kernel_set():
        found = []
        for step in range(9):
            trainer.step(Batch(x, x), step)
            gc.collect()
            found.append(sum(1 for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (61, 19)))
    assert found[2] == found[5] == found[8]


KEPT = """
import resource, torch
from qsae_core.training.memory import memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(2**24).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.empty(2**24).fill_(1.0)
taken = faults()
with memory_kept():
    faults()
    kept = faults()
print(taken, kept, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc alone")
def test_memory_is_used_again_while_a_run_trains_and_given_back_afterwards():
    """Four times 64 MB are 65,536 pages of 4 kB."""
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KEPT]

    def counts(**more):
        done = subprocess.run(command, env=environment | more, check=True, capture_output=True, text=True)
        return [int(number) for number in done.stdout.split()]

    taken, kept, again = counts()
    assert taken > 60_000
    assert again > 30_000  # of them at least half are taken anew
    assert kept < 20_000  # at most one of them in a place of its own
    assert counts(MALLOC_MMAP_MAX_="65536")[1] > 60_000  # what a user set stays
