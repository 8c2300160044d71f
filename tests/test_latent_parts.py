"""What a divided dictionary is made of, without starting any process."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from qsae_sae_topk import TopKConfig
from qsae_sae_topk.model import TopKSAE
from qsae_sparsity import TopKConfig as TopKRuleConfig
from qsae_sparsity.topk import TopK

from qsae_core.coders import drawn_rows as drawing
from qsae_core.coders.drawn_rows import drawn_rows
from qsae_core.coders.splitting import maths_splits
from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.halves import at_the_same_time, one_after_the_other
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import Budget, CoderShape
from qsae_core.errors import ArtifactError, ConfigError, TrainingError
from qsae_core.kernels.partners import Partners
from qsae_core.kernels.processes import acting, everyone, partners, processes
from qsae_core.results.run import Run
from qsae_core.training import checkpoints, state_files
from qsae_core.training.state_description import Position
from qsae_core.training.torch_processes import TorchPartners
from qsae_core.training.trainer import Trainer


class Part(Partners):
    """One of several partners, who is asked nothing."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


class Given(TorchPartners):
    """A partner to whom the others' tensors came."""

    def __init__(self, rank: int, of_each: list[torch.Tensor]) -> None:
        self.rank, self.world, self.of_each = rank, len(of_each), of_each

    def gathered(self, tensor):
        return self.of_each


def test_the_largest_of_all_partners_by_hand():
    inf = torch.inf
    # token 0: 9 8 | 8 1 | 8 7; the three largest are 9 and two of the three eights, those of lower partners
    # token 1: 1 0 | 5 4 | 6 0; 6, 5, 4
    scores = [
        torch.tensor([[9.0, 8.0], [1.0, 0.0]]),
        torch.tensor([[8.0, 1.0], [5.0, 4.0]]),
        torch.tensor([[8.0, 7.0], [6.0, 0.0]]),
    ]
    sent = [
        torch.cat([some, torch.full((2, 1), -inf)], dim=1) for some in scores
    ]  # 3 each, of which it has 2
    kept = [Given(rank, sent).among_largest(scores[rank], 3).tolist() for rank in range(3)]
    assert kept == [
        [[True, True], [False, False]],
        [[True, False], [True, True]],
        [[False, False], [True, False]],
    ]


def test_equal_ones_of_a_partner_are_taken_in_their_order():
    scores = torch.tensor([[2.0, 3.0, 2.0, 2.0]])
    assert Given(0, [scores]).among_largest(scores, 4).all()
    sent = [torch.tensor([[3.0, 2.0, 2.0]]), torch.tensor([[2.0, 2.0, -torch.inf]])]
    assert Given(0, sent).among_largest(sent[0], 3).tolist() == [[True, True, True]]
    assert Given(1, sent).among_largest(sent[1][:, :2], 3).tolist() == [[False, False]]


def test_a_share_is_the_whole_with_a_part_of_its_gradient():
    whole = torch.tensor([0.1, -3.0, 7.7], requires_grad=True)
    share = Given(0, [torch.empty(0)] * 3).share(whole)
    assert torch.equal(share, whole)
    (share * torch.tensor([3.0, 6.0, 9.0])).sum().backward()
    torch.testing.assert_close(whole.grad, torch.tensor([1.0, 2.0, 3.0]))


