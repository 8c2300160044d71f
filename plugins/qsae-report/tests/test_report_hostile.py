"""Text of tokens, labels and tables is never more than text."""

import pathlib

import pytest

from qsae_core.contracts import Result, Table

pytest.importorskip("playwright")
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "<!--",
    "<script>alert(3)</script>",
    "]]>",
    "&lt;b&gt;",
    "\u2028",
    "\u202e drawkcab",
    "שלום",
    "\ud800",
    "\x00\x07",
    "' onmouseover='alert(4)",
    '" style="position:fixed',
    "{{ 7 * 7 }}",
    "`${alert(5)}`",
    "",
    "\n\n\t",
]
SHOWN = {"\x00\x07": "␀␇", "\n\n\t": "↵↵⇥"}
"""What a browser makes of them: other than itself."""


@pytest.fixture(scope="module")
def page_file(make_samples, make_subject, write_page):
    rows = [[i, text, text] for i, text in enumerate(HOSTILE)]
    table = Table(("latent", "label", "<b>heading</b>"), rows)
    results = {
        "<script>alert(6)</script>": Result(values={"<img onerror=alert(7)>": 1.0}, tables={"rows": table})
    }
    subject = make_subject(pathlib.Path("<run>"), make_samples(len(HOSTILE), HOSTILE), results, notes=HOSTILE)
    return write_page(subject, len(HOSTILE))


def test_tokens(open_page, page_file):
    opened = open_page(page_file)
    for latent, text in enumerate(HOSTILE):
        page = opened.go(f"latent/{latent}")
        page.wait_for_function(f"document.getElementById('latent-title').textContent === 'Latent {latent}'")
        peak = page.locator(".windows .peak").first
        if text != "":  # a token that ends no character shows that character
            assert peak.evaluate("node => node.textContent") == SHOWN.get(text, text)
        assert peak.evaluate("node => [...node.querySelectorAll('*')].every(n => n.className === 'mark')")
    assert page.locator("main img, main script, main b").count() == 0


def test_labels_and_tables_and_names(open_page, page_file):
    opened = open_page(page_file)
    page = opened.go("latents")
    page.click("#list-head [data-key=number]")
    labels = page.eval_on_selector_all(
        "#list-rows [data-row]", "rows => rows.map(r => r.children[1].textContent)"
    )
    assert labels[:10] == HOSTILE[:10]
    page = opened.go("evaluations")
    page.wait_for_selector("[data-table=rows] tbody tr")
    assert "<b>heading</b>" in page.locator("[data-table=rows] thead").inner_text()
    assert page.locator("[data-table=rows] tbody tr").first.locator("td").nth(1).inner_text() == HOSTILE[0]
    assert page.locator("section.evaluation h3").inner_text() == "<script>alert(6)</script>"
    assert page.locator("main img, main script, main b").count() == 0


def test_a_search_for_them(open_page, page_file):
    page = open_page(page_file).go("latents")
    for text in ("</script><script>", "onerror", "שלום", "\u202e", "]]>"):
        page.fill("#list-search", text)
        page.press("#list-search", "Enter")
        assert page.locator("#list-rows [data-row]").count() > 0, text


def test_scripts_that_get_into_the_page_do_not_run(open_page, page_file, tmp_path):
    text = page_file.read_text(encoding="utf-8")
    for place, added in [
        ("<main", "<script>document.title = 'mine'</script><main"),
        ("<h2", "<h2 onclick='alert(8)'"),
    ]:
        assert place in text
        text = text.replace(place, added, 1)
    (tmp_path / "it.html").write_text(text, encoding="utf-8")
    opened = open_page(tmp_path / "it.html")
    opened.page.click("#title-overview")
    assert "mine" not in opened.page.title()
    assert len(opened.said) == 2
    assert all("Content Security Policy" in said for said in opened.said)
    opened.said.clear()


def test_nothing_can_be_fetched(open_page, page_file):
    opened = open_page(page_file)
    done = "fetch('http://127.0.0.1:9/').then(() => 'fetched', error => error.name)"
    assert opened.page.evaluate(done) == "TypeError"
    assert any("Content Security Policy" in said for said in opened.said)
    opened.said.clear()
