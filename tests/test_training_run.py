"""Whole runs on a small tensor file: results layout, resume, interrupts, bad data, full disks."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from qsae_sae_ternary.model import TernarySAE

import qsae_core
from qsae_core.artifact import description as coder_json
from qsae_core.artifact import places
from qsae_core.compose.compose import compose_coder, compose_data
from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.contracts.coder import CoderShape
from qsae_core.errors import ConfigError, DataError, QsaeError, TrainingError
from qsae_core.evaluation import run as evaluation_run
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json
from qsae_core.results.run import find_runs
from qsae_core.training import checkpoints, state_files
from qsae_core.training import run as training_run
from qsae_core.training.prefetch import BatchReader
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Watcher


class Silent(Watcher):
    """A watcher that notes what it was told."""

    def __init__(self):
        self.lines, self.steps = [], []

    def message(self, text):
        self.lines.append(text)

    def start(self, run, first_step, steps):
        self.steps = []

    def logged(self, step, values):
        self.steps.append((step, dict(values)))


@pytest.fixture
def vectors(tmp_path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(64, 24))
    codes = rng.random((4096, 64)) * (rng.random((4096, 64)) < 0.05)
    noise = rng.normal(size=(4096, 24)) * 0.01
    np.save(tmp_path / "states.npy", (codes @ atoms + noise + 3.0).astype(np.float32))
    return tmp_path / "states.npy"


def configuration(vectors, sae="ternary", **changes):
    tree = {
        "sae": {"n_latents": 96} | (sae if isinstance(sae, dict) else {"use": sae}),
        "sparsity": {"use": "topk", "k": 4},
        "data": {"use": "tensors", "path": str(vectors)},
        "train": {"steps": 24, "batch_size": 128, "eval_tokens": 128, "statistics_tokens": 512},
        "run": {"out": str(vectors.parent / "results"), "device": "cpu", "threads": 1},
        "metrics": ["reconstruction", "sparsity"],
        "evaluate": ["reconstruction"],
    }
    for section, values in changes.items():
        tree[section] = tree.get(section, {}) | values
    return resolve([checked_layer(tree, "test")], load_plugins().registry)


def run(config, watcher=None):
    return training_run.train(config, load_plugins(), watcher or Silent())


def weights(finished, name="coder"):
    folder = finished.final if name == "coder" else finished.checkpoints / name
    return (folder / places.TENSORS).read_bytes()


def test_a_run_leaves_config_metrics_and_an_artifact_that_computes_the_same(vectors):
    config = configuration(vectors, run={"save_float": True})
    done = run(config)
    assert done.path == vectors.parent / "results" / "ternary-states" / "tensors" / "24"
    record = read_json(done.config_file)
    assert record["completed_at"] is not None
    assert record["versions"]["qsae-sae-ternary"]
    summary = read_json(done.metrics_file)
    values = summary["coders"]["coder"]["evaluations"]["reconstruction"]
    assert 0 < values["fvu"] < 1
    assert values["l0"] <= 4
    size = sum((done.final / n).stat().st_size for n in (places.TENSORS, coder_json.DESCRIPTION))
    assert summary["coders"]["coder"]["artifact"]["bytes"] == size
    assert [r.path for r in find_runs(vectors.parent / "results")] == [done.path]
    steps = [
        json.loads(line)["step"] for line in (done.path / "metrics" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, 25))


def test_the_loaded_artifact_equals_the_trained_model_bit_for_bit(vectors):
    config = configuration(vectors, run={"save_float": True})
    done = run(config)
    trained = compose_coder(config, load_plugins().registry, CoderShape(24, 24))
    text = (done.final / coder_json.DESCRIPTION).read_text()
    from qsae_core.artifact.tensor_files import load_tensors

    trained.load_state_dict(load_tensors(done.final / places.MASTERS, text))
    trained.eval()
    loaded = qsae_core.load(done.path)
    x = torch.from_numpy(np.load(vectors)[:64])
    with torch.no_grad():
        assert torch.equal(loaded(x), trained(x))
        assert torch.equal(loaded.decode(loaded.encode(x)), loaded(x))
        assert torch.equal(loaded.atoms(), trained.atoms())
    weights_hat = loaded.W_dec()
    levels = torch.unique((weights_hat / weights_hat.abs().amax(1, keepdim=True)).round(decimals=5))
    assert levels.tolist() == [-1.0, 0.0, 1.0]


def test_the_same_seed_repeats_a_run_bit_for_bit_and_another_does_not(vectors):
    first = run(configuration(vectors, run={"name": "a"}))
    again = run(configuration(vectors, run={"name": "b"}))
    other = run(configuration(vectors, run={"name": "c", "seed": 1}))
    for name in ("coder", "float_twin"):
        digests = {_tensors_only(r, name) for r in (first, again, other)}
        assert len(digests) == 2
        assert _tensors_only(first, name) == _tensors_only(again, name)


def test_config_json_repeats_the_run(vectors):
    first = run(configuration(vectors, run={"name": "a"}))
    tree = read_json(first.config_file)
    tree["run"]["name"] = "again"
    again = run(resolve([checked_layer(tree, "config.json")], load_plugins().registry))
    assert _tensors_only(first) == _tensors_only(again)


def test_a_resumed_run_ends_bit_equal_to_one_that_was_not_interrupted(vectors, monkeypatch):
    whole = run(configuration(vectors, run={"name": "whole"}))
    config = configuration(vectors, run={"name": "cut"}, train={"checkpoint_every": 10})

    class Killed(BaseException):
        pass

    save_state = checkpoints.save_state

    def kill_after_saving(run_, step, *arguments):
        path = save_state(run_, step, *arguments)
        if step == 20:
            raise Killed
        return path

    monkeypatch.setattr(checkpoints, "save_state", kill_after_saving)
    with pytest.raises(Killed):
        run(config)
    monkeypatch.setattr(checkpoints, "save_state", save_state)
    watcher = Silent()
    resumed = run(
        configuration(vectors, run={"name": "cut", "resume": True}, train={"checkpoint_every": 10}), watcher
    )
    assert watcher.steps[0][0] == 21
    for name in ("coder", "float_twin"):
        assert _tensors_only(resumed, name) == _tensors_only(whole, name)
    logged = (resumed.path / "metrics" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == list(range(1, 25))


def test_ctrl_c_saves_and_says_how_to_resume(vectors):
    script = f"""
