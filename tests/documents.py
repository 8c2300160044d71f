"""The code blocks of a Markdown file, so that tests can run what a document shows."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced code block."""

    language: str
    text: str
    mark: str | None
    """The HTML comment on the line above, ``file: my.yaml`` for one; None if there is none."""
    section: str
    """The heading under which it stands."""

    @property
    def file(self) -> str | None:
        """The path that ``file: PATH`` gives the block."""
        return self.mark.removeprefix("file: ") if self.mark and self.mark.startswith("file: ") else None


def blocks(document: pathlib.Path) -> list[Block]:
    """Every fenced block, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        headings = re.findall(r"^#+ (.*)$", _without_blocks(text[: match.start()]), re.MULTILINE)
        found.append(Block(match["language"], match["text"], match["mark"], headings[-1]))
    assert text.count("\n```") == 2 * len(found), f"{document.name}: a fence that is not closed"
    return found


def commands(block: Block) -> list[str]:
    """The commands of a shell block: continued lines joined, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    bare = [re.sub(r"\s+#.*$", "", line).strip() for line in lines]
    return [re.sub(r"\s+", " ", line) for line in bare if line and not line.startswith("#")]


def tables(document: pathlib.Path) -> str:
    """Every line of a table."""
    text = document.read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def _without_blocks(text: str) -> str:
    return FENCE.sub("", text)
