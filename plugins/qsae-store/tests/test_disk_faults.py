"""What a disk refuses while a store is read."""

from __future__ import annotations

import errno
import os
import pathlib
from unittest import mock

import pytest
from qsae_store.folder import open_folder
from qsae_store.manifest import read_manifest
from qsae_store.records import read_sums
from qsae_store.shards import ShardFile
from qsae_store.verify import find_damage

from qsae_core.errors import DataError
from qsae_core.runs import checked_layer, load_plugins, resolve, train

FAULTS = [errno.EIO, errno.ESTALE, errno.EACCES]


def refusing(call, fault, path):
    """A call of ``os`` that fails for one file: by its path, or by what is open."""
    told = path.stat()

    def failing(file, *arguments, **more):
        there = os.fstat(file) if isinstance(file, int) else os.stat(file)
        if os.path.samestat(there, told):
            raise OSError(fault, os.strerror(fault))
        return call(file, *arguments, **more)

    return failing


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["open", "pread", "preadv"])
def test_a_shard_that_the_disk_refuses_is_named(harvest, whole, monkeypatch, name, fault):
    path = whole / "training-00001.safetensors"
    store = harvest.store(whole, layer=1)
    monkeypatch.setattr(os, name, refusing(getattr(os, name), fault, path))
    with pytest.raises(DataError, match=f"cannot be read: {os.strerror(fault)}") as caught:
        store.next_batch(store.training_tokens)
    assert caught.value.where == str(path)
    assert "qsae cache verify" in caught.value.next


def test_nothing_stays_open_where_a_header_cannot_be_read(whole, monkeypatch):
    path = whole / "training-00001.safetensors"
    monkeypatch.setattr(os, "pread", refusing(os.pread, errno.EIO, path))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DataError):
        ShardFile(path)
    assert len(os.listdir("/proc/self/fd")) == before


READERS = {
    "manifest.json": read_manifest,
    "training-00001.json": lambda folder: read_sums(folder, "training-00001"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_json_file_that_the_disk_refuses_is_named(whole, monkeypatch, name):
    reading = pathlib.Path.read_bytes

    def failing(path):
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return reading(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", failing)
    with pytest.raises(DataError, match="cannot be read: Input/output error") as caught:
        READERS[name](open_folder(str(whole)))
    assert caught.value.where == str(whole / name)


def test_training_keeps_what_it_has_done_and_goes_on(whole, tmp_path, monkeypatch):
    tree = {
        "sae": {"use": "baseline", "n_latents": 64},
        "sparsity": {"use": "topk", "k": 4},
        "data": {"use": "store", "path": str(whole), "layer": 1, "shuffle_blocks": 2},
        "train": {"steps": 12, "batch_size": 64, "statistics_tokens": 128, "eval_every": 0},
        "run": {"device": "cpu", "out": str(tmp_path / "results")},
        "evaluate": ["reconstruction"],
    }

    def trained(**more):
        layers = [checked_layer({**tree, "run": {**tree["run"], **more}}, "test")]
        return train(resolve(layers, load_plugins().registry), load_plugins(), mock.MagicMock())

    reading, left = os.preadv, 30

    def failing(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return reading(*arguments)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(DataError, match=r"steps are saved; when that is mended, .* --resume"):
        trained()
    monkeypatch.setattr(os, "preadv", reading)
    run = trained(resume=True)
    assert run.record()["status"] == "finished"


def test_verify_tells_a_bad_sector_from_a_file_that_may_not_be_read(whole, monkeypatch):
    opening = pathlib.Path.open

    def fail(fault):
        def failing(path, *arguments, **more):
            if path.name == "training-00001.safetensors":
                raise OSError(fault, os.strerror(fault))
            return opening(path, *arguments, **more)

        monkeypatch.setattr(pathlib.Path, "open", failing)

    fail(errno.EIO)
    (found,) = find_damage(str(whole))
    assert (found.shard, found.what) == ("training-00001", "cannot be read: Input/output error")
    fail(errno.EACCES)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        find_damage(str(whole))
