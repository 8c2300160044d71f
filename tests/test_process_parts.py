"""What several processes are made of, without starting any: whose tokens, entries, place in the data."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.conformance.halves import at_the_same_time
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import CoderShape, shard
from qsae_core.errors import ConfigError, LostError, StoppedError, TrainingError
from qsae_core.kernels.processes import Processes, acting, nth_largest, processes
from qsae_core.kernels.processes import alone as alone_now
from qsae_core.launched import MEETING, Launched, command, launched, machines
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import write_json
from qsae_core.results.run import Run
from qsae_core.training import checkpoints, early_end
from qsae_core.training.parts import check_members
from qsae_core.training.setup import compose_members
from qsae_core.training.start import own_device
from qsae_core.training.team import Team


@pytest.mark.parametrize(("world", "rank", "first"), [(2, 0, 3), (2, 1, 3), (3, 2, 0), (8, 5, 5), (5, 4, 7)])
def test_a_process_finds_its_own_tokens_among_every_eighth(world, rank, first):
    together = Processes()
    together.rank, together.world = rank, world
    of_batch = torch.arange(20 * world)[rank::world]
    expected = [token for token in range(first, 20 * world, 8) if token % world == rank]
    assert of_batch[together.own(first, 8)].tolist() == expected


def test_the_nth_largest_of_a_process_alone_and_how_many_equals_it_keeps():
    values = torch.tensor([0.5, 3.0, 0.25, 3.0, 1e-30, 7.0, 3.0])
    assert nth_largest(values, 1) == (7.0, 1)
    assert nth_largest(values, 3) == (3.0, 2)  # 7, and two of the three threes
    assert nth_largest(values, 5) == (0.5, 1)
    assert nth_largest(values, 7)[0] == pytest.approx(1e-30)
    many = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    assert nth_largest(many, 1234)[0] == many.sort(descending=True).values[1233].item()


def test_what_a_launcher_says():
    assert launched({}) == launched({"WORLD_SIZE": "1", "RANK": "0"}) == Launched(0, 1, None)
    assert launched({"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "1"}) == Launched(2, 4, 1)
    with pytest.raises(ConfigError, match="RANK is missing, and WORLD_SIZE is 4"):
        launched({"WORLD_SIZE": "4"})
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'two'"):
        launched({"WORLD_SIZE": "two"})


@pytest.mark.parametrize(
    ("world", "local", "expected"),
    [
        (1, None, "qsae train"),
        (16, None, "torchrun --nproc-per-node 16 --no-python qsae train"),
        (16, "16", "torchrun --nproc-per-node 16 --no-python qsae train"),
        (16, "8", f"torchrun --nnodes 2 --nproc-per-node 8 {MEETING} --no-python qsae train"),
        (12, "8", "torchrun --nproc-per-node 12 --no-python qsae train"),  # no number of such machines
        ("N", "8", "torchrun --nproc-per-node N --no-python qsae train"),
    ],
)
def test_a_command_names_processes_and_machines(world, local, expected):
    environment = {} if local is None else {"LOCAL_WORLD_SIZE": local}
    assert command("train", world, environment=environment) == expected


def test_a_run_of_two_machines_goes_on_with_two(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert machines() == 2
    assert "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend" in Run(tmp_path).resume_command


def test_whoever_does_not_see_the_results_does_not_say_that_there_are_none(tmp_path):
    run, other = Run(tmp_path / "here"), Run(tmp_path / "elsewhere")
    write_json(run.config_file, {})
    for seen, said in ((run, "there is no checkpoint yet"), (other, "on the machine of process 0")):
        with pytest.raises(LostError) as found, early_end.lost(seen):
            raise LostError("process 3 of 16 did not answer any more")
        assert said in found.value.next
        loss = TrainingError("the loss is not finite")
        early_end.explain_loss(loss, seen)
        assert said in loss.next
    assert "--resume" in found.value.next
    assert "--overwrite" not in found.value.next


def test_nobody_is_asked_outside_of_a_team():
    before, others = processes(), Processes()
    with acting(others):
        assert processes() is others
        with alone_now():
            assert processes() is before
    assert processes() is before
    assert before.world == 1


class OfTwo(Processes):
    rank, world = 1, 2


class Two(Team):
    """The second of two processes, the first of which stands somewhere else in the data."""

    rank, world, processes = 1, 2, OfTwo()

    def states(self, own):
        return [{"position": 40}, own]


@pytest.mark.parametrize(
    "known", [LostError("process 0 is gone"), StoppedError("process 0: the disk is full")]
)
def test_whoever_knows_that_the_others_end_asks_them_nothing(known):
    class Asked(Team):
        def stop_if(self, error):
            raise AssertionError("there is nobody to ask")

    with pytest.raises(type(known), match="process 0"), Asked().all_or_none():
        raise known
    with pytest.raises(AssertionError), Asked().all_or_none():
        raise ConfigError("its own")


@pytest.mark.parametrize(("delta", "refused"), [(1.0, True), (0.0, False)])
def test_a_gradient_that_no_parts_make_up_needs_whole_batches(delta, refused):
    """That of ewgs hangs on the sign of the gradient of the whole batch."""
    plugins = load_plugins()
    tree = {
        "sae": {"use": "topk", "n_latents": 16},
        "sparsity": {"use": "topk", "k": 2},
        "quantizer": {"use": "ewgs", "delta": delta},
        "data": {"use": "synthetic"},
        "train": {"steps": 2},
    }
    config = resolve([checked_layer(tree, "test")], plugins.registry)
    members = compose_members(config, plugins, ToyData(CoderShape(4, 4)))
    check_members(members, Team())
    with pytest.raises(ConfigError, match="quantizer 'ewgs' of W_dec") if refused else nullcontext() as found:
        check_members(members, Two())
    if refused:
        assert "--latent-parallel 2" in found.value.next


def test_each_process_goes_on_in_the_data_that_it_reads_alone(tmp_path):
    class Divided(ToyData):
        def divide(self, rank, world):
            return True

    run, team = Run(tmp_path), Two()
    data = shard(Divided(CoderShape(4, 4)), 1, 2)
    data.next_batch(24)
    expected = data.state_dict()
    place = checkpoints.position(data, expected, team)
    folder = checkpoints.save_state(run, 3, {}, place)
    data.next_batch(24)
    assert checkpoints.load_state(folder, {}, data, team) == 3
    assert data.state_dict() == expected
    with pytest.raises(TrainingError, match="2 of them before, and 1 now") as found:
        checkpoints.load_state(folder, {}, Divided(CoderShape(4, 4)))
    assert "torchrun --nproc-per-node 2" in found.value.next


def test_what_all_processes_read_is_one_place_for_any_number(tmp_path):
    data = shard(ToyData(CoderShape(4, 4)), 1, 2)
    data.next_batch(24)
    place = checkpoints.position(data, data.state_dict(), Two())
    assert place.data_of_each is None
    folder = checkpoints.save_state(Run(tmp_path), 3, {}, place)
    single = ToyData(CoderShape(4, 4))
    checkpoints.load_state(folder, {}, single)
    assert torch.equal(single.next_batch(6).x[1::2], data.next_batch(3).x)


def test_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    assert own_device("cuda", Launched(3, 4, 1)) == "cuda:1"
    assert own_device("cuda:1", Launched()) == "cuda:1"
    assert own_device("cpu", Launched(1, 2, 1)) == "cpu"
    with pytest.raises(ConfigError, match="2 processes cannot share cuda:0"):
        own_device("cuda:0", Launched(1, 2, 1))
    with pytest.raises(ConfigError, match="LOCAL_RANK is 2, and there are 2 CUDA devices"):
        own_device("cuda", Launched(2, 4, 2))


@pytest.mark.parametrize(
    ("values", "n", "expected"),
    [
        ([[], [1.0, 2.0, 3.0]], 2, [(2.0, 0), (2.0, 1)]),
        # of 5 and four twos, three are kept: 5, and the first process's two before the second's
        ([[2.0, 5.0], [2.0, 2.0, 1.0, 2.0]], 3, [(2.0, 1), (2.0, 1)]),
    ],
)
def test_the_nth_largest_of_two_and_who_keeps_which_of_its_equals(values, n, expected):
    found = {}

    def of_half(rank: int) -> None:
        found[rank] = nth_largest(torch.tensor(values[rank]), n)

    at_the_same_time(of_half)
    assert [found[0], found[1]] == expected
