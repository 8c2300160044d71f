"""A folder that takes the place of another one when it is complete."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from qsae_core.errors import QsaeError
from qsae_core.results.files import swapped_folder


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_swapped_in_when_it_is_complete(tmp_path):
    path = tmp_path / "a/b"
    with swapped_folder(path) as new:
        (new / "file").write_text("1")
        assert not path.exists()
    with swapped_folder(path) as new:
        (new / "other").write_text("2")
        assert [p.name for p in path.iterdir()] == ["file"]
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == [
        "a",
        "a/b",
        "a/b/other",
    ]


def test_what_was_there_comes_back_when_the_swap_fails(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()
    (path / "file").write_text("old")
    rename = pathlib.Path.rename

    def failing(self, target):
        if self.parent.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", failing)
    with pytest.raises(QsaeError, match="cannot be written"), swapped_folder(path):
        pass
    assert contents(tmp_path) == {pathlib.Path("run/file"): b"old"}


def test_what_the_block_raises_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="of the data"), swapped_folder(tmp_path / "a/b"):
        raise OSError("of the data")
    assert list(tmp_path.iterdir()) == []


def test_several_processes_take_turns(tmp_path):
    """Each puts a whole folder there two hundred times; none fails, and one of theirs is there in the end."""
    script = (
        "import pathlib, sys; from qsae_core.results.files import atomic_folder\n"
        "for n in range(200):\n"
        "    with atomic_folder(pathlib.Path(sys.argv[1])) as new:\n"
        "        for name in 'ab': (new / name).write_text(sys.argv[2])\n"
    )
    line = [sys.executable, "-c", script, str(tmp_path / "there")]
    running = [subprocess.Popen([*line, name], stderr=subprocess.PIPE, text=True) for name in ("x", "y")]
    assert [(process.communicate()[1], process.returncode) for process in running] == [("", 0)] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert {path.read_text() for path in (tmp_path / "there").iterdir()} in ({"x"}, {"y"})
