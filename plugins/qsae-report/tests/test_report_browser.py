"""The page in a browser: clicks, keys, search and sorting. Each test ends with a look at what the page said
and asked for (``open_page``): nothing, and for itself."""

import pathlib

import pytest
import torch
from qsae_report.subject import Coder, Evaluation

from qsae_core.contracts import Result, Table

pytest.importorskip("playwright")
N = 60
WORDS = [" alpha", " beta", "\n", " gamma", "Delta", " ", ".", " epsilon", " zeta", " eta", " theta", " iota"]
TALL = {"width": 1400, "height": 2600}
"""A window in which every row is in sight."""
VIEWS = ("overview", "training", "evaluations", "survival", "latents", "latent/7")


@pytest.fixture(scope="module")
def page_file(make_samples, make_subject, write_page):
    """A report with everything: labels, an evaluation that nobody knows, survival, a twin with samples."""
    samples = make_samples(N, WORDS)
    zeal = torch.arange(N, dtype=torch.float32) % 10
    zeal[20:] = torch.nan
    rows = [[i % N, i, f"row {i}"] for i in range(450)]
    theirs = Result(
        values={"zeal_mean": 4.5, "lost": None},
        chance={"zeal_mean": 1.0},
        uncertainty={"zeal_mean": 0.1},
        per_latent={"zeal": zeal},
        tables={"rows": Table(("latent", "number", "words"), rows), "none": Table(("a",), [])},
    )
    named = Result(tables={"labels": Table(("latent", "label", "score"), [[3, "names of files", 0.75]])})
    r = torch.linspace(-0.1, 1, N)
    lost = Result(
        values={"survived_share": 0.4, "damaged_share": 0.6, "judged_latents": 60},
        per_latent={"r": r, "firings": torch.full((N,), 30.0), "firings_quantized": torch.arange(N).float()},
    )
    results = {"theirs": theirs, "named": named, "quantization-error": lost}
    stored = {"theirs": Evaluation("theirs", Result(values={"zeal_mean": 3.5}))}
    twin = Coder("float twin", pathlib.Path("twin"), {}, stored, make_samples(N, WORDS, seed=1))
    subject = make_subject(pathlib.Path("run"), samples, results, twin=twin, notes=["Something is left out."])
    return write_page(subject, N, N)


def rows(page):
    """Numbers of the latents in sight, from the top."""
    found = page.eval_on_selector_all(
        "#list-rows [role=row]",
        "rows => rows.map(row => [row.dataset.row, row.querySelector('.id').textContent])",
    )
    return [int(latent) for _, latent in sorted(found, key=lambda pair: int(pair[0]))]


def searched(page, text):
    page.fill("#list-search", text)
    page.press("#list-search", "Enter")
    return rows(page)


def focused(page):
    return page.evaluate("document.activeElement.querySelector('.id')?.textContent")


def test_every_view_is_a_click_away(open_page, page_file):
    page = open_page(page_file).page
    for link in page.query_selector_all("#views a"):
        link.click()
        name = link.get_attribute("href")[1:]
        page.wait_for_selector(f'section[data-view="{name}"]:not([hidden])')
        assert page.locator("section.view:visible").count() == 1
        assert page.locator("#views [aria-current]").text_content() == link.text_content()
        page.wait_for_function("name => document.title.toLowerCase().startsWith(name)", arg=name)
    assert page.title() == "Latents \u2013 topk"


def test_a_view_that_is_not_there_is_the_first_one(open_page, page_file):
    page = open_page(page_file.as_uri() + "#nowhere").page
    assert page.locator("section.view:visible").get_attribute("data-view") == "overview"


def test_the_latents_by_density_and_by_any_column(open_page, page_file):
    page = open_page(page_file).go("latents")
    page.wait_for_selector("#list-rows [role=row]")
    assert page.text_content("#list-count") == "60 latents, by density, largest first"
    by_density = rows(page)
    page.click("#list-head [data-key=number]")
    assert rows(page)[:3] == [0, 1, 2]
    page.click("#list-head [data-key=number]")
    assert rows(page)[:3] == [59, 58, 57]
    assert page.get_attribute("#list-head [aria-sort=descending]", "role") == "columnheader"
    page.click("#list-head [data-key=density]")
    assert rows(page) == by_density
    page.select_option("#list-column", "theirs/zeal")
    assert rows(page)[:3] == [9, 19, 8]
    page.click('#list-head [data-key="theirs/zeal"]')
    assert rows(page)[:4] == [0, 10, 1, 11]  # smallest first, and those without a value last, both ways
    page.press("#list-rows [tabindex='0']", "End")
    assert page.inner_text("#list-rows :focus > span:last-child") == "\u2013"