def test_a_process_alone_is_asked_at_no_cost():
    rows = torch.randn(4, 3)
    asked = partners()
    assert asked.world == processes().world == everyone().world == 1
    assert all(answer is rows for answer in (asked.sum(rows), asked.total(rows), asked.share(rows)))
    assert asked.join(rows) is rows
    assert asked.part(7) == slice(0, 7)
    assert [Part(rank, 3).part(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]


@pytest.mark.parametrize(("n", "width"), [(50, 3), (64, 16), (33, 7), (100, 1)])
def test_rows_that_are_drawn_in_blocks_are_those_of_one_draw(monkeypatch, n, width):
    torch.manual_seed(3)
    expected, after = torch.randn(n, width), torch.rand(4)
    monkeypatch.setattr(drawing, "BLOCK_ENTRIES", 16 * width)
    for own in (slice(0, n), slice(0, n // 2), slice(n // 2, n), slice(20, 21)):
        torch.manual_seed(3)
        assert torch.equal(drawn_rows(n, width, own), expected[own])
        assert torch.equal(torch.rand(4), after)


def coder(n_latents=12, k=2):
    torch.manual_seed(0)
    config = TopKConfig(n_latents=n_latents, normalize="none", rotate=False)
    return TopKSAE(config, CoderShape(4, 4), plain_parts(sparsity=lambda n: TopK(TopKRuleConfig(k=k), n)))


def test_a_partner_has_the_rows_of_its_latents_and_the_rule_of_all():
    whole = coder()
    for rank in range(3):
        with acting(processes(), Part(rank, 3)):
            part = coder()
        assert part.n_latents == 4
        assert part.dictionary_size == 12
        assert part.sparsity.n_latents == 12
        own = whole.own_latents if rank is None else slice(4 * rank, 4 * rank + 4)
        for name in ("W_enc", "W_dec"):
            assert torch.equal(getattr(part, name).master, getattr(whole, name).master[own])
    mine = {name: t.shape for name, t in part.state_dict().items()}
    other = {name: t.shape for name, t in whole.state_dict().items()}
    assert {name for name in mine if mine[name] != other[name]} == part.latent_tensors()


def test_what_defines_anything_anew_has_to_say_that_it_splits():
    class Renamed(TopKSAE):
        """Another name and another number."""

        unit_norm_rows = False

    class Sums(TopKSAE):
        def loss(self, batch):
            return super().loss(batch)

    class Says(Sums):
        splits_latents = True

    assert [maths_splits(cls) for cls in (TopKSAE, Renamed, Sums, Says)] == [True, True, False, True]
    assert Sums.refusal_to_split() == "it does not say that it can"


def in_halves(whole, work):
    """What ``work`` gives of two halves of a coder, which ask each other."""
    halves, found = one_after_the_other(lambda: coder(whole.n_latents, whole.sparsity.fixed_k)), {}
    for half in halves:
        divided = half.latent_tensors()
        half.load_state_dict(
            {n: t[half.own_latents] if n in divided else t for n, t in whole.state_dict().items()}
        )

    def of_half(rank):
        found[rank] = work(halves[rank])

    at_the_same_time(of_half)
    return halves, [found[0], found[1]]


def test_a_part_may_have_fewer_latents_than_are_kept():
    whole, x = coder(12, k=8), torch.randn(50, 4)
    with torch.no_grad():
        expected = whole.encode(x).to_dense()
        _, found = in_halves(whole, lambda half: half.encode(x))
    assert max(codes.l0().max() for codes in found) <= 6
    torch.testing.assert_close(torch.cat([codes.to_dense() for codes in found], dim=1), expected)


@pytest.mark.parametrize("dead", [slice(7, 11), slice(0, 2), slice(0, 0)])
def test_auxk_where_one_part_has_no_dead_latents(dead):
    whole, x = coder(12), torch.randn(64, 4)
    whole.dead.tokens_since_fired[dead] = 10**9
    whole.dead.batches.fill_(8)  # AuxK's turn

    def loss(some):
        some.begin_training(Budget(10, 640, 64))
        terms = some.auxk(x, 0.5 * x, some.W_enc.rows(), some.W_dec.rows())
        if terms["auxk"].requires_grad:
            terms["auxk"].backward()
        return terms

    halves, found = in_halves(whole, loss)
    expected = loss(whole)
    assert (expected["auxk"] > 0) == (dead.stop > 0)
    for terms in found:
        for name, term in expected.items():
            torch.testing.assert_close(terms[name], term)
    for name in ("W_enc", "W_dec"):
        rows = torch.cat([gradient(getattr(half, name).master) for half in halves])
        torch.testing.assert_close(rows, gradient(getattr(whole, name).master))
    both = gradient(halves[0].b_dec) + gradient(halves[1].b_dec)
    torch.testing.assert_close(both, gradient(whole.b_dec))


def gradient(parameter):
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


# --- resume states


@pytest.fixture(params=[state_files.LARGE, 64])
def saved(tmp_path, monkeypatch, request):
    """With one file of tensors, and with one for each matrix besides."""
    monkeypatch.setattr(state_files, "LARGE", request.param)
    run, made = Run(tmp_path), coder()
    trainer = Trainer(made, TrainConfig(steps=10), "coder")
    data = ToyData(CoderShape(4, 4))
    for step in range(3):
        trainer.step(data.next_batch(8), step)
    folder = checkpoints.save_state(run, 3, {"coder": trainer}, Position(data=data.state_dict()))
    return run, trainer, folder


def test_a_state_comes_back_to_the_last_bit_and_type(saved):
    _, trainer, folder = saved
    other = Trainer(coder(), TrainConfig(steps=10), "coder")
    data = ToyData(CoderShape(4, 4))
    assert checkpoints.load_state(folder, {"coder": other}, data) == 3
    before, after = trainer.state(), other.state()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name].nan_to_num(), tensor.nan_to_num()), name
    # two matrices and two moments of each, of 12 x 4 float32; twelve int64 counters; torch's generator
    large = 0 if state_files.LARGE > 64 else 8
    assert [path.suffix for path in sorted(folder.iterdir())] == [*[".safetensors"] * (large + 1), ".json"]


def test_the_coder_of_a_state_alone(saved):
    run, trainer, _ = saved
    other = coder()
    checkpoints.load_coders(run, 3, {"coder": other})
    for name, tensor in trainer.coder.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def damage(folder, how):
    file = min(folder.glob("*.safetensors"))
    raw = bytearray(file.read_bytes())
    about = json.loads((folder / "state.json").read_text())
    if how == "truncated":
        file.write_bytes(raw[:-5])
    elif how == "altered":
        raw[-5] ^= 1
        file.write_bytes(raw)
    elif how == "missing":
        file.unlink()
    elif how == "one more":
        file.with_name("shard-2.safetensors").write_bytes(raw)
    else:
        about = {"step": about["step"] + 1, **{k: v for k, v in about.items() if k != "step"}}
        (folder / "state.json").write_text(json.dumps(about))


def test_a_good_state_that_does_not_divide_is_not_called_damaged(saved):
    """Advice for a damaged one is to remove it."""
    stored = state_files.StoredTensors(saved[2])
    name = "coder/coder.b_enc"
    (n_latents,) = stored.shapes[name][0]
    with pytest.raises(ConfigError, match=f"does not divide into {n_latents + 1} parts"):
        stored.empty([name], {name}, n_latents + 1)


def test_a_state_of_an_older_version_is_said_to_be_one(saved):
    _, trainer, folder = saved
    (folder / "state.json").write_text(json.dumps({"step": 3, "coders": ["coder"], "data": {}}))
    with pytest.raises(TrainingError, match="the state does not fit: it names no files") as caught:
        checkpoints.load_state(folder, {"coder": trainer}, ToyData(CoderShape(4, 4)))
    assert "begin anew with --overwrite" in caught.value.next


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("files", None),
        ("files", {"model.safetensors": 1}),
        ("step", "3"),
        ("step", -1),
        ("coders", None),
        ("data", []),
        ("data_of_each", []),
        ("data_of_each", [3]),
    ],
)
def test_a_state_with_an_entry_of_another_type_says_which(saved, entry, value):
    _, trainer, folder = saved
    about = json.loads((folder / "state.json").read_text()) | {entry: value}
    del about["sha256"]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps({**about, "sha256": digest}))
    with pytest.raises(TrainingError, match=rf"does not fit: state\.json, {entry}"):
        checkpoints.load_state(folder, {"coder": trainer}, ToyData(CoderShape(4, 4)))


