"""Several processes train what one trains alone: the same losses, the same weights; and all stop together."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from together import alone, assert_alike, carry_out, log_of, start, tree

from qsae_core.results.run import Run, find_runs

ROOT = pathlib.Path(__file__).parents[1]

# --- the same as alone

TOPK = {"use": "topk", "n_latents": 128, "dead_after_tokens": 150}
K = {"use": "topk", "k": 6}
LAYERS = {"use": "synthetic", "layers": 3}
CASES = {
    "topk": {"sae": TOPK | {"restart": False}, "sparsity": K},
    "batchtopk": {"sae": TOPK | {"use": "batchtopk"}, "sparsity": {"use": "batchtopk", "k": 6}},
    "jumprelu": {"sae": TOPK | {"use": "jumprelu"}, "sparsity": {"use": "l0", "target": 6}},
    "matryoshka": {"sae": TOPK | {"use": "matryoshka"}, "sparsity": {"use": "batchtopk", "k": 6}},
    "quantized": {
        "sae": TOPK | {"use": "ternary"},
        "sparsity": K,
        "code_quantizer": {"use": "ste"},
        "run": {"compare_float": True},
    },
    "transcoder": {
        "transcoder": TOPK | {"use": "transcoder", "skip": True},
        "sparsity": K,
        "data": {"use": "synthetic", "d_target": 40},
    },
    "routed": {"sae": TOPK | {"use": "route"}, "sparsity": K, "data": LAYERS, "train": {"steps": 12}},
    "residual": {"sae": TOPK | {"use": "residual-quantized"}, "sparsity": K},
    "tensors": {"sae": TOPK | {"restart": False}, "sparsity": K},
    "per-layer": {"sae": TOPK, "sparsity": K, "data": LAYERS, "run": {"per_layer": True}},
}
OF_WORLD = {
    2: ["topk", "jumprelu", "quantized", "transcoder", "per-layer"],
    3: ["batchtopk", "matryoshka", "routed", "residual", "tensors"],
}


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_losses_and_weights_are_those_of_a_single_process(tmp_path, world):
    torch.manual_seed(0)
    torch.save(torch.randn(3000, 24) @ torch.randn(24, 24), tmp_path / "x.pt")
    cases = {name: dict(CASES[name]) for name in OF_WORLD[world]}
    if "tensors" in cases:
        cases["tensors"]["data"] = {"use": "tensors", "path": str(tmp_path / "x.pt")}
    jobs = [{"tree": tree(tmp_path / "many", name, **case)} for name, case in cases.items()]
    for outcomes in carry_out(world, tmp_path, jobs):
        assert [outcome["error"] for outcome in outcomes] == [None] * len(jobs)
    logged = set()
    for name, case in cases.items():
        single = alone(tree(tmp_path / "one", name, **case))
        path = tmp_path / "many" / single.path.relative_to(tmp_path / "one")
        assert_alike(Run(path), single)
        logged |= {key for line in log_of(single) for key, value in line.items() if value}
    assert {"loss/auxk", "dead"} <= logged  # AuxK and dead latents have had their turn


# --- all stop together, and go on in any number


def wait_until(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_an_interrupt_of_one_ends_all(tmp_path):
    out = tmp_path / "many"
    config = tree(out, "cut", sae=TOPK, sparsity=K, train={"steps": 400, "checkpoint_every": 4})
    (tmp_path / "jobs.json").write_text(json.dumps([{"tree": config}]))
    running = start(2, tmp_path / "jobs.json")
    wait_until(lambda: list(out.glob("cut/*/*/checkpoints/step_*/state.json")))
    running[1].send_signal(signal.SIGINT)
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    errors = [json.loads((tmp_path / f"jobs.{rank}").read_text())[0]["error"] for rank in (0, 1)]
    assert [kind for kind, _ in errors] == ["TrainingError", "StoppedError"]
    (run,) = find_runs(out)
    done = int(run.resume_states()[-1].name.removeprefix("step_"))
    assert f"interrupted after step {done} of 400" in errors[0][1]
    assert "torchrun --nproc-per-node 2 --no-python qsae train --config" in errors[0][1]
    assert run.record()["status"] == "interrupted"
    assert [line["step"] for line in log_of(run)] == list(range(1, done + 1))


@pytest.mark.slow
def test_another_number_of_processes_goes_on(tmp_path):
    parts = {"sae": TOPK, "sparsity": K}
    fault = {"kind": "unreadable", "rank": 1, "at": 11}
    jobs = [{"tree": tree(tmp_path / "many", "cut", **parts), "fault": fault}]
    assert [end[0]["error"][0] for end in carry_out(2, tmp_path, jobs)] == ["StoppedError", "DataError"]
    jobs = [{"tree": tree(tmp_path / "many", "cut", **parts, run={"resume": True})}]
    assert [end[0]["error"] for end in carry_out(3, tmp_path, jobs)] == [None] * 3
    (run,) = find_runs(tmp_path / "many")
    assert_alike(run, alone(tree(tmp_path / "one", "whole", **parts)))


@pytest.mark.slow
def test_what_ends_one_process_ends_all_and_is_said_once(tmp_path):
    parts = {"sae": TOPK, "sparsity": K}
    faults = {kind: {"kind": kind, "rank": 1, "at": 6} for kind in ("unreadable", "infinite")}
    jobs = [
        {"tree": tree(tmp_path, kind, **parts, train={"checkpoint_every": 3}), "fault": fault}
        for kind, fault in faults.items()
    ]
    jobs.append({"tree": tree(tmp_path, "uneven", **parts, train={"batch_size": 97})})
    jobs.append({"tree": tree(tmp_path, "unlike", **parts), "fault": {"kind": "unlike", "rank": 1, "at": 1}})
    for rank in (0, 1):  # the same path, and a file that is another one on another machine
        (tmp_path / str(rank)).mkdir()
        torch.save(torch.randn(300 + rank, 24), tmp_path / str(rank) / "x.pt")
    elsewhere = {"kind": "elsewhere", "rank": 1, "at": 1, "folder": str(tmp_path)}
    data = {"use": "tensors", "path": "x.pt"}
    jobs.append({"tree": tree(tmp_path, "elsewhere", **parts, data=data), "fault": elsewhere})
    first, second = carry_out(2, tmp_path, jobs)
    assert second[0]["error"][0] == "DataError"
    assert "disk of process 1: row 17 is gone" in second[0]["error"][1]
    assert "5 steps are saved" in second[0]["error"][1]
    assert first[0]["error"] == ["StoppedError", "process 1: disk of process 1: row 17 is gone"]
    assert second[1]["error"][0] == "TrainingError"
    assert "not finite at step 6" in second[1]["error"][1]
    assert "step_00000003" in second[1]["error"][1]
    assert first[1]["error"][0] == "StoppedError"
    for kind, last in (("unreadable", "step_00000005"), ("infinite", "step_00000003")):
        (run,) = [run for run in find_runs(tmp_path) if run.path.parts[-3] == kind]
        assert run.resume_states()[-1].name == last
        assert run.record()["status"].startswith("failed: process 1: ")
    assert "97 does not divide into 2 equal parts" in first[2]["error"][1]
    assert second[2]["error"][0] == "StoppedError"
    assert "process 1 of 2 (counted from 0) was started with other options" in first[3]["error"][1]
    assert second[3]["error"][0] == "StoppedError"
    assert (
        "process 1 of 2 (counted from 0) found other data than process 0: rows is 301 there, and 300 here"
        in (first[4]["error"][1])
    )
    assert second[4]["error"][0] == "StoppedError"
    unread = ("uneven", "unlike", "elsewhere")
    assert not [run for run in find_runs(tmp_path) if run.path.parts[-3] in unread]


@pytest.mark.slow
def test_a_first_read_that_fails_in_one_process_ends_all(tmp_path):
    """Two documents, and the second process's own is on the held-out side: while it has nothing to read, the
    first has its part of the vectors from which coders begin, and is not to wait for the other's."""
    lines = [f"A first part, line {n}: {n * n}.\n" for n in range(90)]
    more = [f"Second part {n} {n * 7}.\n" for n in range(140)]
    (tmp_path / "text.txt").write_text("".join([*lines, "\n", *more, "\n"]))
    data = {"use": "lm", "text": str(tmp_path / "text.txt"), "context": 32, "buffer_tokens": 512}
    job = {"tree": tree(tmp_path / "many", "x", sae=TOPK, sparsity=K, data=data | {"dtype": "fp32"})}
    (first,), (second,) = carry_out(2, tmp_path, [job])
    assert "training text of process" in f"{first['error']}{second['error']}"
    assert sorted(found["error"][0] for found in (first, second)) == ["DataError", "StoppedError"]
    assert not list(find_runs(tmp_path / "many"))


