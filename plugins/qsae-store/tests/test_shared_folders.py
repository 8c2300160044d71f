"""Several machines, or containers, that write to one folder."""

from __future__ import annotations

import os
import socket

import pytest
from click.testing import CliRunner
from qsae_store.folder import open_folder
from qsae_store.json_files import create_text

from qsae_cli.main import cli
from qsae_core.errors import DataError
from qsae_core.runs import atomic_file


def left_by_a_dead_process(path):
    """The temporary file of a writer that was killed: its name is as the writer made it."""
    child = os.fork()
    if not child:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            os._exit(0)
    os.waitpid(child, 0)


@pytest.fixture
def folder(tmp_path):
    return open_folder(str(tmp_path / "store"))


def hidden(folder):
    return sorted(path.name for path in folder.path.iterdir() if path.name.startswith("."))


def expect_to_stay(folder, count):
    """So many temporary files are there, and cleaning leaves all of them."""
    names = hidden(folder)
    assert len(names) == count
    folder.clean()
    assert hidden(folder) == names


def test_what_a_dead_process_of_this_machine_left_is_removed(folder):
    left_by_a_dead_process(folder.path / "training-00000.safetensors")
    assert len(hidden(folder)) == 1
    folder.clean()
    assert hidden(folder) == []


def test_what_a_process_is_writing_stays(folder):
    with atomic_file(folder.path / "training-00000.safetensors") as temporary:
        temporary.write_text("half")
        folder.clean()
        assert len(hidden(folder)) == 1


def test_what_another_machine_writes_stays(folder, monkeypatch):
    """By its number alone its process would be taken for one of this machine that is no more."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node7.cluster.example")
    left_by_a_dead_process(folder.path / "training-00000.safetensors")
    left_by_a_dead_process(folder.path / "manifest.json")
    monkeypatch.undo()
    expect_to_stay(folder, 2)


def test_what_another_container_of_the_same_name_writes_stays(folder, monkeypatch):
    """A process namespace has numbers of its own; its host may be called as this one."""
    stat = os.stat

    def elsewhere(path, **more):
        return stat("/proc/self/ns/mnt" if path == "/proc/self/ns/pid" else path, **more)

    monkeypatch.setattr(os, "stat", elsewhere)
    left_by_a_dead_process(folder.path / "training-00000.safetensors")
    monkeypatch.undo()
    expect_to_stay(folder, 1)


def test_machines_whose_processes_have_the_same_number_do_not_share_a_temporary_file(folder, monkeypatch):
    path = folder.path / "manifest.json"
    with atomic_file(path) as here:
        monkeypatch.setattr(socket, "gethostname", lambda: "node7")
        with atomic_file(path) as there:
            assert here != there
            here.write_text("here")
            there.write_text("there")
    assert path.read_text() == "here"


def test_what_is_no_temporary_file_of_this_kind_stays(folder):
    folder.path.mkdir()
    for name in (".x.tmp", ".x.12.tmp", ".tmp", ".a.b.c.tmp"):
        (folder.path / name).write_text("x")
    folder.clean()
    assert len(hidden(folder)) == 4


def test_what_a_library_left_beside_the_file_is_removed_too(folder):
    """safetensors writes into a file of its own, beside the path that it is given, and renames that."""

    def fill(path):
        path.with_name(".tmpAbCdEf").write_text("half")
        os._exit(0)

    child = os.fork()
    if not child:
        folder.write("training-00000.safetensors", fill)
    os.waitpid(child, 0)
    assert hidden(folder) != []
    folder.clean()
    assert list(folder.path.iterdir()) == []


def test_one_of_two_harvests_begins_a_store(tmp_path):
    """Each made its manifest before it saw the other's."""
    folder = open_folder(str(tmp_path / "store"))
    assert create_text(folder, "manifest.json", "one")
    assert not create_text(folder, "manifest.json", "two")
    assert folder.read("manifest.json") == b"one"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("url", ["file://{}", "file:{}", "file://localhost{}", "FILE://{}"])
def test_urls_of_this_machine(tmp_path, url):
    folder = open_folder(url.format(tmp_path / "a%20store"))
    assert folder.place == str(tmp_path / "a store")
    with pytest.raises(DataError, match="of this machine, not of 'elsewhere'"):
        open_folder(f"file://elsewhere{tmp_path}")


@pytest.mark.parametrize("out", ["", "memory://store"])
def test_a_harvest_needs_a_place_that_stays(out):
    done = CliRunner().invoke(cli, ["cache", "--out", out])
    assert done.exit_code == 2
    assert "--out: " in done.output
