"""``train.screen: auto``: what is chosen, when it is left again, and that repeats and resumes do the same."""

from __future__ import annotations

import pathlib

import pytest
import torch
from qsae_code_quantizers import SteConfig
from qsae_code_quantizers.ste import SteCodes
from qsae_sae_topk import TopKConfig
from qsae_sae_topk.model import TopKSAE
from safetensors.torch import load_file

from qsae_core.config.layers import Layer, read_layer
from qsae_core.config.run import resolve
from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.errors import TrainingError
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json
from qsae_core.training import run as training_run
from qsae_core.training import screening
from qsae_core.training.screening import Screening, candidates, screen_recall
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Watcher


def make_coder(n_latents=64, width=8, k=4):
    torch.manual_seed(0)
    config = TopKConfig(n_latents=n_latents, normalize="none", rotate=False)
    return TopKSAE(config, CoderShape(width, width), plain_parts(k=k))


@pytest.fixture
def both(monkeypatch):
    """Both screens are candidates, for a small coder too."""
    monkeypatch.setattr(screening, "candidates", lambda coder: ["int8", "bf16"])


def recalls(monkeypatch, values):
    """Let screens find these shares of the exact code, one after the other."""
    left = iter(values)
    monkeypatch.setattr(screening, "screen_recall", lambda coder, x: next(left))


def decided(choice):
    return [(d.step, d.screen, d.recall) for d in choice.decisions]


# --- the rule


@pytest.mark.parametrize(
    ("n_latents", "width", "k", "compiled", "bf16", "expected"),
    [
        (4096, 256, 32, True, True, ["int8", "bf16"]),
        (4096, 256, 32, False, True, ["bf16"]),  # torch's own int8 product is slower than the exact one
        (4096, 256, 32, True, False, ["int8"]),
        (4096, 64, 32, True, True, ["int8"]),
        (1024, 256, 32, True, True, ["int8"]),
        (1024, 256, 33, True, True, []),  # 31 latents for each that is active
        (1023, 256, 4, True, True, []),
    ],
)
def test_screens_that_are_faster(monkeypatch, n_latents, width, k, compiled, bf16, expected):
    monkeypatch.setattr(screening, "installed", lambda name, device: compiled)
    monkeypatch.setattr(screening, "_computes_in_bf16", lambda: bf16)
    assert candidates(make_coder(n_latents, width, k)) == expected


def test_a_coder_that_cannot_be_screened_has_none(monkeypatch):
    monkeypatch.setattr(screening, "installed", lambda name, device: True)
    coder = make_coder(4096, 256, 32)
    monkeypatch.setattr(coder, "refusal_to_screen", lambda: "no")
    assert candidates(coder) == []
    choice = Screening(coder, "auto", 100)
    choice.before_step(torch.randn(4, 256), 0)
    assert decided(choice) == [(0, "none", None)]


# --- choosing and watching


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0.999], (0, "int8", 0.999)),
        ([0.9989, 1.0], (0, "bf16", 1.0)),
        ([0.9, 0.95], (0, "none", 0.95)),
        ([None, None], (0, "none", None)),  # no code to compare
    ],
)
def test_the_first_that_finds_enough(monkeypatch, both, found, expected):
    coder = make_coder()
    choice = Screening(coder, "auto", 100)
    recalls(monkeypatch, found)
    choice.before_step(torch.randn(4, 8), 0)
    assert decided(choice) == [expected]
    assert coder.screen == expected[1]


def test_it_is_left_where_it_finds_less_and_never_taken_up_again(monkeypatch, both):
    """100 steps: a look at every fifth, and where weights begin to go through quantizers."""
    coder = make_coder()
    choice = Screening(coder, "auto", 100)
    recalls(monkeypatch, [1.0, 0.9995, 0.9999, 0.99, 1.0, 0.5])
    x = torch.randn(4, 8)
    for step in range(100):
        choice.before_step(x, step, weights_change=step == 7)
    # looked at before steps 0, 5, 7 (enough), 10 (int8 no more, bf16 instead), 15 (nor that)
    assert decided(choice) == [(0, "int8", 1.0), (10, "bf16", 1.0), (15, "none", 0.5)]
    assert coder.screen == "none"
    lines = [str(decision) for decision in choice.news()]
    assert lines[1] == (
        "encodes through the bf16 screen from step 10 on: int8 finds 0.99000 of the exact code; bf16 finds "
        "1.00000 of the exact code (at least 0.999)"
    )
    assert "the exact product from step 15 on: bf16 finds 0.50000" in lines[2]
    assert choice.news() == []


def test_some_tokens_of_a_batch_are_enough_unless_they_find_too_little(monkeypatch, both):
    coder, seen = make_coder(), []

    def recall(coder, x):
        seen.append((len(x), x[1, 0].item()))
        return 1.0 if len(x) != screening.WATCH_TOKENS or len(seen) < 4 else 0.5

    monkeypatch.setattr(screening, "screen_recall", recall)
    choice = Screening(coder, "auto", 100)
    x = torch.arange(4096.0)[:, None].expand(-1, 8)
    for step in (0, 5, 10, 15):
        choice.before_step(x, step)
    # 1024 of 4096 before the first step, 256 at each look; the third finds half, and the whole is asked
    assert seen == [(1024, 4.0), (256, 16.0), (256, 16.0), (256, 16.0), (4096, 1.0)]
    assert decided(choice) == [(0, "int8", 1.0)]
    assert choice.recall == 1.0