import json, os, signal, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from test_training_run import Silent, configuration, run
import pathlib
import shutil
class Pressing(Silent):
    def logged(self, step, values):
        if step == 5:
            os.kill(os.getpid(), {int(signal.SIGINT)})
try:
    run(configuration(pathlib.Path({str(vectors)!r})), Pressing())
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "interrupted after step 5 of 24" in done.stdout, done.stderr
    assert "--resume" in done.stdout
    config = configuration(vectors)
    resumed = run(configuration(vectors, run={"resume": True}))
    whole = run(configuration(vectors, run={"name": "whole"}))
    assert _tensors_only(resumed) == _tensors_only(whole)
    assert config.run.resume is False


def test_a_finished_run_is_never_overwritten_silently(vectors):
    done = run(configuration(vectors))
    before = weights(done)
    with pytest.raises(TrainingError, match="a finished run is there already") as caught:
        run(configuration(vectors))
    assert "--overwrite" in str(caught.value)
    assert weights(done) == before
    run(configuration(vectors, run={"overwrite": True}))


def test_resuming_with_another_configuration_names_what_differs(vectors):
    config = configuration(vectors, train={"checkpoint_every": 5})
    done = run(config)
    done.update_record(completed_at=None)
    with pytest.raises(TrainingError, match="different: train"):
        run(configuration(vectors, run={"resume": True}, train={"checkpoint_every": 5, "lr": 0.5}))


def test_a_non_finite_loss_stops_with_step_statistics_and_the_last_checkpoint(vectors, monkeypatch):
    step = Trainer.step

    def poisoned(self, batch, number):
        if number == 12:
            batch.x[3, 2] = float("inf")
        return step(self, batch, number)

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(TrainingError, match="not finite at step 13") as caught:
        run(configuration(vectors, train={"checkpoint_every": 10}))
    assert "1 values not finite" in str(caught.value)
    assert "step_00000010" in str(caught.value)
    (made,) = find_runs(vectors.parent / "results")
    assert made.record()["status"] == "failed: non-finite loss"