def test_a_search_finds_numbers_labels_text_and_raised_tokens(open_page, page_file):
    page = open_page(page_file, viewport=TALL).go("latents")
    assert 12 in searched(page, "12")
    assert searched(page, "Names OF") == [3]
    assert page.text_content("#list-count").startswith("1 of 60 latents")
    found = searched(page, "alpha")
    # each latent's strongest example is about word number j % 12; others have it in a window or raise it
    assert set(range(0, N, len(WORDS))) <= set(found)
    assert searched(page, "no such text") == []
    assert page.is_visible("#list-empty")
    assert len(searched(page, "")) > 20


def test_what_a_search_finds_is_in_the_page_of_the_latent(open_page, page_file):
    opened = open_page(page_file, viewport=TALL)
    page = opened.go("latents")
    found = set(searched(page, "zeta gamma") or searched(page, "alpha beta") or searched(page, "eta iota"))
    text = page.input_value("#list-search")
    assert 0 < len(found) < N
    for latent in range(N):
        shown = opened.go(f"latent/{latent}")
        shown.wait_for_function(
            "text => document.getElementById('latent-title').textContent === text", arg=f"Latent {latent}"
        )
        windows = page.eval_on_selector_all(
            "#latent-body .windows > .examples .window", "nodes => nodes.map(n => n.textContent)"
        )
        raised = page.eval_on_selector_all(
            "aside section:has(h4) tr code", "nodes => nodes.map(n => n.textContent)"
        )
        has = any(text in one for one in [*windows, *raised[:3]])
        assert has == (latent in found), (latent, text)


def test_the_list_by_keys(open_page, page_file):
    page = open_page(page_file).go("latents")
    page.click("#list-head [data-key=number]")
    assert page.locator("#list-rows [tabindex='0']").count() == 1
    page.focus("#list-rows [tabindex='0']")
    for key, latent in [
        ("ArrowDown", "1"),
        ("ArrowDown", "2"),
        ("ArrowUp", "1"),
        ("End", "59"),
        ("ArrowDown", "59"),
        ("Home", "0"),
    ]:
        page.keyboard.press(key)
        assert focused(page) == latent
        assert page.locator("#list-rows [tabindex='0']").count() == 1
    page.keyboard.press("PageDown")
    assert int(focused(page)) > 10
    at = focused(page)
    page.keyboard.press("Enter")
    page.wait_for_selector("section[data-view=latent]:not([hidden])")
    assert page.text_content("#latent-title") == f"Latent {at}"
    page.go_back()
    page.wait_for_selector("section[data-view=latents]:not([hidden])")
    assert focused(page) == at


def test_from_latent_to_latent_in_the_order_of_the_list(open_page, page_file):
    page = open_page(page_file).go("latents")
    page.click("#list-head [data-key=number]")
    page.click("#list-head [data-key=number]")
    page.click("#list-rows [data-row='1']")
    page.wait_for_selector("text=2 of 60 by number")
    for key, latent in [("ArrowRight", 57), ("ArrowLeft", 58), ("ArrowLeft", 59), ("ArrowLeft", 59)]:
        page.keyboard.press(key)
        page.wait_for_function(
            "text => document.getElementById('latent-title').textContent === text", arg=f"Latent {latent}"
        )


def test_a_latent_that_an_address_names(open_page, page_file):
    page = open_page(page_file.as_uri() + "#latent/3").page
    page.wait_for_selector("#latent-body .examples")
    assert page.inner_text("#latent-labels") == "names of files (named, score 0.75)"
    groups = page.eval_on_selector_all(
        ".windows > h4", "nodes => nodes.map(node => node.firstChild.textContent)"
    )
    assert groups == ["Strongest 4", "Rank 0\u201350% of its firings", "Rank 50\u2013100% of its firings"]
    strongest = page.locator(".windows > .examples li").first
    assert strongest.locator(".peak").text_content() == WORDS[3]
    assert strongest.locator(".peak").evaluate("node => node.style.getPropertyValue('--a')") == "1.000"
    assert "document 7, context 0, position" in strongest.locator(".heard").text_content()
    assert page.locator("aside .chart").get_attribute("aria-label").startswith("Histogram of")
    assert page.text_content(".windows section h4") == "In float twin"
    assert page.locator(".windows section .examples li").count() == 4
    table = page.locator("text=theirs: rows >> xpath=following-sibling::*[1]")
    assert table.locator("tbody tr").count() == 8  # rows 3, 63, ..., 423
    link = page.locator("aside a[href^='#latent/']").first
    number = link.text_content()
    link.click()
    page.wait_for_function(
        "text => document.getElementById('latent-title').textContent === text", arg=f"Latent {number}"
    )


