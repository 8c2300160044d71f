"""WCAG A and AA, as axe checks them, of each view in both themes."""

import pathlib

import pytest
import torch
from qsae_report.subject import Coder, Evaluation
from qsae_samples.files import packed

from qsae_core.contracts import Result, Table

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
N = 40
VIEWS = ("overview", "training", "evaluations", "survival", "latents", "latent/5")
RULES = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
}


@pytest.fixture(scope="module")
def page_file(make_samples, make_subject, write_page):
    samples = make_samples(N, [" the", " cat", "\n", " sat", ".", "<b>"])
    samples.arrays["logit_bytes"] = packed(["e280", *[""] * 5])
    columns = ("latent", "label", "score", "error", "control")
    table = Table(columns, [[i, f"name {i}", i / N, 0.1, 0.5] for i in range(N)])
    theirs = Result(
        values={"a": 1.0, "n_tokens": 10.0},
        chance={"a": 0.5},
        per_latent={"zeal": torch.arange(N).float(), "r": torch.linspace(-1, 1, N)},
        tables={"labels": table},
    )
    of_each = {
        "r": torch.linspace(-0.5, 1, N),
        "firings": torch.full((N,), 30.0),
        "firings_quantized": torch.arange(N).float(),
    }
    lost = Result(values={"survived_share": 0.5, "judged_latents": 40.0}, per_latent=of_each)
    stored = {"theirs": Evaluation("theirs", Result(values={"a": 0.5, "n_tokens": 20.0}))}
    twin = Coder("float twin", pathlib.Path("twin"), {}, stored, samples)
    on_the_way = {"theirs": {step: Evaluation("theirs", Result(values={"a": step / 9})) for step in (3, 6)}}
    results = {"theirs": theirs, "quantization-error": lost}
    others = {"twin": twin, "notes": ["A note."], "on_the_way": on_the_way}
    subject = make_subject(pathlib.Path("run"), samples, results, **others)
    return write_page(subject, N, N)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(open_page, page_file, theme):
    from axe_playwright_python.base import AXE_FILE_PATH

    opened = open_page(page_file, color_scheme=theme)
    page = opened.page
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    for view in VIEWS:
        opened.go(view)
        page.wait_for_timeout(300)
        found = page.evaluate("rules => axe.run(document, rules)", RULES)
        faults = [
            (v["id"], node["target"], node["failureSummary"])
            for v in found["violations"]
            for node in v["nodes"]
        ]
        assert not faults, f"{view}: {faults[:3]}"
        assert len(found["passes"]) > 10
