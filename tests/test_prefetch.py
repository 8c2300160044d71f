"""Batches read ahead are those of the source, whatever happens on the way; and the thread always ends."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from qsae_core.artifact import places
from qsae_core.component import ComponentConfig
from qsae_core.compose.compose import compose_data
from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.errors import DataError
from qsae_core.plugins.records import load_plugins
from qsae_core.training import checkpoints
from qsae_core.training import run as training_run
from qsae_core.training.prefetch import BatchReader, batches_ahead
from qsae_core.training.watcher import Unwatched


class Counting(DataSource):
    """Its vectors are 0, 1, 2, ...; ``before`` is called with the number of each batch before it is made."""

    d_in = d_out = 1
    model_name = layer = "counting"

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        super().__init__(ComponentConfig())
        self.before, self.taken, self.read = before, 0, []

    def next_batch(self, size: int) -> Batch:
        self.before(len(self.read))
        self.read.append(size)
        x = torch.arange(self.taken, self.taken + size, dtype=torch.float32)[:, None]
        self.taken += size
        return Batch(x, x)

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.taken = state["taken"]


def first(reader: BatchReader) -> int:
    return int(reader.next_batch().x[0])


def wait_until(condition: Callable[[], bool]) -> None:
    """Sees it come true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def prefetch_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("qsae-prefetch")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert prefetch_threads() == []


# --- the reader


@pytest.mark.parametrize("ahead", [0, 1, 2, 20])
def test_batches_come_in_the_order_of_the_source(ahead: int) -> None:
    with BatchReader(Counting(), size=3, count=8, ahead=ahead) as reader:
        batches = [reader.next_batch() for _ in range(8)]
    assert [b.x[:, 0].tolist() for b in batches] == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(8)]
    assert all(b.y is b.x for b in batches)


def test_so_many_batches_wait_and_not_one_is_read_that_will_not_be_taken() -> None:
    source = Counting()
    with BatchReader(source, size=1, count=4, ahead=2) as reader:
        assert source.read == []
        first(reader)
        wait_until(lambda: len(source.read) == 3)  # the one handed out, and two that wait
        time.sleep(0.05)
        assert len(source.read) == 3
        for _ in range(3):
            first(reader)
    assert len(source.read) == 4


def test_the_next_batch_is_read_while_the_caller_computes() -> None:
    threads = []
    source = Counting(lambda number: threads.append(threading.current_thread()))
    with BatchReader(source, size=1, count=3, ahead=1) as reader:
        first(reader)
        wait_until(lambda: len(source.read) == 2)
    assert {thread.name for thread in threads} == {"qsae-prefetch_0"}


