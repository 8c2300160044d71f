"""The view `try` in a browser: a text is typed, a latent opened and steered, and both texts are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from qsae_report.gather import gather
from qsae_report.page import measure, render
from qsae_report.serve.asked import Asked
from qsae_report.serve.bodies import read_continuation
from qsae_report.serve.serving import Server
from qsae_splice.opened import open_coder

from qsae_cli.commands import recorded_data
from qsae_cli.main import cli

TRAINED = """train --sae topk --n-latents 64 --k 8 --steps 20 --batch-size 256 --eval-tokens 256 --threads 1
    --eval reconstruction --data lm --model builtin --context 64 --buffer-tokens 1024 --layer 1 --name x"""
HOSTILE = "<b>def</b> open(<img src=x onerror=document.title='broken'>):\n    "
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("run")
    result = CliRunner().invoke(cli, [*TRAINED.split(), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    (run,) = folder.glob("x/*/*")
    subject = gather(Path(run), with_samples=False)
    with Server(0) as server:
        server.page = render(subject, measure(subject), serve=True).encode()
        server.asked = Asked(open_coder(run, recorded_data({"path": run}), "cpu"), measure_tokens=512)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def page(chromium, server, request) -> Iterator[Any]:
    width, scheme = getattr(request, "param", (390, "light"))
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(20_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(f"{server.address}#try")
    yield page
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert wide <= 0, "it has to be scrolled sideways"
    assert [fault for fault in faults if "400 (Bad Request)" not in fault] == []


def part(page: Any, name: str) -> Any:
    return page.locator(f'[data-try="{name}"]')


def field(page: Any, label: str) -> Any:
    return part(page, "steer").get_by_label(label)


def read(page: Any, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.keyboard.press("Control+Enter")
    page.get_by_text("tokens were read").wait_for()


def violations(page: Any) -> str:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=WCAG)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize("page", [(1300, "light"), (390, "dark")], ids=str, indirect=True)
def test_a_text_is_read_and_steered(page, server) -> None:
    assert not any(part(page, name).is_visible() for name in ("found", "result"))
    read(page, HOSTILE)
    tokens = server.asked.latents(HOSTILE)["tokens"]
    listed = page.get_by_role("listbox", name="Tokens")
    options = listed.get_by_role("option")
    assert options.count() == len(tokens)
    page.keyboard.press("Tab")  # to the button, and on to the tokens
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert listed.get_by_role("option", selected=True).inner_text() == tokens[2]["text"]
    rows = part(page, "latents").get_by_role("listitem")
    assert rows.count() == len(tokens[2]["latents"])
    latent = tokens[2]["latents"][0][0]
    rows.first.get_by_role("button", name=f"Mark where latent {latent} fires").press("Enter")
    fires = [any(j == latent for j, _ in token["latents"]) for token in tokens]
    assert options.evaluate_all("all => all.map(one => one.classList.contains('act'))") == fires
    assert violations(page) == ""

    rows.first.get_by_role("link", name=str(latent), exact=True).click()
    page.get_by_role("heading", name=f"Latent {latent}").wait_for()
    page.get_by_role("link", name="Steer with this").click()
    page.locator('[data-edit="value"]:focus').wait_for()
    page.keyboard.type("1.5")
    field(page, "Unit").select_option("norm")
    field(page, "New tokens").fill("6")
    page.keyboard.press("Enter")
    page.get_by_text("Both texts are there; they differ.").wait_for()

    edit = {"latent": latent, "op": "set", "value": 1.5, "unit": "norm"}
    body = {"prompt": HOSTILE, "edits": [edit], "max_new_tokens": 6}
    expected = server.asked.steered(read_continuation(body))
    for name in ("steered", "unsteered"):
        assert part(page, name).text_content() == HOSTILE + expected[name]
        differing = part(page, name).get_by_role("mark").text_content()
        assert expected[name].endswith(differing)
        assert len(differing) > 0
    assert f"{expected['shift']['vectors']} vectors were edited" in part(page, "facts").inner_text()
    page.get_by_text("Token by token").click()
    assert part(page, "steps").locator("tbody tr").count() == len(expected["steps"])
    assert violations(page) == ""
    assert "broken" not in page.title()


def test_what_is_wrong_is_said_and_can_be_mended(page) -> None:
    page.get_by_role("button", name="Show latents").click()
    alert = part(page, "read").get_by_role("alert")
    alert.get_by_text("text: the text is empty").wait_for()
    read(page, "def open(path):")
    assert alert.inner_text() == ""
    page.get_by_role("button", name="Add an edit").click()
    page.keyboard.type("64")  # the focus is at the latent
    field(page, "New tokens").fill("3")
    page.get_by_role("button", name="Go on with the text").click()
    part(page, "steer").get_by_text("There is no latent 64: they are 0 to 63.").wait_for()
    assert not part(page, "result").is_visible()  # the form is not sent
    assert violations(page) == ""
    page.get_by_role("button", name="Remove the edit of latent 64").press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Add an edit"
    page.get_by_role("button", name="Go on with the text").click()
    page.get_by_text("Both texts are there; they are the same.").wait_for()
    assert part(page, "steered").text_content() == part(page, "unsteered").text_content()


def test_operations_have_their_usual_values(page) -> None:
    page.goto(page.url + "/3")
    page.locator('[data-edit="value"]:focus').wait_for()
    found = []
    for op in ("set", "add", "scale", "ablate", "cap", "floor"):
        field(page, "Operation").select_option(op)
        value, unit = field(page, "Value"), field(page, "Unit")
        found.append((op, value.input_value(), unit.input_value() if unit.is_enabled() else None))
        assert value.is_enabled() == (op != "ablate")
    assert found == [
        ("set", "2", "max"),
        ("add", "0.5", "norm"),
        ("scale", "2", None),
        ("ablate", "", None),
        ("cap", "0.5", "max"),
        ("floor", "0.5", "max"),
    ]