def test_a_state_of_other_shapes_says_which(saved):
    folder = saved[2]
    wider = Trainer(coder(n_latents=24), TrainConfig(steps=10), "coder")
    with pytest.raises(
        TrainingError, match=r"weight of coder is float32 \[.*\], and float32 \[.*\] is wanted"
    ):
        checkpoints.load_state(folder, {"coder": wider}, ToyData(CoderShape(4, 4)))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("step", 5, "it is of step 5, and the folder of another"),
        ("coders", ["other"], "it has the coders other, and coder are trained"),
        ("coders", [], "it has the coders none, and coder are trained"),
    ],
)
def test_a_state_of_something_else_says_of_what(saved, entry, value, message):
    _, trainer, folder = saved
    about = json.loads((folder / "state.json").read_text()) | {entry: value}
    del about["sha256"]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps({**about, "sha256": digest}))
    with pytest.raises(TrainingError, match=message):
        checkpoints.load_state(folder, {"coder": trainer}, ToyData(CoderShape(4, 4)))


@pytest.mark.parametrize("name", ["random.cpu", "coder/adam.exp_avg.b_enc"])
def test_a_state_with_tensors_of_another_type_says_which(saved, monkeypatch, name):
    run, trainer, _ = saved
    write = state_files.write

    def in_float16(folder, tensors, *others):
        write(folder, {**tensors, name: tensors[name].half()}, *others)

    monkeypatch.setattr(state_files, "write", in_float16)
    data = ToyData(CoderShape(4, 4))
    folder = checkpoints.save_state(run, 4, {"coder": trainer}, Position(data=data.state_dict()))
    with pytest.raises(TrainingError, match=f"does not fit: {name.rpartition('/')[2]}"):
        checkpoints.load_state(folder, {"coder": trainer}, data)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "truncated or altered"),
        ("altered", "truncated or altered"),
        ("missing", "there is no such file"),
        ("one more", "truncated or altered"),
        ("another step", "state.json: was altered"),
    ],
)
def test_a_damaged_state_is_refused(saved, how, message):
    _, trainer, folder = saved
    damage(folder, how)
    with pytest.raises(ArtifactError, match=message):
        checkpoints.load_state(folder, {"coder": trainer}, ToyData(CoderShape(4, 4)))
