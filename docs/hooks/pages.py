"""Pages of the site that are made of the repository's own texts, so that nothing is written twice.

The README's sections, every plugin's README, notebooks, recipes, and the public face of the code become
pages, links between files links between these. This imports nothing but the standard library.
"""

from __future__ import annotations

import ast
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRONT = ("Why", "Two commands", "More")
"""Sections of the README on the front page, behind what stands above the first of them."""
PLACED = {"Install": "start/install.md", "Plugins": "plugins/index.md"}
"""Sections with a place of their own; every other one is a how-to page."""
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FILES = "files"
"""The folder of the site with files of the repository that pages link to."""


class Page(NamedTuple):
    """A page that is made of a file of the repository."""

    uri: str
    """Where it lies below ``docs``, as if it were a file there."""
    origin: str
    """The file that its text is of, from which its links lead."""
    text: str


def read(path: str) -> str:
    """A file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def slug(heading: str) -> str:
    """A heading as the anchor that leads to it."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower()))


def sections(text: str) -> dict[str, str]:
    """Heading of the second level -> the text below it; what stands above the first is of ``""``."""
    bare = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    starts = [(m.start(), m.end(), m[1]) for m in re.finditer(r"^## (.*)$", bare, re.MULTILINE)]
    ends = [start for start, _, _ in starts[1:]] + [len(text)]
    found = {"": text[: starts[0][0]] if starts else text}
    found |= {
        head: text[after:end].strip() + "\n" for (_, after, head), end in zip(starts, ends, strict=True)
    }
    return found


def readme_pages() -> Iterator[Page]:
    """The front page, and one for every other section of the README."""
    found = sections(read("README.md"))
    front = [found[""].strip(), *(f"## {name}\n\n{found[name]}" for name in FRONT)]
    yield Page("index.md", "README.md", "\n\n".join(front))
    for name, text in found.items():
        if name and name not in FRONT:
            yield Page(section_uri(name), "README.md", f"# {name}\n\n{text}")


def section_uri(name: str) -> str:
    """The page that a section of the README is on."""
    return "index.md" if name in FRONT else PLACED.get(name, f"how-to/{slug(name)}.md")


def plugin_pages() -> Iterator[Page]:
    """The README of every distribution beside core, by its folder."""
    for path in [*sorted(ROOT.glob("plugins/*/README.md")), ROOT / "qsae-all" / "README.md"]:
        origin = path.relative_to(ROOT).as_posix()
        yield Page(f"plugins/{path.parent.name}.md", origin, read(origin))


def notebook_pages() -> Iterator[Page]:
    """Every notebook as text, with a link to the file."""
    for path in sorted(ROOT.glob("docs/notebooks/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title, *others = (notebook_cell(cell) for cell in cells)
        head, _, more = title.partition("\n")
        link = f"This page is a notebook: [{path.name}]({path.name})."
        text = "\n\n".join([head, link, more.strip(), *others])
        yield Page(f"tutorials/{path.stem}.md", path.relative_to(ROOT).as_posix(), f"{text}\n")


def notebook_cell(cell: Mapping[str, Any]) -> str:
    """Markdown of a cell: of code a block, of the shell's where it begins with ``%%sh``."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    shell = source.startswith("%%sh\n")
    return f"```{'sh' if shell else 'python'}\n{source.removeprefix('%%sh' + chr(10))}\n```"


def recipe_page() -> Page:
    """The files in ``configs``."""
    files = sorted(ROOT.glob("configs/*.yaml"))
    lines = [f"* [{path.name}]({path.name})" for path in files]
    how = "Configurations to begin with: `qsae train --config FILE`; of sweeps `qsae compare --sweep FILE`."
    return Page("how-to/recipes.md", "configs/README.md", "\n".join(["# Recipes", "", how, "", *lines, ""]))


def other_pages() -> Iterator[Page]:
    """The tutorial of plugins, and what is said of the project."""
    yield Page("tutorials/write-a-plugin.md", "plugins/README.md", read("plugins/README.md"))
    yield Page("about/changelog.md", "CHANGELOG.md", read("CHANGELOG.md"))
    yield Page("about/contributing.md", "CONTRIBUTING.md", read("CONTRIBUTING.md"))
    yield Page("about/license.md", "LICENSE", f"# License\n\n{read('LICENSE')}")


# --- the public face


def face() -> list[str]:
    """The packages whose names are promised, as docs/architecture.md lists them."""
    text = " ".join(read("docs/architecture.md").split())
    sentence = re.search(
        r"Plugins import ((?:`[\w.]+`(?:, | and )?)+), and of these what their `__all__`", text
    )
    assert sentence is not None, "docs/architecture.md no longer says what plugins import"
    return re.findall(r"`([\w.]+)`", sentence[1])


def promised(package: str, root: pathlib.Path = ROOT) -> list[str]:
    """The names in a package's ``__all__``, read and not imported; of ``errors`` all that it defines."""
    path = root / package.replace(".", "/").replace("qsae_cli", "cli")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    defined = [n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]
    return [name for name in defined if not name.startswith("_")]


def reference_page(package: str, names: Sequence[str]) -> Page:
    """What a package says of itself, and each of its names, whose docstrings mkdocstrings takes."""
    head = (
        f"# {package}\n\n::: {package}\n    options:\n      members: false\n      show_root_heading: false\n"
    )
    entries = [f"::: {package}.{name}\n" for name in names if not name.startswith("__")]
    origin = package.replace(".", "/").replace("qsae_cli", "cli")
    return Page(f"reference/{package}.md", origin, "\n".join([head, *entries]))


def reference_pages() -> Iterator[Page]:
    """A page for each package of the face."""
    for package in face():
        yield reference_page(package, promised(package))


def all_pages() -> list[Page]:
    """Every page that is made of something else."""
    return [
        *readme_pages(),
        recipe_page(),
        *plugin_pages(),
        *other_pages(),
        *notebook_pages(),
        *reference_pages(),
    ]


def written_pages() -> list[str]:
    """The pages that lie in ``docs`` and its folders as they are."""
    folder = ROOT / "docs"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))


def extra_files() -> dict[str, str]:
    """Place in the site -> file of the repository, of those that pages link to and that are no pages."""
    return {f"{FILES}/{p}": p for p in (f.relative_to(ROOT).as_posix() for f in ROOT.glob("configs/*.yaml"))}