@pytest.mark.parametrize("number", ["60", "-1", "1e1", "x"])
def test_a_latent_that_there_is_not(open_page, page_file, number):
    page = open_page(page_file.as_uri() + f"#latent/{number}").page
    page.wait_for_selector("text=Latents are 0 to 59.")


def test_a_number_typed_at_the_top(open_page, page_file):
    page = open_page(page_file).page
    page.fill("#goto-latent", "#42")
    page.press("#goto-latent", "Enter")
    page.wait_for_selector("#latent-body .examples")
    assert page.text_content("#latent-title") == "Latent 42"


def test_an_evaluation_that_nobody_knows(open_page, page_file):
    page = open_page(page_file.as_uri() + "#evaluations/theirs").page
    section = page.locator("#evaluations-theirs")
    cells = section.locator("table.values tr").all_inner_texts()
    assert [line.split("\t")[-4:] for line in cells] == [
        ["value", "by chance", "± std. error", "float twin"],
        ["4.500", "1", "0.1000", "3.500"],
        ["\u2013", "\u2013", "\u2013", "\u2013"],
    ]
    page.wait_for_selector("#evaluations-theirs [data-columns] tbody tr")
    column = section.locator("[data-columns] tbody tr")
    assert column.inner_text().split("\t")[:6] == ["zeal", "20", "0", "4.500", "4.500", "9"]
    table = section.locator("[data-table=rows]")
    assert table.locator("tbody tr").count() == 200
    table.get_by_role("button", name="200 more").click()
    assert table.locator("tbody tr").count() == 400
    table.get_by_role("button", name="number").click()
    assert table.locator("tbody tr").first.inner_text().split("\t") == ["29", "449", "row 449"]
    table.get_by_role("button", name="words").click()
    assert table.locator("tbody tr").first.inner_text().split("\t") == ["0", "0", "row 0"]
    table.locator("tbody a").nth(1).click()
    page.wait_for_selector("#latent-body .examples")
    page.go_back()
    column.get_by_role("link", name="zeal").click()
    page.wait_for_selector("#list-rows [role=row]")
    assert rows(page)[:2] == [9, 19]


def test_latents_that_died_lead_to_their_pages(open_page, page_file):
    page = open_page(page_file).go("survival")
    page.wait_for_selector("[data-table=died] tbody tr")
    first = page.locator("[data-table=died] tbody tr").first
    assert first.inner_text().split("\t") == ["0", "never fires", "\u22120.1000", "30", "0"]
    first.get_by_role("link").click()
    page.wait_for_selector("#latent-body .examples")
    assert page.text_content("#latent-title") == "Latent 0"


def test_the_theme_stays(open_page, page_file):
    opened = open_page(page_file, color_scheme="light")
    page = opened.page
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.select_option("#theme", "dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == dark
    page.select_option("#theme", "auto")
    assert page.evaluate(ground) == light


def test_windows_aligned_on_the_token_or_whole(open_page, page_file):
    page = open_page(page_file).go("latent/3")
    page.wait_for_selector(".windows .peak")
    places = "nodes => new Set(nodes.map(node => Math.round(node.getBoundingClientRect().x))).size"
    assert page.eval_on_selector_all(".windows > .examples .peak", places) == 1
    page.uncheck("#aligned")
    assert page.eval_on_selector_all(".windows > .examples .peak", places) > 1


def test_nothing_is_wider_than_a_phone(open_page, page_file):
    opened = open_page(page_file, viewport={"width": 390, "height": 844})
    for view in VIEWS:
        page = opened.go(view)
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view


def test_without_scripts_the_numbers_are_there(open_page, page_file):
    page = open_page(page_file, java_script_enabled=False).page
    for name in ("overview", "training", "evaluations", "survival"):
        assert page.is_visible(f"section[data-view={name}]")
    assert page.is_visible("text=zeal_mean")
    assert page.is_visible("text=JavaScript, which is off")


def test_without_samples_latents_have_numbers(open_page, make_subject, write_page):
    result = Result(per_latent={"zeal": torch.arange(5.0)})
    page = open_page(write_page(make_subject(pathlib.Path("run"), None, {"theirs": result}), 5)).go("latents")
    page.wait_for_selector("#list-rows [role=row]")
    assert rows(page) == [0, 1, 2, 3, 4]
    page.click("#list-rows [data-row='2']")
    page.wait_for_selector("text=This report was made without examples.")
