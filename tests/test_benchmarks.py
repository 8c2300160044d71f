"""The benchmarks run from one end to the other, and their arithmetic is that of the page."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks.pages import cross_layer

ROOT = pathlib.Path(__file__).resolve().parents[1]


def benchmarks(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def write_step_result(folder, *, failing=False):
    """Two rounds of qsae (steps of 1 and 3 s) and of a peer (10 s); the product takes 2 s; 100 tokens."""
    (folder / "results").mkdir(parents=True)

    def rounds(*times):
        own = {"product_seconds": [2.0], "peak_bytes": 3 * 10**9, "distribution": "x", "version": "1.2"}
        return [{"seconds": [s], "torch": "2.13", "python": "3.11", **own} for s in times]

    def side(library, what, precision, options, found):
        own = {"library": library, "what": what, "precision": precision}
        return {**own, "options": options, "environment": {}, "rounds": found}

    sides = [
        side("qsae", "torch operators", "fp32", {"screen": "int8", "kernels": "none"}, rounds(1.0, 3.0)),
        side("SAELens", "fp32", "fp32", {}, rounds(20.0, 20.0)),
        side("SAELens", "fp32, memory kept", "fp32", {}, rounds(10.0, 10.0)),
        side("SAELens", "fp32, sparse codes", "fp32", {"sparse": True}, rounds(8.0, 8.0)),
        side("SAELens", "autocast", "bf16", {}, rounds(5.0, 5.0)),
    ]
    if failing:
        sides[1:] = [side("SAELens", "fp32", "fp32", {}, [{"error": "ImportError: no such thing"}])]
    machine = {"cpu": "a CPU", "cores": 4, "flags": ["avx2"], "memory_bytes": 8 * 10**9, "huge_pages": None}
    machine |= {"system": "s", "kernel": "k", "python": "3.11", "commit": None, "versions": {}}
    about = {"date": "2026-01-01", "minutes": 1.0, "load_before": 0.0, "command": "c", "seed": 0}
    about |= {"threads": 4, "quick": False, "machine": machine}
    sizes = {"batch_size": 100, "d": 8, "n_latents": 16, "k": 2}
    result = {"about": about, "shapes": [{**sizes, "sides": sides}]}
    (folder / "results" / "step.json").write_text(json.dumps(result))


def render(folder):
    done = benchmarks("--render-only", "--out", folder, "--page", folder / "page.md")
    assert done.returncode == 0, done.stderr
    return (folder / "page.md").read_text()


def test_a_cross_layer_step_stands_beside_its_products_and_as_many_transcoders():
    rounds = [
        {"step": [2.0, 3.0], "products": [2.0, 2.0], "transcoders": [4.0, 4.0]},
        {"step": [2.6, 2.4], "products": [2.0, 2.0], "transcoders": [4.0, 4.0]},
    ]
    sides = [
        {"what": "torch operators", "options": {}, "rounds": rounds},
        {"what": "compiled kernels", "options": {}, "rounds": [{"error": "no compiler"}]},
    ]
    sizes = {"batch_size": 100, "d": 8, "n_latents": 16, "k": 2, "layers": 3}
    page = cross_layer.section({**sizes, "sides": sides})
    assert "3 layers of B=100, d=8, F=16, k=2" in page
    # the median step is (2.4 + 2.6) / 2 = 2.5 s: 1.25 times 2 s, and 2.5 / 4 = 0.625
    assert "| torch operators | 2.500 s | 2.000 s | 1.25 | 4.000 s | 0.62 |" in page
    assert "| compiled kernels | no compiler |" in page


def test_the_page_has_ratios_to_the_best_fp32_side_of_a_peer(tmp_path):
    write_step_result(tmp_path)
    page = render(tmp_path)
    # median of 1 and 3 s is 2 s: 100 / 2 = 50 tokens/s; SAELens, memory kept, takes 10 s: 10 / 2 = 5 times;
    # x product is the median of 1/2 and 3/2; with another setting SAELens takes 8 s: 8 / 2 = 4 times
    assert "| qsae, torch operators | 50 | 5.00 | - | - | 1.00 | 3.00 GB |" in page
    assert "| SAELens, fp32, memory kept | 10 | 1.00 | - | - | 5.00 | 3.00 GB |" in page
    assert "| SAELens, autocast | 20 | 2.00 | - | - | 2.50 | 3.00 GB |" in page
    assert "| torch operators: at least 9 times SAELens | 5.00 | no | 4.00 |" in page
    assert "| torch operators: a step in at most 0.75 of one fp32 product | 1.00 | no | - |" in page
    assert "| compiled kernels: at least 18 times SAELens | - | not measured | - |" in page
    assert "| sparsify | not part of this run |" in page
    assert "Not measured: fidelity, scaling, startup, inference." in page


def test_steps_of_a_real_run_are_means(tmp_path):
    """Steps of 1, 1 and 4 s take 2 s on average, whatever their median; 100 tokens; a product takes 0.5 s."""
    write_step_result(tmp_path)
    results = tmp_path / "results"
    about = json.loads((results / "step.json").read_text())["about"]

    def side(library, *times, **more):
        own = {"product_seconds": [0.4, 0.5, 0.9], "dead": 0.25, **more}
        return {"library": library, "what": "as it is", "rounds": [{"seconds": list(times), **own}]}

    sizes = {"batch_size": 100, "d": 8, "n_latents": 16, "k": 2}
    failed = {"library": "sparsify", "what": "fp32", "rounds": [{"error": "ImportError: no such thing"}]}
    sides = [side("qsae", 1, 1, 4), side("SAELens", 5, 5, 5, dead=0.5), failed]
    middle = {**sizes, "before": 10, "timed": 3, "steps": 20, "sides": sides}
    whole = {**sizes, "command": "qsae train", "products": 0.333, "dead": 0.01}
    (results / "run.json").write_text(json.dumps({"about": about, "middle": middle, "whole": whole}))
    render(tmp_path)
    page = (tmp_path / "real-run.md").read_text()
    assert "The mean of steps 11 to 13 of a run of 20" in page
    assert "| qsae, as it is | 50 | 1.00 | 4.00 | 25.0% |" in page
    assert "| SAELens, as it is | 20 | 2.50 | 10.0 | 50.0% |" in page
    assert "| sparsify, fp32 | failed: ImportError: no such thing |" in page
    assert "0.33 products a step on average, 1.0% of the latents dead at its end" in page


def test_a_peer_that_fails_is_a_line_with_its_reason(tmp_path):
    write_step_result(tmp_path, failing=True)
    page = render(tmp_path)
    assert "| SAELens, fp32 | failed: ImportError: no such thing |" in page
    assert "| torch operators: at least 9 times SAELens | - | not measured | - |" in page


def test_peers_scripts_import_nothing_of_qsae():
    for path in (ROOT / "benchmarks" / "peers").glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not [line for line in imports if "qsae" in line or "benchmarks" in line], path


@pytest.mark.slow
def test_a_quick_run_measures_everything(tmp_path):
    page = tmp_path / "page.md"
    done = benchmarks("--quick", "--peers", "none", "--out", tmp_path, "--page", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "Quick run" in text
    assert "Not measured" not in text
    for side in ("no screen", "bf16 screen", "int8 screen"):
        line = next(row for row in text.splitlines() if row.startswith(f"| qsae, torch operators, {side} "))
        assert "failed" not in line
    result = json.loads((tmp_path / "results" / "fidelity.json").read_text())
    assert all("error" not in run for run in result["runs"] if run["kernels"] == "none")
    result = json.loads((tmp_path / "results" / "startup.json").read_text())
    assert all("error" not in kind for kind in result["kinds"])
    for name in ("quality", "recovery"):
        result = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        attempts = [attempt for contender in result["contenders"] for attempt in contender["attempts"]]
        # the page's own measure is that of `qsae train`, on the same vectors
        own = [attempt for attempt in attempts if "own_fvu" in attempt]
        # the page's own measure is that of `qsae train`, where both are of the same vectors
        assert all(attempt["fvu"] == pytest.approx(attempt["own_fvu"], rel=1e-6) for attempt in own)
        assert bool(own) == (name == "recovery")
    text = (tmp_path / "quality.md").read_text()
    assert "the built-in language model, middle layer: code" in text
    assert "Not measured: quality-code, quality-news, quality-talk." in text
    unseen_documents_are_measured_as_qsae_evaluate_does(tmp_path)


def unseen_documents_are_measured_as_qsae_evaluate_does(folder):
    """On the last run of `quality`, whose folder is still there."""
    result = json.loads((folder / "results" / "quality.json").read_text())
    fvus = [attempt["fvu"] for record in result["contenders"] for attempt in record["attempts"]]
    assert len(set(fvus)) == len(fvus)  # every change changes something
    attempts = result["alone"]["contenders"][0]["attempts"]
    assert [attempt["seed"] for attempt in attempts] == [0, 1, 2]
    run = next((folder / "quality" / "run").rglob("metrics.json")).parent
    (test,) = (folder / "data").glob("*-test-*.npy")
    command = [str(pathlib.Path(sys.executable).parent / "qsae"), "evaluate", str(run), "--json"]
    command += ["--data", "tensors", "--data-path", str(test)]
    own = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    values = json.loads(own.stdout)["evaluations"]["reconstruction"]
    assert attempts[-1]["fvu"] == pytest.approx(values["fvu"], rel=1e-6)
