"""What the pages of the quality benchmarks say."""

import json
import pathlib
import subprocess
import sys

from benchmarks.contenders import recovery_contenders, several_layers
from benchmarks.pages.quality import alone_section, contender_table, states_section, summary, verdict
from benchmarks.pages.recovery import recovery_section
from qsae_core.plugins.records import load_plugins

ROOT = pathlib.Path(__file__).resolve().parents[1]


def contender(library, kind, fvus, *, plain=True, **more):
    attempts = [
        {
            "label": label,
            "lr": "auto" if label == "auto" else 0.001,
            "fvu": fvu,
            "l0": 4.0,
            "dead": 0.25,
            **more,
        }
        for label, fvu in fvus.items()
    ]
    return {"library": library, "kind": kind, "plain": plain, "attempts": attempts}


FAILED = {
    "library": "SAELens",
    "kind": "gated",
    "plain": True,
    "attempts": [{"label": "x1", "lr": 0.1, "error": "ImportError: no such thing"}],
}


SIZES = {"batch_size": 10, "n_latents": 8, "k": 2, "steps": 4, "d": 3, "held_out": 5}


def states_result(*records):
    alone = contender("qsae", "topk, other seeds", {"auto, seed 0": 0.15, "auto, seed 1": 0.17}, plain=False)
    for seed, attempt in enumerate(alone["attempts"]):
        attempt["seed"] = seed
    larger = {**SIZES, "n_latents": 16, "contenders": [alone]}
    return {
        **SIZES,
        "title": "a model",
        "kind": "talk",
        "source": {},
        "contenders": list(records),
        "alone": larger,
    }


def test_the_verdict_compares_qsaes_own_rate_with_the_best_peer():
    peers = [
        contender("SAELens", "topk", {"x1": 0.3, "x3": 0.2}),
        contender("sparsify", "topk", {"x1": 0.25}),
    ]
    above = verdict([contender("qsae", "topk", {"auto": 0.24}), *peers])
    assert "qsae's FVU, 0.2400 at its own rate, is **above** the best of the peers, which is\n" in above
    assert "SAELens (topk) with 0.2000: +4.00 points" in above
    reached = verdict([contender("qsae", "topk", {"auto": 0.2}), *peers])
    assert "0.2000 at its own rate, is at or below the best of the peers" in reached
    assert "Nothing to compare" in verdict([contender("qsae", "topk", {"auto": 0.2}), FAILED])


def test_the_summary_has_a_line_for_each_text():
    own, again = contender("qsae", "topk", {"auto": 0.25}), contender("qsae", "topk, other", {"auto": 0.1})
    again["plain"] = False  # a run with one thing changed is not qsae's own
    peers = [contender("SAELens", "topk", {"x1": 0.3, "x3": 0.2}), contender("sparsify", "a", {"x1": 0.25})]
    lines = summary([states_result(own, again, *peers), states_result(own, FAILED)]).splitlines()
    assert "| a model: talk | 8 | 0.2500 | 25.0% | 0.2000 | 25.0% | +5.00 | SAELens (topk), x3 |" in lines
    assert "| a model: talk | 8 | 0.2500 | 25.0% | - | - | - | - |" in lines


def test_larger_runs_of_qsae_alone_have_a_line_for_each_seed():
    text = alone_section([states_result(), states_result()])
    assert text.count("| a model: talk | 1 | 0.1700 | 25.0% |") == 2
    assert text.count("d=3, F=16, k=2, B=10, 4 steps (40 vectors), measured on 5 others.") == 1


def test_the_table_has_every_rate_and_marks_the_best():
    lines = contender_table(
        [
            contender("qsae", "topk", {"auto": 0.2, "x1": 0.25}),
            contender("sparsify", "topk", {"x1": 0.3}),
            FAILED,
        ]
    ).splitlines()
    assert (
        lines[2] == "| qsae | topk | auto: 0.2000, x1 (1.0e-03): 0.2500 | **0.2000** | auto | 4.0 | 25.0% |"
    )
    assert lines[3] == "| sparsify | topk | x1 (1.0e-03): 0.3000 | 0.3000 | x1 | 4.0 | 25.0% |"
    assert lines[4] == "| SAELens | gated | x1 (1.0e-01): failed | - | - | - | - |"


