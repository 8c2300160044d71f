"""Processes that have a part of the latents each train what one trains alone; states fit any number."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from together import alone, assert_alike, carry_out, log_of, tree

from qsae_core.results.run import Run, find_runs

TOPK = {"use": "topk", "n_latents": 132, "dead_after_tokens": 150}
BATCHTOPK = TOPK | {"use": "batchtopk"}
K = {"use": "topk", "k": 6}
CASES = {
    "topk": {"sae": TOPK | {"restart": False}, "sparsity": K},
    "restarts": {"sae": TOPK, "sparsity": K, "train": {"screen": "bf16"}},
    "batchtopk": {"sae": BATCHTOPK, "sparsity": {"use": "batchtopk", "k": 6}},
    "jumprelu": {
        "sae": {"use": "jumprelu", "n_latents": 132, "dead_after_tokens": 150, "preact_coefficient": 0.01},
        "sparsity": {"use": "l0", "target": 6},
    },
    "vanilla": {"sae": {"use": "vanilla", "n_latents": 132}, "sparsity": {"use": "l1"}},
    "ranked-by-norm": {"sae": {"use": "vanilla", "n_latents": 132}, "sparsity": K},
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
}
OF_WORLD = {
    (2, 2): ["topk", "jumprelu", "vanilla", "quantized", "transcoder"],
    (3, 3): ["restarts", "batchtopk", "ranked-by-norm"],
    (4, 2): ["topk", "batchtopk", "transcoder"],
}


def job(out, name, parts, **case):
    """A run in so many parts, as ``together.tree``; held-out metrics look at all latents."""
    train = case.pop("train", {}) | {"latent_parallel": parts}
    return {"tree": tree(out, name, train=train, **({"metrics": ["reconstruction", "sparsity"]} | case))}


def alone_with(out, name, **case):
    return alone(job(out, name, 1, **case)["tree"])


@pytest.mark.slow
@pytest.mark.parametrize(("world", "parts"), OF_WORLD)
def test_losses_and_weights_are_those_of_a_single_process(tmp_path, world, parts):
    names = OF_WORLD[world, parts]
    jobs = [job(tmp_path / "many", name, parts, **CASES[name]) for name in names]
    for outcomes in carry_out(world, tmp_path, jobs):
        assert [outcome["error"] for outcome in outcomes] == [None] * len(jobs)
    logged = set()
    for name in names:
        single = alone_with(tmp_path / "one", name, **CASES[name])
        run = Run(tmp_path / "many" / single.path.relative_to(tmp_path / "one"))
        assert_alike(run, single)
        assert_measured_alike(run, single)
        logged |= {key for line in log_of(single) for key, value in line.items() if value}
    assert "dead" in logged
    assert "loss/auxk" in logged or "topk" not in names


def assert_measured_alike(run, single):
    """What held-out vectors gave on the way, over all latents, and at the end."""
    files = sorted((single.path / "metrics").glob("step_*.json"))
    assert [file.name for file in files] == ["step_00000010.json"]
    for file in files:
        own, other = (json.loads((r.path / "metrics" / file.name).read_text()) for r in (run, single))
        for coder, values in other.items():
            assert own[coder] == pytest.approx(values, rel=2e-3, abs=1e-6)
    ends = [json.loads(r.metrics_file.read_text())["coders"]["coder"] for r in (run, single)]
    (own, other) = (end["evaluations"]["reconstruction"] for end in ends)
    assert own == pytest.approx(other, rel=2e-3, abs=1e-6)


@pytest.mark.slow
def test_a_state_goes_on_in_any_number_of_parts(tmp_path):
    """Cut off after 3 steps in 2 parts, after 6 in one process, after 9 in 3 parts; ends in 2."""
    stages = [2, 1, 3, 2]
    for number, parts in enumerate(stages):
        case = job(tmp_path / "many", "cut", parts, **CASES["restarts"], run={"resume": number > 0})
        last = number == len(stages) - 1
        fault = {} if last else {"fault": {"kind": "unreadable", "rank": parts - 1, "at": 4}}
        ends = [end[0]["error"] for end in carry_out(parts, tmp_path, [case | fault])]
        (run,) = find_runs(tmp_path / "many")
        assert run.record()["train"]["latent_parallel"] == parts
        if last:
            assert ends == [None] * parts
        else:
            assert [kind for kind, _ in ends] == [*["StoppedError"] * (parts - 1), "DataError"]
            state = run.resume_states()[-1]
            assert state.name == f"step_{3 * (number + 1):08d}"
            assert len(list(state.iterdir())) == parts + 1  # one of tensors for each process, and state.json
    assert_alike(run, alone_with(tmp_path / "one", "whole", **CASES["restarts"]))


@pytest.mark.slow
def test_what_ends_one_ends_all_and_what_cannot_be_divided_is_refused(tmp_path):
    jobs = [
        job(tmp_path, "infinite", 2, sae=TOPK, sparsity=K, train={"checkpoint_every": 3})
        | {"fault": {"kind": "infinite", "rank": 1, "at": 6}},
        job(tmp_path, "matryoshka", 2, sae=TOPK | {"use": "matryoshka", "n_latents": 128}, sparsity=K),
        job(tmp_path, "uneven", 2, sae=TOPK | {"n_latents": 131}, sparsity=K),
        job(tmp_path, "groups", 2, sae=TOPK, sparsity={"use": "groupmax", "k": 6}),
        job(tmp_path, "three", 3, sae=TOPK, sparsity=K),
    ]
    first, second = carry_out(2, tmp_path, jobs)
    assert second[0]["error"][0] == "TrainingError"
    assert "not finite at step 6" in second[0]["error"][1]
    assert "step_00000003" in second[0]["error"][1]
    said = [outcome["error"][1] for outcome in first[1:]]
    assert "sae 'matryoshka' cannot be trained in parts: it does not say that it can" in said[0]
    assert "allowed: baseline, batchtopk, jumprelu, ternary, topk, vanilla" in said[0]
    assert "131 latents do not divide into 2 equal parts" in said[1]
    assert "sparsity rule 'groupmax' does not say that it can" in said[2]
    assert "over 3 processes, and 2 processes cannot be grouped so" in said[3]
    assert [outcome["error"][0] for outcome in second[1:]] == ["StoppedError"] * 4
    assert [run.path.parts[-3] for run in find_runs(tmp_path)] == ["infinite"]
