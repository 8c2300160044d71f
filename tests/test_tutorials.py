"""docs/tutorials: the commands of each page, in its order, each page in an empty folder.

They are those of the page but for how much is read; sizes of coders stay, since latents are named by number.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import shlex
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from documents import blocks, commands
from reader import ROOT, Reader

PAGES = sorted(ROOT.glob("docs/tutorials/*.md"))
QUICK = "--batch-size 64 --statistics-tokens 256 --buffer-tokens 2048 --eval-tokens 256 --eval-every 0"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


class Student(Reader):
    """Reads less than the page does."""

    def adapt(self, command: str) -> list[str]:
        """The words of a command; training and reading made short."""
        words = shlex.split(re.sub(r"--tokens \w+", "--tokens 1024", command))
        if command.startswith("qsae train") and "--help" not in words:
            words += QUICK.split()
        if command.startswith("qsae splice"):
            words += ["--measure-tokens", "1024"]
        return words


@pytest.mark.slow
@every_page
def test_its_commands_work(page, tmp_path):
    student = Student(tmp_path)
    student.follow(blocks(page))
    assert student.outputs


@every_page
def test_output_stands_behind_commands_and_is_of_runs_that_the_page_makes(page):
    found = blocks(page)
    text = " ".join(command for block in found if block.language == "sh" for command in commands(block))
    named = {*re.findall(r"--name ([\w-]+)", text), *re.findall(r"results/([\w-]+)/", text)}
    for before, block in itertools.pairwise(found):
        if block.language == "text":
            assert before.language == "sh"
            assert set(re.findall(r"results/([\w-]+)/", block.text)) <= named
    assert [b.language for b in found if b.language not in ("sh", "text")] == []
