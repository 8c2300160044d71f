"""What mkdocs calls while it builds the site (`make docs`): made pages, their links, and where code lies."""

from __future__ import annotations

import logging
from typing import Any

from links import Places, expanded, relinked
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as SitePage
from pages import ROOT, all_pages, extra_files, written_pages

LOG = logging.getLogger("mkdocs.hooks.site")
"""A warning here is an error of `make docs`."""
CODE = ROOT / "build" / "docs-code"
"""In it ``cli`` has the name that it is imported by; mkdocstrings looks there."""
PAGES = all_pages()
PLACES = Places(PAGES)


def on_startup(**_: Any) -> None:
    """Make the folder of code before mkdocstrings reads its paths: it leaves out those that are not there."""
    CODE.mkdir(parents=True, exist_ok=True)
    if not (CODE / "qsae_cli").exists():
        (CODE / "qsae_cli").symlink_to(ROOT / "cli", target_is_directory=True)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the made pages into the navigation."""
    config.nav = expanded(config.nav, [*written_pages(), *(page.uri for page in PAGES)])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, and the files that pages link to."""
    for page in PAGES:
        files.append(File.generated(config, page.uri, content=page.text))
    for uri, path in extra_files().items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: SitePage, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    text, faults = relinked(markdown, page.file.src_uri, PLACES)
    for fault in faults:
        LOG.warning(fault)
    return text
