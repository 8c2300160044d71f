"""Made-up samples, coders with results, and a browser."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from qsae_report.neighbours import counterparts, neighbours
from qsae_report.page import Measured, render
from qsae_report.subject import Coder, Evaluation, Subject
from qsae_samples.files import packed
from qsae_samples.samples import Samples

from qsae_core.contracts import Result, Table
from qsae_core.measuring import unit_rows

N = 60
WORDS = [" alpha", " beta", "\n", " gamma", "Delta", " ", ".", " epsilon", " zeta", " eta", " theta", " iota"]
"""Latents of ``page_file``, and the tokens of its text."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def made_samples(
    n_latents: int,
    vocabulary: Sequence[str],
    *,
    n_tokens: int = 400,
    top: int = 4,
    groups: int = 2,
    per_group: int = 1,
    before: int = 3,
    after: int = 2,
    active: int = 1,
    seed: int = 0,
) -> Samples:
    """Samples of latents of which each has all its examples, of text drawn from a vocabulary. Latent j's
    strongest example is about a token of the vocabulary's entry ``j % len(vocabulary)``. ``active`` tokens of
    a window are active: the one that the example is about, and those behind it."""
    drawn = np.random.default_rng(seed)
    length, each = before + 1 + after, top + groups * per_group
    n = n_latents * each
    tokens = drawn.permutation(np.arange(n_tokens) % len(vocabulary))
    places = np.arange(before, n_tokens - after)
    about_token = [places[tokens[places] == entry] for entry in range(len(vocabulary))]
    start = drawn.choice(places, n)
    start[np.arange(n_latents) * each] = [about_token[j % len(vocabulary)][0] for j in range(n_latents)]
    value = np.sort(drawn.integers(1, 32000, (n_latents, each)), axis=1)[:, ::-1]
    value[:, 0] = 32767
    group = np.concatenate([np.zeros(top), np.repeat(np.arange(1, groups + 1), per_group)])
    arrays = {
        **_of_latents(drawn, n_latents, len(vocabulary), groups),
        **_of_text(tokens, vocabulary),
        "example_offsets": np.arange(n_latents + 1) * each,
        "example_group": np.tile(group, n_latents).astype(np.uint8),
        "example_start": (start - before).astype(np.uint32),
        "example_length": np.full(n, length, dtype=np.uint8),
        "example_peak": np.full(n, before, dtype=np.uint8),
        "example_active": np.full(n, active, dtype=np.uint8),
        "active_at": np.tile(np.arange(before, before + active), n).astype(np.uint8),
        "active_value": (value.reshape(-1, 1) / np.arange(1, active + 1)).astype(np.int16).reshape(-1),
    }
    options = {"top": top, "groups": groups, "per_group": per_group, "before": before, "after": after}
    counts = {"n_tokens": 100_000, "n_special": 5, "n_skipped": 0}
    bins = {"of_an_octave": 8, "octaves_below_1": 16}
    return Samples(arrays, {**counts, "bins": bins, "measured": "made-up text", "options": options})


def _of_latents(drawn: np.random.Generator, n: int, n_words: int, groups: int) -> dict[str, Any]:
    histogram = drawn.integers(0, 50, (n, 48)).astype(np.uint32)
    largest = drawn.uniform(1, 9, n).astype(np.float32)
    return {
        "count": histogram.sum(1).astype(np.int64),
        "mean": largest / 2,
        "largest": largest,
        "histogram": histogram,
        "histogram_top": np.floor((np.log2(largest) + 16) * 8).astype(np.int16),
        "group_floor": (largest[:, None] * np.linspace(0.8, 0.1, groups)).astype(np.float32),
        "cofiring_latent": drawn.integers(0, n, (n, 8)).astype(np.int32),
        "cofiring_share": drawn.uniform(0, 1, (n, 8)).astype(np.float32),
        "logit_token": drawn.integers(0, n_words, (n, 2, 3)).astype(np.uint32),
        "logit_value": drawn.normal(size=(n, 2, 3)).astype(np.float32),
    }


def _of_text(tokens: Any, vocabulary: Sequence[str]) -> dict[str, Any]:
    """One stretch of one document, and no random windows."""
    none = {"random_start": 4, "random_length": 1, "code_token": 4, "code_latent": 4, "code_value": 2}
    return {
        "tokens": tokens.astype(np.uint16),
        "vocabulary_ids": np.arange(len(vocabulary), dtype=np.uint32),
        "vocabulary_text": packed(vocabulary),
        "logit_ids": np.arange(len(vocabulary), dtype=np.uint32),
        "logit_text": packed(vocabulary),
        "stretch_start": np.zeros(1, dtype=np.uint32),
        "stretch_context": np.zeros(1, dtype=np.uint32),
        "stretch_position": np.ones(1, dtype=np.uint32),
        "stretch_document": np.full(1, 7, dtype=np.int32),
        **{name: np.zeros(0, dtype=f"u{size}") for name, size in none.items()},
    }