def test_data_that_cannot_be_read_keeps_the_steps_that_are_done(vectors, monkeypatch):
    whole = run(configuration(vectors, run={"name": "whole"}))
    next_batch = BatchReader.next_batch
    taken = []

    def broken(self):
        taken.append(1)
        if len(taken) == 8:
            raise DataError("row 3000: the row holds NaN", next="correct the row")
        return next_batch(self)

    monkeypatch.setattr(BatchReader, "next_batch", broken)
    with pytest.raises(DataError, match="correct the row; 7 steps are saved; when that") as caught:
        run(configuration(vectors, run={"name": "cut"}))
    cut = next(r for r in find_runs(vectors.parent / "results") if "cut" in str(r.path))
    assert cut.record()["status"] == "failed: row 3000: the row holds NaN"
    assert f"--config {cut.config_file} --resume" in str(caught.value)
    monkeypatch.setattr(BatchReader, "next_batch", next_batch)
    resumed = run(configuration(vectors, run={"name": "cut", "resume": True}))
    assert resumed.record()["status"] == "finished"
    assert _tensors_only(resumed) == _tensors_only(whole)


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(vectors, monkeypatch):
    results = vectors.parent / "results"

    def refused(self, sample):
        assert list(results.iterdir())
        raise ConfigError("there is no such screen")

    initialize = TernarySAE.initialize
    monkeypatch.setattr(TernarySAE, "initialize", refused)
    with pytest.raises(ConfigError):
        run(configuration(vectors))
    assert not list(results.iterdir())
    monkeypatch.setattr(TernarySAE, "initialize", initialize)
    done = run(configuration(vectors))
    monkeypatch.setattr(TernarySAE, "initialize", refused)
    with pytest.raises(ConfigError):  # a neighbour stays
        run(configuration(vectors, train={"steps": 5, "tokens": None}))
    assert [r.path for r in find_runs(results)] == [done.path]


def test_a_run_has_the_name_that_it_was_given(vectors):
    made = run(configuration(vectors, run={"name": "My Run", "compare_float": False}))
    assert made.path == vectors.parent / "results" / "My Run" / "tensors" / "24"


def test_an_exception_is_in_the_record(vectors, monkeypatch):
    def faulty(self, batch, number):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Trainer, "step", faulty)
    with pytest.raises(RuntimeError):
        run(configuration(vectors))
    (made,) = find_runs(vectors.parent / "results")
    assert made.record()["status"] == "failed: RuntimeError: out of memory"


def test_a_full_disk_leaves_what_was_complete(vectors, monkeypatch):
    from torch.distributed.checkpoint.filesystem import FileSystem

    opened = FileSystem.create_stream

    def full(system, path, mode):
        if "step_00000020" in str(path):
            pathlib.Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return opened(system, path, mode)

    monkeypatch.setattr(FileSystem, "create_stream", full)
    with pytest.raises(QsaeError, match="the disk is full"):
        run(configuration(vectors, train={"checkpoint_every": 10}))
    folder = vectors.parent / "results" / "ternary-states" / "tensors" / "24" / "checkpoints"
    assert [p.name for p in folder.iterdir()] == ["step_00000010"]
    monkeypatch.setattr(FileSystem, "create_stream", opened)
    resumed = run(configuration(vectors, run={"resume": True}, train={"checkpoint_every": 10}))
    assert resumed.finished


def test_a_run_that_goes_on_is_neither_taken_up_nor_replaced(vectors, monkeypatch):
    """Not by another process; by the one that has it, as after an error in a notebook, it is."""
    checkpoints_of = {"checkpoint_every": 10}

    class Ends(Silent):
        def logged(self, step, values):
            if step == 12:
                raise DataError("cut off")

    with pytest.raises(DataError):
        run(configuration(vectors, train=checkpoints_of), Ends())
    (made,) = find_runs(vectors.parent / "results")
    own = made.record()["process"]
    assert own["pid"] == os.getpid()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        made.update_record(status="running", process={"host": own["host"], "pid": other.pid})
        for how in ("resume", "overwrite"):
            with pytest.raises(TrainingError, match=f"process {other.pid} of this machine goes on") as caught:
                run(configuration(vectors, run={how: True}, train=checkpoints_of))
            assert f"kill {other.pid}" in caught.value.next
        # whoever has that number now began at another time: the number was given out again
        gone = {"host": own["host"], "pid": other.pid, "began": "at another time"}
        if os.path.exists("/proc/self/stat"):
            made.update_record(process=gone)
        else:
            made.update_record(process=own)
        assert len(made.resume_states()) == 1
        assert run(configuration(vectors, run={"resume": True}, train=checkpoints_of)).finished
    made.update_record(status="running", completed_at=None, process=own)
    assert run(configuration(vectors, run={"overwrite": True}, train=checkpoints_of)).finished


