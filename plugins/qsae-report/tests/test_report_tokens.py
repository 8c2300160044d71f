"""Tokens that cannot be read as they are (blanks, parts of characters), and names that say nothing."""

import pathlib

import numpy as np
import pytest
from qsae_samples.files import packed

from qsae_core.contracts import Result, Table

pytest.importorskip("playwright")
LABELS = [
    [0, "fires on '\\n    ', ' in'", 0.9, 0.1, 0.5],
    [1, " says  nothing", 0.55, 0.1, 0.5],
]


@pytest.fixture(scope="module")
def page_file(make_samples, make_subject, write_page):
    """Text of ``a`` and a character of three tokens, over and over; latents fire on the first of these."""
    samples = make_samples(2, ["a", "", "€"], n_tokens=40, top=2, groups=1, per_group=0, before=3, after=2)
    a = samples.arrays
    a["tokens"] = np.tile([0, 1, 1, 2], 10).astype(np.uint16)
    # windows of six tokens from the third one on ("" € a "" "" €), about the fourth of these; one is cut
    a["example_start"] = np.array([2, 6, 10, 14], dtype=np.uint32)
    a["example_length"] = np.array([6, 5, 6, 6], dtype=np.uint8)
    a["vocabulary_bytes"] = packed(["", "e2", ""])
    a["logit_text"] = packed([" \n\tup", "\ufffd", "x  y"])
    a["logit_bytes"] = packed(["", "e280", ""])
    a["logit_token"] = np.array([[[0, 1, 2]] * 2] * 2, dtype=np.uint32)
    table = Table(("latent", "label", "score", "error", "control"), LABELS)
    return write_page(
        make_subject(pathlib.Path("run"), samples, {"named": Result(tables={"labels": table})}), 2
    )


def texts(page, selector):
    found: list[str] = page.eval_on_selector_all(selector, "nodes => nodes.map(node => node.textContent)")
    return found


def test_a_character_is_shown_over_the_tokens_that_make_it(open_page, page_file):
    page = open_page(page_file).go("latent/0")
    page.wait_for_selector("#latent-body .examples")
    assert texts(page, ".windows .window")[0] == "€a€"
    peak = page.locator(".windows .peak").first
    assert peak.text_content() == "€"
    assert peak.get_attribute("title").startswith("a character of 3 tokens: ")
    assert peak.evaluate("node => node.style.getPropertyValue('--a')") == "1.000"
    assert "“€”" in page.locator(".windows .heard").first.text_content()


def test_where_a_window_ends_before_the_character_there_are_its_bytes(open_page, page_file):
    page = open_page(page_file).go("latent/0")
    page.wait_for_selector("#latent-body .examples")
    assert texts(page, ".windows .window")[1] == "€a\\xe2\\xe2"
    assert texts(page, ".windows .peak")[1] == "\\xe2"


def test_the_list_names_the_character(open_page, page_file):
    page = open_page(page_file).go("latents")
    page.click("#list-head [data-key=number]")
    assert texts(page, "#list-rows [data-row='1'] .token") == ["€"]


def test_blanks_and_bytes_of_raised_tokens_are_visible(open_page, page_file):
    page = open_page(page_file).go("latent/0")
    page.wait_for_selector("aside code")
    assert texts(page, "aside section:has(h4) tr code")[:3] == ["·↵⇥up", "\\xe2\\x80", "x··y"]
    assert page.locator("aside code.bytes").first.get_attribute("title") == "bytes of a character"
    page = open_page(page_file).go("latents")
    page.fill("#list-search", "\\xe2\\x80")
    page.press("#list-search", "Enter")
    assert page.text_content("#list-count").startswith("2 of 2 latents")


def test_files_without_bytes_are_shown_as_they_are(open_page, make_samples, make_subject, write_page):
    samples = make_samples(1, ["\ufffd"], n_tokens=20)
    page = open_page(write_page(make_subject(pathlib.Path("run"), samples), 1)).go("latent/0")
    page.wait_for_selector("#latent-body .examples")
    assert texts(page, ".windows .peak")[0] == "\ufffd"


def test_a_label_has_its_score_and_one_near_chance_is_unsure(open_page, page_file):
    page = open_page(page_file).go("latents")
    page.click("#list-head [data-key=number]")
    shown = texts(page, "#list-rows .label")
    assert shown == ["0.90 fires on '\\n····', ' in'", "0.55 unsure ·says··nothing"]
    assert page.locator("#list-rows .label .doubted").count() == 1
    page = open_page(page_file).go("latent/1")
    page.wait_for_selector("#latent-body .examples")
    said = "unsure: ·says··nothing (named, score 0.55, by chance 0.50 ± 0.10)"
    assert page.text_content("#latent-labels") == said


def test_elsewhere_an_unsure_label_does_not_stand_for_the_latent(open_page, page_file):
    page = open_page(page_file).go("latent/0")
    nearest = "aside section:has(h4) td.text"
    page.wait_for_selector(nearest)
    assert "nothing" not in " ".join(texts(page, nearest))
    page = open_page(page_file).go("latent/1")
    page.wait_for_function("document.getElementById('latent-title').textContent === 'Latent 1'")
    assert texts(page, nearest)[0] == "fires on '\\n····', ' in'"
