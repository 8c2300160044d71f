"""WCAG A and AA, as axe checks them, of each view in both themes."""

import pathlib

import pytest
import torch
from qsae_report.subject import Coder

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
    table = Table(("latent", "label", "score"), [[i, f"name {i}", i / N] for i in range(N)])
    theirs = Result(
        values={"a": 1.0},
        chance={"a": 0.5},
        per_latent={"zeal": torch.arange(N).float(), "r": torch.linspace(-1, 1, N)},
        tables={"labels": table},
    )
    columns = {
        "r": torch.linspace(-0.5, 1, N),
        "firings": torch.full((N,), 30.0),
        "firings_quantized": torch.arange(N).float(),
    }
    lost = Result(values={"survived_share": 0.5, "judged_latents": 40.0}, per_latent=columns)
    twin = Coder("float twin", pathlib.Path("twin"), {}, {}, samples)
    results = {"theirs": theirs, "quantization-error": lost}
    subject = make_subject(pathlib.Path("run"), samples, results, twin=twin, notes=["A note."])
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