HALF = """
import os, pathlib, signal, sys
from qsae_core.results.files import atomic_file, atomic_folder
with atomic_folder(pathlib.Path(sys.argv[1])) as folder, atomic_file(pathlib.Path(sys.argv[2])) as file:
    (folder / "half.safetensors").write_bytes(b"half")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_when_its_run_is_taken_up(vectors):
    class Ends(Silent):
        def logged(self, step, values):
            if step == 12:
                raise DataError("cut off")

    with pytest.raises(DataError):
        run(configuration(vectors, train={"checkpoint_every": 10}), Ends())
    (made,) = find_runs(vectors.parent / "results")
    places = [str(made.checkpoints / "step_00000020"), str(made.path / "metrics" / "step_00000012.json")]
    killed = subprocess.run([sys.executable, "-c", HALF, *places], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = sorted(made.path.rglob(".*.tmp"))
    assert len(left) == 2
    kept = [
        left[0].with_name(left[0].name.replace(*change))
        for change in (
            (f".{socket.gethostname()}", ".elsewhere"),  # nobody here knows whether that one goes on
            (left[0].name.split(".")[-3], str(os.getppid())),
        )
    ]
    for folder in kept:
        folder.mkdir()
    run(configuration(vectors, run={"resume": True}, train={"checkpoint_every": 10}))
    assert sorted(made.path.rglob(".*.tmp")) == sorted(kept)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="nothing here is always full")
def test_a_full_disk_at_a_line_of_the_log_says_how_to_go_on(vectors):
    class Fills(Silent):
        def logged(self, step, values):
            if step == 12:
                (made,) = find_runs(vectors.parent / "results")
                log = made.path / "metrics" / "log.jsonl"
                log.rename(log.with_suffix(".kept"))
                log.symlink_to("/dev/full")

    with pytest.raises(QsaeError, match="the disk is full") as caught:
        run(configuration(vectors, train={"checkpoint_every": 10}), Fills())
    assert "--resume goes on from step_00000010" in caught.value.next
    (made,) = find_runs(vectors.parent / "results")
    assert caught.value.where == str(made.path / "metrics" / "log.jsonl")
    assert made.record()["status"].startswith("failed: ")
    log = made.path / "metrics" / "log.jsonl"
    log.with_suffix(".kept").replace(log)
    with log.open("a") as file:
        file.write('{"step": 13, "lo')  # what of a line found room
    run(configuration(vectors, run={"resume": True}, train={"checkpoint_every": 10}))
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 25))


@pytest.mark.parametrize("lost", ["data", "step", "row", "norms", "rows", "random.cpu", "coder/coder.b_enc"])
def test_a_state_of_another_version_says_what_it_lacks(vectors, monkeypatch, lost):
    """A key of the state or of the data's part of it, a generator, a tensor of the coder."""
    write = state_files.write

    def less(folder, tensors, *others):
        write(folder, {name: tensor for name, tensor in tensors.items() if name != lost}, *others)

    with monkeypatch.context() as patch:
        patch.setattr(state_files, "write", less)
        done = run(configuration(vectors, train={"checkpoint_every": 10}))
    done.update_record(completed_at=None)
    state = done.resume_states()[-1]
    tree = json.loads((state / checkpoints.STATE).read_text())
    for keys in (tree, tree.get("data", {})):
        keys.pop(lost, None)
    del tree["sha256"]
    tree["sha256"] = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    (state / checkpoints.STATE).write_text(json.dumps(tree))
    with pytest.raises(
        TrainingError, match=r"the state does not fit: .*" + lost.rpartition("/")[2]
    ) as caught:
        run(configuration(vectors, train={"checkpoint_every": 10}, run={"resume": True}))
    assert caught.value.where == str(state)
    assert "begin anew with --overwrite" in caught.value.next


