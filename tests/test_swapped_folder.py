"""A folder that takes the place of another one when it is complete."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from qsae_core.errors import QsaeError
from qsae_core.results.files import atomic_file, swapped, swapped_folder, write_json


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


@pytest.mark.parametrize("what", ["folder", "file"])
def test_of_several_that_begin_one_wins(tmp_path, what):
    """Four processes try for a path that is free; one is told nothing, the others that it is taken."""
    script = (
        "import pathlib, sys; from qsae_core.errors import ConfigError\n"
        "from qsae_core.results.files import swapped\n"
        "try:\n"
        "    with swapped(pathlib.Path(sys.argv[1]), fresh=True) as new:\n"
        "        if sys.argv[3] == 'file': new.write_text(sys.argv[2])\n"
        "        else:\n"
        "            new.mkdir()\n"
        "            for name in 'ab': (new / name).write_text(sys.argv[2])\n"
        "except ConfigError as error: print(error)\n"
    )
    for n in range(5):
        path = tmp_path / f"there{n}"
        lines = [[sys.executable, "-c", script, str(path), name, what] for name in "wxyz"]
        running = [
            subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for line in lines
        ]
        said = [process.communicate() for process in running]
        assert [error for _, error in said] == [""] * 4
        winners = [name for name, (text, _) in zip("wxyz", said, strict=True) if not text]
        assert len(winners) == 1
        assert all("written by another" in text or "is writing it" in text for text, _ in said if text)
        files = [path] if what == "file" else sorted(path.iterdir())
        assert {file.read_text() for file in files} == set(winners)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"there{n}" for n in range(5)]


def test_what_another_process_is_writing_is_said_at_once(tmp_path):
    """The first holds the path open until it is told to end."""
    script = (
        "import pathlib, sys; from qsae_core.results.files import swapped_folder\n"
        "with swapped_folder(pathlib.Path(sys.argv[1]), fresh=True) as new:\n"
        "    print('open', flush=True)\n"
        "    input()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == "open\n"
    said = f"process {first.pid} of this machine is writing it"
    with pytest.raises(QsaeError, match=said), swapped_folder(tmp_path / "run", fresh=True):
        pass
    first.communicate("\n")
    assert first.returncode == 0
    assert (tmp_path / "run").is_dir()


def test_where_there_are_no_links_one_file_wins_all_the_same(tmp_path, monkeypatch):
    def refused(source, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    with swapped(tmp_path / "file", fresh=True) as new:
        new.write_text("1")
    with (
        pytest.raises(QsaeError, match="written by another process"),
        swapped(tmp_path / "file", fresh=True) as new,
    ):
        new.write_text("2")
    assert contents(tmp_path) == {pathlib.Path("file"): b"1"}


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_the_longest_names_that_there_are(tmp_path, name):
    """255 and 254 bytes: the hidden name beside them is shorter than they are."""
    with swapped_folder(tmp_path / name, fresh=True) as new:
        (new / name).write_text("1")
    with atomic_file(tmp_path / name / name) as file:
        file.write_text("2")
    assert contents(tmp_path) == {pathlib.Path(name, name): b"2"}
    with pytest.raises(QsaeError, match="too long"), swapped_folder(tmp_path / f"{name}xx"):
        pass


def test_a_fresh_record_takes_no_other_one_s_place(tmp_path):
    """As of a run that two processes begin at once."""
    write_json(tmp_path / "config.json", {"first": 1}, fresh=True)
    with pytest.raises(QsaeError, match="stays as it is"):
        write_json(tmp_path / "config.json", {"second": 2}, fresh=True)
    assert contents(tmp_path) == {pathlib.Path("config.json"): b'{\n  "first": 1\n}\n'}
    write_json(tmp_path / "config.json", {"third": 3})
    assert contents(tmp_path) == {pathlib.Path("config.json"): b'{\n  "third": 3\n}\n'}