@pytest.mark.slow
@pytest.mark.parametrize(("world", "parts"), [(3, 1), (4, 2)])
def test_a_process_that_is_gone_is_named(tmp_path, world, parts):
    """And no other: not one that waits for the others, as one of its own group of partners does."""
    train = {"checkpoint_every": 3, "latent_parallel": parts}
    config = tree(tmp_path, "lost", sae=TOPK, sparsity=K, train=train)
    job = {"tree": config, "fault": {"kind": "gone", "rank": world - 1, "at": 6}}
    (tmp_path / "jobs.json").write_text(json.dumps([job]))
    ended = [process.wait(timeout=60) for process in start(world, tmp_path / "jobs.json")]
    assert ended == [0] * (world - 1) + [1]
    ends = [json.loads((tmp_path / f"jobs.{rank}").read_text())[0]["error"] for rank in range(world - 1)]
    (said,) = [text for kind, text in ends if kind == "LostError"]  # the others are silent
    assert f"process {world - 1} of {world} (counted from 0) did not answer any more" in said
    assert f"torchrun --nproc-per-node {world}" in said
    assert "--resume goes on from step_00000003" in said
    assert sorted(kind for kind, _ in ends) == ["LostError", *["StoppedError"] * (world - 2)]


@pytest.mark.slow
def test_a_process_that_hangs_is_named(tmp_path):
    """It answers all the same, by another thread; so do those that wait for it."""
    config = tree(tmp_path, "stuck", sae=TOPK, sparsity=K, train={"checkpoint_every": 3})
    ends = carry_out(3, tmp_path, [{"tree": config, "fault": {"kind": "hangs", "rank": 1, "at": 6}}])
    errors = [ends[rank][0]["error"] for rank in (0, 2)]
    (said,) = [text for kind, text in errors if kind == "LostError"]
    assert "process 1 of 3 (counted from 0) answered, and did not go on" in said
    assert "see what it waits for: a disk, a server, a GPU" in said
    assert "--resume goes on from step_00000003" in said
    assert sorted(kind for kind, _ in errors) == ["LostError", "StoppedError"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared", "divided"])
def test_the_commands_of_the_page(tmp_path, name):
    """Under torchrun itself: one table, lines of one process."""
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    command = next(line for line in page.splitlines() if line.endswith(f"--name {name}")).split()
    assert command[0] == "torchrun"
    place = pathlib.Path(sys.executable).parent
    command[0], command[command.index("qsae")] = str(place / "torchrun"), str(place / "qsae")
    command += ["--n-latents", "256", "--device", "cpu", "--threads", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("artifact: ") == 1
    assert done.stderr.count("step 100/100") == 1
    (run,) = find_runs(tmp_path / "results")
    assert run.finished
    divided = run.record()["train"]["latent_parallel"]
    assert divided * run.record()["data_record"].get("processes", 1) == 2
    assert divided == (2 if name == "divided" else 1)