def test_recall_is_the_share_of_the_exact_codes_active_entries(monkeypatch):
    """Three of these five entries are found; an entry of value 0 is none."""
    exact = SparseCodes.from_dense(torch.tensor([[1.0, 2, 0, 0], [0, 3, 4, 0], [0, 0, 0, 5]]))
    padded = SparseCodes.from_top_k(
        torch.tensor([[0, 2], [1, 2], [0, 1]]), torch.tensor([[1.0, 7], [3, 4], [0, 0]]), 4
    )
    coder = make_coder()
    coder.screen = "bf16"
    monkeypatch.setattr(coder, "encode", lambda x: exact if coder.screen == "none" else padded)
    assert screen_recall(coder, torch.zeros(3, 8)) == pytest.approx(3 / 5)
    monkeypatch.setattr(coder, "encode", lambda x: padded if coder.screen == "none" else exact)
    assert screen_recall(coder, torch.zeros(3, 8)) == pytest.approx(3 / 4)


def test_a_screen_that_was_asked_for_is_kept(monkeypatch, both):
    coder = make_coder()
    choice = Screening(coder, "bf16", 100)
    recalls(monkeypatch, [])
    choice.before_step(torch.randn(4, 8), 0)
    assert (coder.screen, choice.decisions) == ("bf16", [])


def test_a_real_screen_is_measured_in_training(both):
    x = torch.randn(256, 8)
    trainer = Trainer(make_coder(), TrainConfig(steps=40, lr=3e-3), "coder")
    for step in range(40):
        trainer.step(Batch(x, x), step)
    report = trainer.report()
    if trainer.coder.screen != "none":
        assert report["screen_recall"] >= 0.999
    first = trainer.screening.decisions[0]
    assert first.recall is not None


def test_measuring_changes_nothing_that_is_trained():
    """Code quantizers take note of values in training mode; here measuring must leave no trace of them."""
    torch.manual_seed(0)
    quantizer = lambda n: SteCodes(SteConfig(n_bits=4), n)  # noqa: E731
    config = TopKConfig(n_latents=64, normalize="none", rotate=False)
    coder = TopKSAE(config, CoderShape(8, 8), plain_parts(k=4)._replace(code_quantizer=quantizer)).train()
    coder.screen = "bf16"
    before = {name: buffer.clone() for name, buffer in coder.named_buffers()}
    state = torch.get_rng_state()
    assert screen_recall(coder, torch.randn(64, 8).abs()) is not None
    torch.set_rng_state(state)
    for name, buffer in coder.named_buffers():
        assert torch.equal(buffer, before[name]), name
    coder.encode(torch.randn(64, 8).abs())  # this does take note
    assert any(not torch.equal(buffer, before[name]) for name, buffer in coder.named_buffers())


# --- whole runs


class Notes(Watcher):
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def fall_with_weights(coder, x):
    """A recall that falls in training, as the state of the coder says and nothing else."""
    return 1.0 if int(coder.dead.tokens_since_fired.max()) < 6 * 64 else 0.5


@pytest.fixture
def falling(monkeypatch):
    monkeypatch.setattr(screening, "candidates", lambda coder: ["bf16"])
    monkeypatch.setattr(screening, "screen_recall", fall_with_weights)


def layer(out, **run):
    return Layer(
        {
            "sae": {"use": "topk", "n_latents": 512},
            "sparsity": {"use": "topk", "k": 4},
            "data": {"use": "synthetic", "preset": "tiny"},
            "train": {
                "steps": 24,
                "batch_size": 64,
                "eval_tokens": 128,
                "statistics_tokens": 512,
                "eval_every": 0,
            }
            | {"checkpoint_every": 4},
            "metrics": ["reconstruction"],
            "evaluate": ["reconstruction"],
            "run": {"out": str(out), "device": "cpu", "threads": 1, **run},
        }
    )


def train(*layers):
    plugins, notes = load_plugins(), Notes()
    return training_run.train(resolve(list(layers), plugins.registry), plugins, notes), notes.lines


def same(one, other):
    """Whether two runs ended with the same tensors, bit for bit."""
    a, b = (load_file(run.final / "coder.safetensors") for run in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_fall_is_on_record_and_repeated_from_it(tmp_path: pathlib.Path, falling):
    first, lines = train(layer(tmp_path, name="first"))
    decisions = read_json(first.config_file)["screens"]["coder"]
    assert [d["screen"] for d in decisions] == ["bf16", "none"]
    step = decisions[1]["step"]
    assert 0 < step < 24
    assert f"coder encodes through the exact product from step {step} on: bf16 finds 0.50000" in "\n".join(
        lines
    )
    again, _ = train(read_layer(first.config_file), Layer({"run": {"name": "again"}}, "test"))
    assert read_json(again.config_file)["screens"]["coder"] == decisions
    assert same(again, first)
    exact, _ = train(layer(tmp_path, name="exact"), Layer({"train": {"screen": "none"}}, "test"))
    assert "screens" not in read_json(exact.config_file)


@pytest.mark.parametrize("cut", [4, 20])
def test_a_run_resumed_before_or_after_the_fall_ends_alike(tmp_path: pathlib.Path, falling, monkeypatch, cut):
    whole, _ = train(layer(tmp_path, name="whole"))
    expected = read_json(whole.config_file)["screens"]["coder"]
    assert 4 < expected[1]["step"] < 20
    original = Trainer.step

    def failing(self, batch, step):
        if step == cut + 2:
            raise TrainingError("cut off")
        original(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", failing)
        with pytest.raises(TrainingError):
            train(layer(tmp_path, name="cut"))
    resumed, _ = train(layer(tmp_path, name="cut", resume=True))
    assert read_json(resumed.config_file)["screens"]["coder"] == expected
    assert same(resumed, whole)
