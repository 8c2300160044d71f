"""Links between files of the repository, as links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from pages import FENCE, LINK, ROOT, Page, extra_files, section_uri, sections, slug


class Places:
    """Where in the site each file of the repository is."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self.origins = {page.uri: page.origin for page in pages}
        self.uris = {origin: uri for uri, origin in self.origins.items() if origin != "README.md"}
        self.uris |= {path: uri for uri, path in extra_files().items()}
        self.uris |= {"README.md": "index.md", "configs": "how-to/recipes.md", "plugins": "plugins/index.md"}
        self.anchors = {slug(name): name for name in sections((ROOT / "README.md").read_text("utf-8"))}

    def origin(self, uri: str) -> str:
        """The file that a page is made of."""
        return self.origins.get(uri, f"docs/{uri}")

    def uri(self, path: str, anchor: str) -> str | None:
        """The page or file of the site that a file of the repository is; None if it has none."""
        if path == "README.md" and anchor:
            return section_uri(self.anchors[anchor]) if anchor in self.anchors else None
        if path.startswith("docs/"):
            return path.removeprefix("docs/")
        return self.uris.get(path) or self.uris.get(f"{path}/README.md")

    def link(self, target: str, uri: str) -> str | None:
        """A link of a page as the site needs it; None if it leads to what is not in the site."""
        path, _, anchor = target.partition("#")
        origin = self.origin(uri)
        if re.match(r"[a-z]+:", target) or (not path and origin != "README.md"):
            return target
        found = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path)) if path else origin
        place = self.uri(found, anchor)
        if place is None:
            return None
        kept = "" if found == "README.md" and anchor and place != "index.md" else anchor
        relative = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return relative + (f"#{kept}" if kept else "")


def relinked(text: str, uri: str, places: Places) -> tuple[str, list[str]]:
    """The text of a page with its links, those in blocks of code left alone, and what is wrong with them."""
    pieces, faults, end = [], [], 0

    def replaced(match: re.Match[str]) -> str:
        link = places.link(match[2], uri)
        if link is None:
            faults.append(f"{places.origin(uri)} links to {match[2]}, which is no page of the site")
        return match[0] if link is None else f"{match[1]}{link}{match[3]}"

    for block in FENCE.finditer(text):
        pieces += [LINK.sub(replaced, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*pieces, LINK.sub(replaced, text[end:])]), faults


def expanded(nav: object, uris: Iterable[str]) -> object:
    """A navigation with the pages of a folder that it does not name in place of ``folder/*``, or ``*``."""
    named = set(_named(nav))
    return _expanded(nav, [uri for uri in uris if uri not in named])


def _named(nav: object) -> Iterable[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, Mapping):
        for entry in nav.values():
            yield from _named(entry)
    elif isinstance(nav, list):
        for entry in nav:
            yield from _named(entry)


def _expanded(nav: object, uris: list[str]) -> object:
    if isinstance(nav, Mapping):
        return {title: _expanded(entry, uris) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    found: list[object] = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("*"):
            found += [uri for uri in uris if posixpath.dirname(uri) == posixpath.dirname(entry)]
        else:
            found.append(_expanded(entry, uris))
    return found
