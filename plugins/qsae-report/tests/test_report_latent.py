"""The page of one latent in a browser."""

import pytest

pytest.importorskip("playwright")


def texts(page, selector):
    found: list[str] = page.eval_on_selector_all(selector, "nodes => nodes.map(node => node.textContent)")
    return found


def test_what_a_search_finds_is_in_the_page_of_the_latent(open_page, page_file):
    opened = open_page(page_file, viewport={"width": 1400, "height": 2600})
    page = opened.go("latents")
    found = {}
    for text in ("zeta gamma", "up beta"):  # two tokens of a window, and one that is raised
        page.fill("#list-search", text)
        page.press("#list-search", "Enter")
        found[text] = {int(row) for row in page.locator("#list-rows .id").all_text_contents()}
        assert 0 < len(found[text]) < 60
    for latent in range(60):
        opened.go(f"latent/{latent}")
        page.wait_for_function(f"document.getElementById('latent-title').textContent === 'Latent {latent}'")
        windows = texts(page, ".windows > .examples .window")
        raised = texts(page, "aside section:has(h4) tr code")[:3]
        told = [*windows, *(text.replace("·", " ") for text in raised)]
        for text, latents in found.items():
            assert any(text in one for one in told) == (latent in latents), (latent, text)


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
    assert page.inner_text("#latent-labels") == "names of files (named, score 0.75, by chance 0.50 ± 0.10)"
    groups = page.eval_on_selector_all(
        ".windows > h4", "nodes => nodes.map(node => node.firstChild.textContent)"
    )
    assert groups == ["Strongest 4", "Rank 0\u201350% of its firings", "Rank 50\u2013100% of its firings"]
    strongest = page.locator(".windows > .examples li").first
    assert strongest.locator(".peak").text_content() == " gamma"
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


def test_latents_that_died_lead_to_their_pages(open_page, page_file):
    page = open_page(page_file).go("survival")
    page.wait_for_selector("[data-table=died] tbody tr")
    first = page.locator("[data-table=died] tbody tr").first
    assert first.inner_text().split("\t") == [
        "0",
        "never fires in the quantized coder",
        "\u22120.1000",
        "30",
        "0",
    ]
    first.get_by_role("link").hover()
    page.wait_for_selector("[data-table=died] a[title^='strongest on “']")
    first.get_by_role("link").click()
    page.wait_for_selector("#latent-body .examples")
    assert page.text_content("#latent-title") == "Latent 0"


def test_windows_aligned_on_the_token_or_whole(open_page, page_file):
    page = open_page(page_file).go("latent/3")
    page.wait_for_selector(".windows .peak")
    places = "nodes => new Set(nodes.map(node => Math.round(node.getBoundingClientRect().x))).size"
    assert page.eval_on_selector_all(".windows > .examples .peak", places) == 1
    page.uncheck("#aligned")
    assert page.eval_on_selector_all(".windows > .examples .peak", places) > 1