@pytest.mark.parametrize("ahead", [0, 2])
def test_nothing_is_read_while_it_is_paused(ahead: int) -> None:
    """Nor is a batch cut off: the one that is read is waited for."""
    begun = threading.Event()
    source = Counting(lambda number: (begun.set(), time.sleep(0.05)))  # type: ignore[arg-type, return-value]
    with BatchReader(source, size=1, count=6, ahead=ahead) as reader:
        assert first(reader) == 0
        begun.wait(10)
        with reader.paused():
            n = len(source.read)
            time.sleep(0.2)
            assert len(source.read) == n
        assert [first(reader) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_without_reading_ahead_there_is_no_thread() -> None:
    threads = []
    source = Counting(lambda number: threads.append(threading.current_thread()))
    with BatchReader(source, size=1, count=3, ahead=0) as reader:
        assert [first(reader), first(reader)] == [0, 1]
        assert len(source.read) == 2
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_the_state_is_that_behind_the_last_batch_handed_out(ahead: int) -> None:
    """Batches of 5: behind the second one the source is at 10, however many wait."""
    source = Counting()
    with BatchReader(source, size=5, count=9, ahead=ahead) as reader:
        assert reader.state_dict() == {"taken": 0}
        first(reader), first(reader)
        wait_until(lambda: source.taken == 5 * (2 + ahead))
        assert reader.state_dict() == {"taken": 10}
    assert source.state_dict() == {"taken": 10}  # the source is put back
    assert source.next_batch(1).x.item() == 10


class Interrupted(KeyboardInterrupt):
    """An exception that is no ``Exception``."""


@pytest.mark.parametrize("kind", [DataError, OSError, Interrupted])
@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_an_exception_stands_for_its_batch(ahead: int, kind: type[BaseException]) -> None:
    tried = []

    def damaged_file(number: int) -> None:
        tried.append(number)
        if number == 3:
            raise kind("row 3 holds NaN")

    source = Counting(damaged_file)
    with BatchReader(source, size=1, count=9, ahead=ahead) as reader:
        assert [first(reader) for _ in range(3)] == [0, 1, 2]
        for _ in range(2):  # and it stays the next thing there is
            with pytest.raises(kind, match="row 3 holds NaN") as caught:
                reader.next_batch()
        assert "damaged_file" in [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert reader.state_dict() == {"taken": 3}
    # the thread stops there, though there is room for more; without one, each call tries again
    assert tried == ([0, 1, 2, 3, 3] if ahead == 0 else [0, 1, 2, 3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_brought_to_the_gpu_by_the_thread() -> None:
    with BatchReader(Counting(), size=1000, count=50, ahead=3, device="cuda") as reader:
        for i in range(50):
            batch = reader.next_batch()
            assert batch.x.is_cuda
            assert torch.equal(batch.x[:, 0].cpu(), torch.arange(1000.0 * i, 1000.0 * (i + 1)))


# --- its end


def test_closing_does_not_wait_for_what_is_left_to_read() -> None:
    source = Counting(lambda number: time.sleep(0.02))
    with BatchReader(source, size=1, count=1000, ahead=900) as reader:
        first(reader)
    assert len(source.read) < 100
    assert prefetch_threads() == []


def test_closing_when_all_wait_that_may() -> None:
    source = Counting()
    with BatchReader(source, size=1, count=1000, ahead=2) as reader:
        first(reader)
        wait_until(lambda: len(source.read) == 3)
    assert prefetch_threads() == []
    assert source.taken == 1


def test_closing_cuts_a_slow_batch_off() -> None:
    """As a language model takes its time: in many short steps."""

    def slow(number: int) -> None:
        if number == 1:
            started.set()
            for _ in range(6000):
                time.sleep(0.01)

    started = threading.Event()
    reader = BatchReader(Counting(slow), size=1, count=9, ahead=1)
    first(reader)
    assert started.wait(10)
    clock = time.monotonic()
    reader.close()
    assert time.monotonic() - clock < 5
    assert prefetch_threads() == []
    assert reader.state_dict() == {"taken": 1}


def test_an_error_of_the_caller_ends_the_thread_and_is_what_is_raised() -> None:
    source = Counting(lambda number: time.sleep(0.01))
    with (
        pytest.raises(ZeroDivisionError),
        BatchReader(source, size=1, count=9, ahead=2) as reader,
    ):
        1 // first(reader)
    assert prefetch_threads() == []


def test_closing_twice_and_closing_what_was_never_read() -> None:
    source = Counting()
    reader = BatchReader(source, size=1, count=9, ahead=2)
    reader.close()
    reader.close()
    assert source.read == []


def test_closing_at_any_moment(capfd: pytest.CaptureFixture[str]) -> None:
    """The thread may be anywhere; nothing is printed, and the source is put back."""
    for i in range(300):
        source = Counting()
        with BatchReader(source, size=2, count=50, ahead=3) as reader:
            for _ in range(i % 7):
                first(reader)
            time.sleep(i % 5 * 1e-5)
        assert source.taken == 2 * (i % 7)
    assert capfd.readouterr().err == ""


def test_the_thread_computes_with_as_many_cores_as_the_caller() -> None:
    """Sums depend on how they are split among cores, so that batches would not be equal bit for bit."""
    seen = []
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        source = Counting(lambda number: seen.append(torch.get_num_threads()))
        with BatchReader(source, size=1, count=1, ahead=1) as reader:
            first(reader)
    finally:
        torch.set_num_threads(cores)
    assert seen == [1]


def test_auto_reads_ahead_what_the_source_says_while_a_gpu_trains() -> None:
    source = Counting()
    source.prefetch = 3
    assert [batches_ahead("auto", source, device) for device in ("cuda", "cuda:1", "cpu")] == [3, 3, 0]
    assert [batches_ahead(n, source, device) for n in (0, 5) for device in ("cuda", "cpu")] == [0, 0, 5, 5]
    assert batches_ahead("auto", Counting(), "cuda") == 0  # it says nothing


# --- whole runs


@pytest.fixture
def vectors(tmp_path: pathlib.Path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "states.npy", rng.normal(size=(4096, 24)).astype(np.float32))
    return tmp_path / "states.npy"


def configuration(vectors: pathlib.Path, name: str, prefetch: int | str, **run: Any) -> Any:
    tree = {
        "sae": {"use": "topk", "n_latents": 96},
        "sparsity": {"use": "topk", "k": 4},
        # pools of 4 blocks of 64 rows: a batch of 128 in every two needs the next pool
        "data": {"use": "tensors", "path": str(vectors), "shuffle_blocks": 4},
        "train": {
            "steps": 24,
            "batch_size": 128,
            "eval_tokens": 128,
            "eval_every": 3,
            "statistics_tokens": 512,
            "checkpoint_every": 10,
            "prefetch": prefetch,
        },
        "run": {"out": str(vectors.parent / "results"), "device": "cpu", "threads": 1, "name": name, **run},
        "metrics": ["reconstruction"],
        "evaluate": ["reconstruction"],
    }
    return resolve([checked_layer(tree, "test")], load_plugins().registry)


def train(config: Any, watcher: Any = None) -> Any:
    return training_run.train(config, load_plugins(), watcher or Unwatched())


def trained_bytes(run: Any) -> bytes:
    """The tensors alone; the header in front of them holds a digest of the options."""
    raw = (run.final / places.TENSORS).read_bytes()
    return raw[8 + int.from_bytes(raw[:8], "little") :]


def test_a_run_that_reads_ahead_ends_bit_equal_to_one_that_does_not(vectors: pathlib.Path) -> None:
    plain = trained_bytes(train(configuration(vectors, "plain", 0)))
    for ahead in (1, 5):
        assert trained_bytes(train(configuration(vectors, f"ahead-{ahead}", ahead))) == plain


def test_a_run_cut_off_while_batches_wait_resumes_bit_equal(
    vectors: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off at step 20 of 24 while 4 batches wait: all that are left."""
    whole = train(configuration(vectors, "whole", 0))
    save_state = checkpoints.save_state

    class Killed(BaseException):
        pass

    def kill_after_saving(run: Any, step: int, *arguments: Any) -> Any:
        path = save_state(run, step, *arguments)
        if step == 20:
            raise Killed
        return path

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_state", kill_after_saving)
        with pytest.raises(Killed):
            train(configuration(vectors, "cut", 4))
    resumed = train(configuration(vectors, "cut", 4, resume=True))
    assert trained_bytes(resumed) == trained_bytes(whole)


def test_ctrl_c_while_batches_wait_saves_and_resumes_bit_equal(vectors: pathlib.Path) -> None:
    script = f"""
        import importlib.util, os, pathlib
        spec = importlib.util.spec_from_file_location("test_prefetch", {__file__!r})
        tests = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests)
        class Pressing(tests.Unwatched):
            def logged(self, step, values):
                if step == 5:
                    os.kill(os.getpid(), {int(signal.SIGINT)})
        try:
            tests.train(tests.configuration(pathlib.Path({str(vectors)!r}), "pressed", 3), Pressing())
        except Exception as error:
            print(error)
            print(tests.prefetch_threads())
    """
    code = textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "interrupted after step 5 of 24" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    resumed = train(configuration(vectors, "pressed", 3, resume=True))
    assert trained_bytes(resumed) == trained_bytes(train(configuration(vectors, "whole", 0)))


def test_nothing_else_uses_the_source_while_it_is_read_ahead(
    vectors: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics, held-out vectors, checkpoints, records and evaluations: each finds the source alone."""
    from qsae_data_tensors.source import TensorsSource

    alone, met, used = threading.Lock(), [], set()

    def watched(name: str) -> Any:
        original = getattr(TensorsSource, name)

        def call(self: TensorsSource, *arguments: Any, **options: Any) -> Any:
            free = alone.acquire(blocking=False)
            if not free and threading.current_thread() not in holders:
                met.append(name)
            used.add((name, threading.current_thread().name))
            holders.append(threading.current_thread())
            try:
                time.sleep(0.002)
                result = original(self, *arguments, **options)
                return list(result) if name == "held_out" else result
            finally:
                holders.pop()
                if free:
                    alone.release()

        return call

    holders: list[threading.Thread] = []
    for name in ("next_batch", "held_out", "describe", "language_model", "state_dict", "load_state_dict"):
        monkeypatch.setattr(TensorsSource, name, watched(name))
    train(configuration(vectors, "watched", 3))
    assert met == []
    assert {("next_batch", "qsae-prefetch_0"), ("held_out", "MainThread")} <= used


def test_bad_data_that_is_read_ahead_stops_the_run_at_its_step(vectors: pathlib.Path) -> None:
    rows = np.load(vectors)
    rows[2340:2350] = np.nan  # in training, and not in the first pools
    np.save(vectors, rows)
    data = compose_data(configuration(vectors, "bad", 0), load_plugins().registry)
    data.next_batch(512)
    good = 0
    with contextlib.suppress(DataError):
        while data.next_batch(128):
            good += 1
    assert 0 < good < 24
    steps = []

    class Noting(Unwatched):
        def logged(self, step: int, values: Any) -> None:
            steps.append(step)

    with pytest.raises(DataError, match="the row holds NaN"):
        train(configuration(vectors, "bad", 4), Noting())
    assert steps == list(range(1, good + 1))
    assert prefetch_threads() == []