def made_subject(
    path: pathlib.Path,
    samples: Samples | None,
    results: Mapping[str, Result] | None = None,
    **others: Any,
) -> Subject:
    """The subject of a report of a coder that is not there."""
    evaluations = {name: Evaluation(name, result) for name, result in (results or {}).items()}
    own = {name: others.pop(name) for name in ("trained", "held_out", "on_the_way") if name in others}
    coder = Coder("topk", path, {}, evaluations, samples, **own)
    description = {"config": {"sae": {"use": "topk"}}, "source": {"model": "made-up"}}
    return Subject(
        path, coder, others.pop("twin", None), others.pop("compared", None), description, {}, **others
    )


@pytest.fixture(scope="session")
def make_samples() -> Any:
    """``made_samples``."""
    return made_samples


@pytest.fixture(scope="session")
def make_subject() -> Any:
    """``made_subject``."""
    return made_subject


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser; without one, tests are skipped, unless QSAE_BROWSER_TESTS=required."""
    required = os.environ.get("QSAE_BROWSER_TESTS") == "required"
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        if required:
            raise
        pytest.skip("playwright is not installed: pip install 'qsae-report[test]'")
    named = os.environ.get("QSAE_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        except Error as error:
            if required:
                raise
            pytest.skip(f"there is no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class Opened:
    """A page, and what it said and asked for."""

    def __init__(self, browser: Any, place: str, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.goto(place)

    def go(self, view: str) -> Any:
        """Show a view; gives the page."""
        self.page.evaluate("view => { location.hash = view }", view)
        name = view.split("/")[0]
        self.page.wait_for_selector(f'section[data-view="{name}"]:not([hidden])')
        return self.page


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """``(file or address, **context) -> Opened``; when the test ends, the page must have said nothing, and
    asked for itself alone."""
    opened: list[tuple[Opened, str]] = []

    def open_(place: pathlib.Path | str, **context: Any) -> Opened:
        address = place.as_uri() if isinstance(place, pathlib.Path) else place
        opened.append((Opened(chromium, address, **context), address))
        return opened[-1][0]

    yield open_
    for one, address in opened:
        one.context.close()
        assert one.said == []
        assert {url for url in one.asked if not url.startswith("data:")} == {address.partition("#")[0]}


@pytest.fixture(scope="session")
def write_page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``(subject, beside) -> file``: the report of a coder that is not there, with random atoms."""

    def write(subject: Subject, n_latents: int, n_others: int = 0) -> pathlib.Path:
        drawn = torch.Generator().manual_seed(0)
        rows = unit_rows(torch.randn(n_latents, 16, generator=drawn))
        others = unit_rows(torch.randn(n_others, 16, generator=drawn))
        beside = {coder.name: counterparts(rows, others, "there") for coder in subject.beside}
        file = tmp_path_factory.mktemp("page") / "report.html"
        file.write_text(render(subject, Measured(n_latents, neighbours(rows), beside)), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def page_file(write_page: Any) -> pathlib.Path:
    """A report with everything: labels, an evaluation that nobody knows, survival, a twin with samples."""
    samples = made_samples(N, WORDS)
    samples.arrays["logit_text"] = packed([f"up{word}" for word in WORDS])  # what is in no window
    zeal = torch.arange(N, dtype=torch.float32) % 10
    zeal[torch.arange(N) % 3 > 0] = torch.nan
    rows = [[i % N, i, f"row {i}"] for i in range(450)]
    theirs = Result(
        values={"zeal_mean": 4.5, "lost": None},
        chance={"zeal_mean": 1.0},
        uncertainty={"zeal_mean": 0.1},
        per_latent={"zeal": zeal},
        tables={"rows": Table(("latent", "number", "words"), rows), "none": Table(("a",), [])},
    )
    columns = ("latent", "label", "score", "error", "control")
    given = [[3, "names of files", 0.75, 0.1, 0.5], [4, "two  blanks ", 0.6, 0.1, 0.5]]
    named = Result(tables={"labels": Table(columns, given)})
    r = torch.linspace(-0.1, 1, N)
    lost = Result(
        values={"survived_share": 0.4, "damaged_share": 0.6, "judged_latents": 60},
        per_latent={"r": r, "firings": torch.full((N,), 30.0), "firings_quantized": torch.arange(N).float()},
    )
    results = {"theirs": theirs, "named": named, "quantization-error": lost}
    stored = {"theirs": Evaluation("theirs", Result(values={"zeal_mean": 3.5}))}
    twin = Coder("float twin", pathlib.Path("twin"), {}, stored, made_samples(N, WORDS, seed=1))
    subject = made_subject(pathlib.Path("run"), samples, results, twin=twin, notes=["Something is left out."])
    file: pathlib.Path = write_page(subject, N, N)
    return file