def test_the_section_has_changes_seeds_and_failures():
    own = contender("qsae", "topk", {"auto": 0.2}, command="qsae train --sae topk")
    changed = contender("qsae", "topk, without AuxK", {"auto": 0.23}, plain=False)
    seeds = contender("qsae", "topk, other seeds", {"auto, seed 1": 0.21, "auto, seed 2": 0.19}, plain=False)
    text = states_section(states_result(own, changed, FAILED, seeds))
    assert "d=3, F=8, k=2, B=10, 4 steps (40 vectors), measured on 5 others." in text
    assert "| without AuxK | 0.2300 | +3.00 | 25.0% |" in text
    assert "| qsae | topk | auto | 0.2000, 0.2100, 0.1900 | 25.0%, 25.0%, 25.0% |" in text
    assert "| other seeds |" not in text  # they are no change
    assert "* SAELens, gated: ImportError: no such thing" in text
    assert "`qsae train --sae topk`" in text


def test_recovery_is_sorted_by_mcc_and_shows_the_run_of_largest_mcc():
    low = contender("qsae", "topk", {"x1": 0.1}, mcc=0.5, mmcs=0.6)
    high = contender("sparsify", "topk", {"x1": 0.2}, mcc=0.7, mmcs=0.8)
    high["attempts"].append({**high["attempts"][0], "label": "x3", "fvu": 0.1, "mcc": 0.4, "l0": 9.0})
    result = states_result(low, high, FAILED)
    result |= {"source": {"features": 6, "mean_l0": 2.5}, "chance": {"mcc": 0.3, "mmcs": 0.35}}
    result |= {"several_layers": ["crosscoder"]}
    text = recovery_section(result)
    rows = [line for line in text.splitlines() if line.startswith(("| qsae", "| sparsify"))]
    assert rows == [
        "| sparsify | topk | 0.700 | 0.800 | 0.200 | 4.0 | 25.0% | x1 | 4.0 to 9.0 |",
        "| qsae | topk | 0.500 | 0.600 | 0.100 | 4.0 | 25.0% | x1 | - |",
    ]
    assert "crosscoder read several layers" in text


def test_every_installed_sae_takes_part_in_recovery_or_reads_several_layers():
    taking_part = {c.kind.split(",")[0] for c in recovery_contenders(256, 4.2) if c.library == "qsae"}
    layered = set(several_layers())
    assert taking_part | layered == set(load_plugins().registry.names("sae"))
    assert taking_part.isdisjoint(layered)
    assert layered >= {"crosscoder", "route"}


def test_a_page_is_written_for_what_was_measured_alone(tmp_path):
    own = contender("qsae", "topk", {"auto": 0.2}, command="qsae train --sae topk")
    machine = {"cpu": "a CPU", "cores": 4, "flags": ["avx2"], "memory_bytes": 8 * 10**9, "huge_pages": None}
    machine |= {"system": "s", "kernel": "k", "python": "3.11", "commit": None, "versions": {}}
    about = {"date": "2026-01-01", "minutes": 1.0, "load_before": 9.0, "command": "c", "seed": 0}
    about |= {"threads": 4, "quick": False, "machine": machine}
    (tmp_path / "results").mkdir()
    peer = contender("SAELens", "topk", {"x1": 0.3})
    peer |= {"distribution": "sae-lens", "version": "6.1", "torch": "2.13", "python": "3.11"}
    (tmp_path / "results" / "quality.json").write_text(
        json.dumps({"about": about, **states_result(own, peer)})
    )
    command = [sys.executable, "-m", "benchmarks", "--render-only", "--out", str(tmp_path)]
    page = tmp_path / "pages" / "performance.md"
    done = subprocess.run(
        [*command, "--page", str(page)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    text = page.with_name("quality.md").read_text()
    assert "0.2000 at its own rate, is at or below the best of the peers" in text
    assert "sae-lens 6.1 (torch 2.13, Python 3.11)" in text
    assert "Not measured: quality-code, quality-news, quality-talk." in text
    assert "not idle" not in text  # no number of this page is a time
    assert not page.exists()
    assert not page.with_name("recovery.md").exists()