def test_old_resume_states_are_removed(vectors):
    done = run(configuration(vectors, train={"checkpoint_every": 5}))
    assert [p.name for p in done.resume_states()] == ["step_00000020"]
    assert sorted(p.name for p in done.checkpoints.iterdir()) == ["final", "float_twin", "step_00000020"]


def end_the_process(*arguments, **options):
    """As a cluster does: SIGTERM, and some time."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    raise AssertionError("SIGTERM ended nothing")


def test_sigterm_while_a_run_evaluates_is_recorded(vectors, monkeypatch):
    monkeypatch.setattr(evaluation_run, "evaluate", end_the_process)
    with pytest.raises(TrainingError, match="while the coder was evaluated") as caught:
        run(configuration(vectors))
    assert read_json(pathlib.Path(str(caught.value.where)) / "config.json")["status"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_before_the_first_step_leaves_no_folder(vectors, monkeypatch):
    monkeypatch.setattr(training_run, "statistics_sample", end_the_process)
    with pytest.raises(KeyboardInterrupt):
        run(configuration(vectors))
    assert not list((vectors.parent / "results").rglob("config.json"))


def test_a_damaged_checkpoint_names_the_one_before(vectors):
    done = run(configuration(vectors, train={"checkpoint_every": 10}))
    done.update_record(completed_at=None)
    older, latest = done.checkpoints / "step_00000010", done.resume_states()[-1]
    shutil.copytree(latest, older, dirs_exist_ok=True)
    with (latest / checkpoints.STATE).open("ab") as file:
        file.write(b"}")
    with pytest.raises(QsaeError) as caught:
        run(configuration(vectors, train={"checkpoint_every": 10}, run={"resume": True}))
    assert caught.value.next == f"remove {latest}; --resume then goes on from step_00000010"
    shutil.rmtree(older)
    with pytest.raises(QsaeError) as caught:
        run(configuration(vectors, train={"checkpoint_every": 10}, run={"resume": True}))
    assert caught.value.next == "there is no older checkpoint; begin anew with --overwrite"


def test_a_run_that_is_cut_off_while_it_evaluates_resumes_there(vectors, monkeypatch):
    whole = run(configuration(vectors, run={"name": "whole"}))

    def pressed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation_run, "evaluate", pressed)
        with pytest.raises(TrainingError, match="while the coder was evaluated") as caught:
            run(configuration(vectors))
    assert str(caught.value.next).endswith("--resume evaluates it")
    assert read_json(pathlib.Path(str(caught.value.where)) / "config.json")["status"] == "interrupted"
    watcher = Silent()
    resumed = run(configuration(vectors, run={"resume": True}), watcher)
    assert watcher.steps == []  # no step was left to train
    assert _tensors_only(resumed) == _tensors_only(whole)
    assert resumed.finished


def test_the_float_twin_of_a_ternary_coder_is_a_topk_sae_bit_for_bit(vectors):
    ternary = run(configuration(vectors, run={"name": "ternary"}))
    topk = run(configuration(vectors, sae="topk", run={"name": "topk"}))
    # a rotation changes what Adam does; the twin is rotated as the ternary coder is, topk only if told to
    assert _tensors_only(ternary, "float_twin") != _tensors_only(topk)
    rotated = run(configuration(vectors, sae={"use": "topk", "rotate": True}, run={"name": "rotated"}))
    assert _tensors_only(ternary, "float_twin") == _tensors_only(rotated)


def test_held_out_vectors_are_not_trained_on(vectors):
    config = configuration(vectors)
    data = compose_data(config, load_plugins().registry)
    held = {tuple(row) for b in data.held_out(10_000, 64) for row in b.x[:, :3].tolist()}
    seen = {tuple(row) for _ in range(80) for row in data.next_batch(128).x[:, :3].tolist()}
    assert held
    assert not held & seen


def _tensors_only(finished, name="coder"):
    """The bytes of the tensors, without the header that holds the configuration's digest."""
    raw = weights(finished, name)
    header = int.from_bytes(raw[:8], "little")
    return raw[8 + header :]
