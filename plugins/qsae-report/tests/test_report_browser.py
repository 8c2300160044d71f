"""The page in a browser: clicks, keys, search and sorting. Each test ends with a look at what the page said
and asked for (``open_page``): nothing, and for itself."""

import pathlib

import pytest
import torch

from qsae_core.contracts import Result

pytest.importorskip("playwright")
TALL = {"width": 1400, "height": 2600}
"""A window in which every row is in sight."""
IN_SIGHT = """() => {
    const [row, list] = [document.activeElement, document.getElementById("list")];
    const [inner, outer] = [row, list].map((node) => node.getBoundingClientRect());
    return inner.top >= outer.top + inner.height && inner.bottom <= outer.bottom + 1;
}"""
"""Whether the row with the keyboard is within the list, and below its headings."""
VIEWS = ("overview", "training", "evaluations", "survival", "latents", "latent/7")


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


@pytest.mark.parametrize("place", ["nowhere", "%", "?", "/", "__proto__"])
def test_a_view_that_is_not_there_is_the_first_one(open_page, page_file, place):
    page = open_page(f"{page_file.as_uri()}#{place}").page
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
    assert rows(page)[:3] == [9, 39, 18]
    page.click('#list-head [data-key="theirs/zeal"]')
    assert rows(page)[:4] == [0, 30, 21, 51]  # smallest first, and those without a value last, both ways
    page.press("#list-rows [tabindex='0']", "End")
    assert page.inner_text("#list-rows :focus > span:last-child") == "\u2013"


def test_a_search_finds_numbers_labels_text_and_raised_tokens(open_page, page_file):
    page = open_page(page_file, viewport=TALL).go("latents")
    assert 12 in searched(page, "12")
    assert searched(page, "Names OF") == [3]
    assert page.text_content("#list-count").startswith("1 of 60 latents")
    found = searched(page, "alpha")
    # each latent's strongest example is about word number j % 12, of which the first is alpha
    assert set(range(0, 60, 12)) <= set(found)
    assert searched(page, "no such text") == []
    assert page.is_visible("#list-empty")
    assert len(searched(page, "")) > 20


def test_the_list_by_keys(open_page, page_file):
    page = open_page(page_file).go("latents")
    page.click("#list-head [data-key=number]")
    assert page.locator("#list-rows [tabindex='0']").count() == 1
    page.press("#list-search", "ArrowDown")
    assert focused(page) == "0"
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
        assert page.evaluate(IN_SIGHT)
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
    assert rows(page)[:2] == [9, 39]


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
    assert rows(page) == [4, 3, 2, 1, 0]
    page.click("#list-rows [data-row='2']")
    page.wait_for_selector("text=This report was made without examples.")
