"""What goes wrong between a URL and this machine; the files are in memory, behind memory://."""

from __future__ import annotations

import errno
import os
import sys

import pytest
from qsae_store import harvest as harvest_module
from qsae_store.folder import open_folder

from qsae_core.errors import DataError, QsaeError

fsspec = pytest.importorskip("fsspec")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def url(whole):
    """A store behind a URL."""
    memory = fsspec.filesystem("memory")
    for path in whole.iterdir():
        memory.pipe_file(f"/faults/{path.name}", path.read_bytes())
    yield "memory://faults"
    memory.rm("/faults", recursive=True)


def failing(error):
    def fail(*arguments, **more):
        raise error

    return fail


def test_a_full_disk_is_called_so_when_a_shard_is_copied(harvest, url, tmp_path, monkeypatch):
    store = harvest.store(url, layer=1, cache_dir=str(tmp_path))
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", failing(FULL))
    with pytest.raises(QsaeError, match="the disk is full") as caught:
        store.next_batch(store.training_tokens)
    assert "--cache-dir" in caught.value.next
    assert "--out" not in caught.value.next


def test_a_server_that_refuses_is_no_full_disk(harvest, url, tmp_path, monkeypatch):
    store = harvest.store(url, layer=1, cache_dir=str(tmp_path))
    refused = failing(ConnectionError("the server is away"))
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", refused)
    with pytest.raises(DataError, match="ConnectionError: the server is away") as caught:
        store.next_batch(store.training_tokens)
    assert caught.value.where.startswith(url)


def test_a_full_disk_is_called_so_when_a_shard_is_made(tmp_path):
    folder = open_folder("memory://empty", str(tmp_path))
    with pytest.raises(QsaeError, match="the disk is full"):
        folder.write("training-00000.safetensors", failing(FULL))
    assert folder.sizes() == {}


def test_a_copy_that_was_altered_is_to_be_deleted(harvest, url, tmp_path):
    options = {"layer": 1, "cache_dir": str(tmp_path)}
    store = harvest.store(url, **options)
    expected = store.next_batch(store.training_tokens).x
    (copies,) = tmp_path.iterdir()
    for path in copies.iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    store = harvest.store(url, **options)
    with pytest.raises(DataError, match="has been altered since it was written") as caught:
        store.next_batch(store.training_tokens)
    assert f"delete {copies}" in caught.value.next
    assert "verify" not in caught.value.next
    for path in copies.iterdir():
        path.unlink()
    store = harvest.store(url, **options)
    assert store.next_batch(store.training_tokens).x.equal(expected)


def test_without_platformdirs_the_folder_is_asked_for(harvest, url, monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(DataError, match="`platformdirs`, which is not installed") as caught:
        open_folder(url)
    assert caught.value.next == "pip install 'qsae-store[urls]', or --cache-dir DIR"


def test_only_a_full_disk_wants_space(harvest, tmp_path, monkeypatch):
    """A full one: test_a_full_disk_leaves_what_was_written."""
    fault = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(harvest_module, "write_shard", failing(fault))
    with pytest.raises(DataError, match="the harvest stops at held-out-00000: cannot be written") as caught:
        harvest(tmp_path / "store")
    assert caught.value.__cause__.next.startswith("choose another folder")
    assert caught.value.next == "mend that, and run the same command again: it goes on with that shard"
