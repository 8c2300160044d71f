"""The pages of the site: which there are, what is on them, and where their links lead.

What mkdocs makes of them is built by ``make docs``, in an environment of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import re
import sys
from unittest.mock import MagicMock

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "docs" / "hooks"))
import yaml
from documents import blocks
from links import Places, expanded, relinked
from pages import (
    ROOT,
    Page,
    all_pages,
    face,
    notebook_cell,
    promised,
    readme_pages,
    reference_page,
    sections,
    slug,
    written_pages,
)
from test_boundaries import FACE

PAGES = all_pages()
TEXTS = {page.uri: page.text for page in PAGES}


class Yaml(yaml.SafeLoader):
    """mkdocs.yml, without what its own tags mean."""


Yaml.add_multi_constructor("!", lambda loader, suffix, node: None)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Yaml)


def named(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [uri for entry in (nav.values() if isinstance(nav, dict) else nav) for uri in named(entry)]


def test_every_page_is_once_in_the_navigation_and_nothing_else_is():
    uris = [*written_pages(), *TEXTS]
    assert sorted(named(expanded(CONFIG["nav"], uris))) == sorted(uris)
    assert len(set(uris)) == len(uris)


def test_every_distribution_has_a_page_and_a_new_one_is_in_the_navigation():
    folders = {p.parent.name for p in [*ROOT.glob("plugins/*/pyproject.toml"), ROOT / "qsae-all" / "x"]}
    assert {uri.removeprefix("plugins/")[:-3] for uri in TEXTS if uri.startswith("plugins/qsae")} == folders
    nav = expanded(CONFIG["nav"], [*written_pages(), *TEXTS, "plugins/qsae-sae-new.md", "new-results.md"])
    assert {"plugins/qsae-sae-new.md", "new-results.md"} <= set(named(nav))


def test_every_section_of_the_readme_is_on_one_page_word_by_word():
    made = [page.text for page in readme_pages()]
    for heading, text in sections((ROOT / "README.md").read_text(encoding="utf-8")).items():
        assert sum(text.strip() in page for page in made) == 1, heading


def test_sections_are_cut_at_headings_and_not_in_blocks():
    text = "# T\n\nfirst\n\n## A b\n\n```sh\n## no heading\n```\n\n## C\n\nlast\n"
    found = {"": "# T\n\nfirst\n\n", "A b": "```sh\n## no heading\n```\n", "C": "last\n"}
    assert sections(text) == found
    assert slug("What, it's: `x`-y") == "what-its-x-y"


@pytest.mark.parametrize(
    ("uri", "link", "expected"),
    [
        ("index.md", "docs/report.md", "report.md"),
        ("index.md", "plugins/qsae-sae-topk", "plugins/qsae-sae-topk.md"),
        ("index.md", "LICENSE", "about/license.md"),
        ("how-to/compare.md", "configs/sweep-builtin.yaml", "../files/configs/sweep-builtin.yaml"),
        ("how-to/compare.md", "plugins/README.md", "../tutorials/write-a-plugin.md"),
        ("plugins/qsae-samples.md", "../qsae-splice", "qsae-splice.md"),
        ("plugins/qsae-samples.md", "../../docs/report.md", "../report.md"),
        ("tutorials/train.md", "quantize.md", "quantize.md"),
        ("tutorials/train.md", "../../README.md#train-on-a-real-model", "../how-to/train-on-a-real-model.md"),
        ("evaluations.md", "../README.md#why", "index.md#why"),
        ("results.md", "results-builtin.csv", "results-builtin.csv"),
        ("results.md", "#machine", "#machine"),
        ("index.md", "https://example.org/a", "https://example.org/a"),
    ],
)
def test_links_between_files_become_links_between_pages(uri, link, expected):
    assert relinked(f"see [it]({link}).", uri, Places(PAGES)) == (f"see [it]({expected}).", [])


def test_a_link_to_what_the_site_has_not_is_a_fault_and_blocks_of_code_have_no_links():
    text = "[a](pyproject.toml)\n```\n[b](nothing)\n```\n"
    assert relinked(text, "index.md", Places(PAGES)) == (
        text,
        ["README.md links to pyproject.toml, which is no page of the site"],
    )


# --- the reference


def test_the_reference_is_of_the_public_face():
    assert face() == list(FACE)
    assert {uri for uri in TEXTS if uri.startswith("reference/")} == {f"reference/{p}.md" for p in FACE}


@pytest.mark.parametrize("package", FACE)
def test_it_has_every_name_that_a_package_promises(package):
    module = importlib.import_module(package)
    own = [
        n
        for n, v in vars(module).items()
        if not n.startswith("_") and getattr(v, "__module__", "") == package
    ]
    expected = {name for name in getattr(module, "__all__", own) if not name.startswith("__")}
    shown = re.findall(rf"^::: {re.escape(package)}\.(\w+)$", TEXTS[f"reference/{package}.md"], re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert set(shown) == expected


def test_a_fresh_checkout_has_the_folders_of_code_before_mkdocstrings_reads_its_paths(tmp_path, monkeypatch):
    """It does so in its on_config, which comes before that of the hooks, and leaves out what is not there."""
    (places,) = [entry["mkdocstrings"] for entry in CONFIG["plugins"] if "mkdocstrings" in entry]
    for module in ("config.defaults", "structure.files", "structure.pages"):
        monkeypatch.setitem(sys.modules, f"mkdocs.{module}", MagicMock())
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks" / "site.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.CODE.relative_to(ROOT).as_posix() in places["handlers"]["python"]["paths"]
    monkeypatch.setattr(hooks, "CODE", tmp_path / "build" / "docs-code")
    for _ in range(2):  # the second time it is there
        hooks.on_startup(command="build", dirty=False)
        assert (tmp_path / "build" / "docs-code" / "qsae_cli" / "commands.py").is_file()


def test_a_new_name_appears_by_itself(tmp_path):
    (tmp_path / "qsae_core" / "new").mkdir(parents=True)
    (tmp_path / "qsae_core" / "new" / "__init__.py").write_text('__all__ = ["One", "two"]\n')
    page = reference_page("qsae_core.new", promised("qsae_core.new", tmp_path))
    assert isinstance(page, Page)
    assert re.findall(r"^::: (.*)$", page.text, re.MULTILINE) == [
        "qsae_core.new",
        "qsae_core.new.One",
        "qsae_core.new.two",
    ]


# --- what a page looks like


def test_cells_of_a_notebook():
    code = {"cell_type": "code", "source": ["x = 1\n", "x"]}
    shell = {"cell_type": "code", "source": ["%%sh\n", "qsae runs"]}
    assert notebook_cell(code) == "```python\nx = 1\nx\n```"
    assert notebook_cell(shell) == "```sh\nqsae runs\n```"
    assert notebook_cell({"cell_type": "markdown", "source": ["# A\n", "b"]}) == "# A\nb"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uri)
def test_what_belongs_to_an_item_of_a_list_is_indented_enough(page):
    """By four, behind an empty line: renderers differ on two and three."""
    bare = re.sub(r"^```.*?^```", lambda m: re.sub(r"[^\n]", "x", m[0]), page.text, flags=re.M | re.S)
    assert re.findall(r"\n\n {2,3}(?! )(?!options:).*", bare) == []


def test_nothing_of_the_site_is_loaded_from_elsewhere():
    assert CONFIG["theme"]["font"] is False
    assert not re.search(r"https?://", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert "extra_javascript" not in CONFIG
    style = (ROOT / "docs" / "site.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_the_tutorials_have_commands_and_what_they_print():
    for path in ROOT.glob("docs/tutorials/*.md"):
        languages = {block.language for block in blocks(path)}
        assert {"sh", "text"} <= languages, path.name
