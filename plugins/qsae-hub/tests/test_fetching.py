"""Files of a repository in the cache: those that are needed, checked, and going on where they stopped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest
from hub_server import OWNER, READER
from qsae_hub.cache import INCOMPLETE
from qsae_hub.errors import HubError
from qsae_hub.fetching import fetch

from qsae_core.errors import UnwritableError

WEIGHTS, SETTINGS = random.Random(0).randbytes(300_000), b'{"d_sae": 8}'
FILES = {
    "layer_1/a/params.npz": WEIGHTS,
    "layer_1/a/cfg.json": SETTINGS,
    "layer_1/a/model.py": b"import os",
    "layer_1/b/params.npz": b"of another one",
    "layer_1/a/deeper/x.json": b"{}",
    "README.md": b"# card",
}
NAMES = ("*.npz", "*.json")


@pytest.fixture
def repo(hub):
    return hub.add("them/saes", FILES)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Written as they come, and not ten million bytes at a time."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)


def cached():
    from huggingface_hub import constants

    return pathlib.Path(constants.HF_HUB_CACHE, "models--them--saes")


def blobs():
    return sorted(path.name for path in cached().glob("blobs/*"))


def test_files_that_are_asked_for_and_no_others(hub, repo):
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    assert sorted(p.name for p in folder.rglob("*")) == ["cfg.json", "params.npz"]
    assert (folder / "params.npz").read_bytes() == WEIGHTS
    assert (folder / "cfg.json").read_bytes() == SETTINGS
    assert set(hub.sent) == {"layer_1/a/params.npz", "layer_1/a/cfg.json"}
    assert folder == cached() / "snapshots" / repo.branches["main"] / "layer_1" / "a"
    assert (cached() / "refs" / "main").read_text() == repo.branches["main"]
    assert blobs() == sorted(
        [hashlib.sha256(WEIGHTS).hexdigest(), hashlib.sha1(b"blob 12\0" + SETTINGS).hexdigest()]
    )


def test_files_at_any_depth_where_that_is_asked_for(hub, repo):
    folder = fetch("hf://them/saes/layer_1", ("**/*.json",))
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == [
        "a/cfg.json",
        "a/deeper/x.json",
    ]


def test_the_second_time_nothing_is_sent(hub, repo):
    first = fetch("hf://them/saes/layer_1/a", NAMES)
    hub.sent.clear()
    assert fetch("hf://them/saes/layer_1/a", NAMES) == first
    assert hub.sent == {}


def test_what_changed_since_is_fetched_and_a_revision_is_kept(hub, repo):
    old = repo.branches["main"]
    first = fetch("hf://them/saes/layer_1/a", NAMES)
    repo.commit({"layer_1/a/cfg.json": b"{}"})
    hub.sent.clear()
    second = fetch("hf://them/saes/layer_1/a", NAMES)
    assert (second / "cfg.json").read_bytes() == b"{}"
    assert hub.sent == {"layer_1/a/cfg.json": 2}  # the other one is in the cache
    repo.branches["v1"] = old
    for revision in ("v1", old):
        assert fetch(f"hf://them/saes@{revision}/layer_1/a", NAMES) == first
    assert (cached() / "refs" / "v1").read_text() == old


def test_a_token_is_not_shown_to_another_host(hub, repo):
    fetch("hf://them/saes/layer_1/a", NAMES)
    tokens = {("cdn" in url): headers.get("authorization") for _, url, headers in hub.requests}
    assert tokens == {False: f"Bearer {OWNER}", True: None}


# --- downloads that end early


KILLED = """
import sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 10_000
from qsae_hub.fetching import fetch
print(fetch("hf://them/saes/layer_1/a", ("*.npz",)))
"""


def test_a_download_that_was_killed_goes_on(hub, repo, process, tmp_path):
    hub.hang_after["layer_1/a/params.npz"] = 205_000
    first = process(KILLED)
    blob = tmp_path / "home" / "hub" / "models--them--saes" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    partial = blob.with_name(blob.name + INCOMPLETE)
    end = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size >= 200_000):
        assert time.monotonic() < end
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not blob.exists()
    there = partial.stat().st_size
    second = process(KILLED)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert pathlib.Path(out.strip(), "params.npz").read_bytes() == WEIGHTS
    assert not partial.exists()
    asked = [headers.get("range") for _, url, headers in hub.requests if "/cdn/" in url]
    assert asked == [None, f"bytes={there}-"]
    assert hub.sent["layer_1/a/params.npz"] == 205_000 + len(WEIGHTS) - there


def test_a_connection_that_broke_off_goes_on(hub, repo):
    hub.cut_after["layer_1/a/params.npz"] = 95_000
    with contextlib.suppress(HubError):  # newer versions of huggingface_hub try again themselves
        fetch("hf://them/saes/layer_1/a", NAMES)
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    assert (folder / "params.npz").read_bytes() == WEIGHTS
    assert hub.sent["layer_1/a/params.npz"] < len(WEIGHTS) + 15_000


def begun(data):
    """What a process that is gone left of the weights."""
    cached().joinpath("blobs").mkdir(parents=True)
    partial = cached() / "blobs" / f"{hashlib.sha256(WEIGHTS).hexdigest()}{INCOMPLETE}"
    partial.write_bytes(data)
    return partial


def test_where_the_host_knows_no_ranges_a_file_begins_anew(hub, repo):
    begun(WEIGHTS[:100_000])
    hub.no_ranges = True
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    assert (folder / "params.npz").read_bytes() == WEIGHTS


@pytest.mark.parametrize("data", [WEIGHTS, WEIGHTS + b"more", b""], ids=["whole", "more", "nothing"])
def test_whatever_was_left_behind(hub, repo, data):
    begun(data)
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    assert (folder / "params.npz").read_bytes() == WEIGHTS


# --- bytes that are not what the Hub says


@pytest.mark.parametrize("name", ["params.npz", "cfg.json"])
def test_a_byte_that_changed_on_the_way_is_noticed(hub, repo, name):
    hub.corrupt[f"layer_1/a/{name}"] = 0
    with pytest.raises(
        HubError, match=f"layer_1/a/{name} came with checksum [0-9a-f]+, and the Hub says"
    ) as found:
        fetch("hf://them/saes/layer_1/a", NAMES)
    assert found.value.where == "hf://them/saes/layer_1/a"
    assert not any(INCOMPLETE in blob for blob in blobs())
    assert not list(cached().glob(f"snapshots/*/layer_1/a/{name}"))
    hub.corrupt.clear()
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    assert (folder / name).read_bytes() == FILES[f"layer_1/a/{name}"]


def test_a_file_whose_own_address_says_another_checksum_is_noticed(hub, repo):
    """huggingface_hub fetches it again under that one, and looks at its size alone."""
    hub.etags["layer_1/a/cfg.json"], hub.corrupt["layer_1/a/cfg.json"] = "f" * 40, 1
    with pytest.raises(HubError, match="its copy in the cache is damaged"):
        fetch("hf://them/saes/layer_1/a", NAMES)


def test_what_was_left_behind_with_other_bytes_is_noticed_too(hub, repo):
    partial = begun(b"x" * 1000)
    with pytest.raises(HubError, match="came with checksum"):
        fetch("hf://them/saes/layer_1/a", NAMES)
    assert not partial.exists()
    assert (fetch("hf://them/saes/layer_1/a", NAMES) / "params.npz").read_bytes() == WEIGHTS


def test_a_byte_that_changed_in_the_cache_is_noticed(hub, repo):
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    blob = (folder / "params.npz").resolve()
    blob.write_bytes(b"x" + WEIGHTS[1:])
    with pytest.raises(HubError, match="its copy in the cache is damaged") as found:
        fetch("hf://them/saes/layer_1/a", NAMES)
    assert found.value.where == str(blob)
    subprocess.run(found.value.next.partition(";")[0], shell=True, check=True)
    assert (fetch("hf://them/saes/layer_1/a", NAMES) / "params.npz").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "path",
    [
        "../evil.json",
        "layer_1/a/../../../evil.json",
        "/evil.json",
        "layer_1/a//x.json",
        "layer_1\\a\\x.json",
        "C:/x.json",
        "layer_1/a/./x.json",
        "layer_2/x.json",
        "layer_1/a/x\x00.json",
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(hub, repo, path, tmp_path):
    hub.listed_besides = [{"type": "file", "oid": "0" * 40, "size": 1, "path": path}]
    with pytest.raises(HubError, match="which cannot be"):
        fetch("hf://them/saes/layer_1", ("**/*.json",))
    assert hub.sent == {}
    assert not list(tmp_path.rglob("evil.json"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"oid": "../../../x"}, "which cannot be"),
        ({"oid": "0" * 40, "lfs": {"oid": "../x", "size": 1, "pointerSize": 1}}, "which cannot be"),
        ({"oid": "0" * 40, "size": -1}, "which cannot be"),
    ],
)
def test_checksums_that_are_none_are_refused(hub, repo, entry, message):
    hub.listed_besides = [{"type": "file", "size": 1, "path": "layer_1/x.json", **entry}]
    with pytest.raises(HubError, match=message):
        fetch("hf://them/saes/layer_1", ("**/*.json",))
    assert hub.sent == {}


# --- without a network


def test_offline_what_was_fetched_before(hub, repo, offline):
    folder = fetch("hf://them/saes/layer_1/a", NAMES)
    offline()
    hub.close()
    assert fetch("hf://them/saes/layer_1/a", NAMES) == folder
    assert fetch(f"hf://them/saes@{repo.branches['main']}/layer_1/a", NAMES) == folder
    for address in ("hf://them/saes/layer_1/b", "hf://them/saes@v1/layer_1/a", "hf://them/other"):
        with pytest.raises(HubError, match="it was not fetched before, and HF_HUB_OFFLINE is set") as found:
            fetch(address, NAMES)
        assert found.value.where == address
        assert found.value.next == "unset HF_HUB_OFFLINE, and run the same command once"


def test_no_network(hub, repo):
    fetch("hf://them/saes/layer_1/a", NAMES)
    hub.close()
    with pytest.raises(HubError, match=f"the Hub at {hub.url} cannot be reached") as found:
        fetch("hf://them/saes/layer_1/a", NAMES)
    assert "HF_HUB_OFFLINE=1 uses what was fetched before" in found.value.next


# --- what the Hub has not, or does not give


def test_names_that_are_not_there(hub, repo):
    end = {"checkpoints/final/coder.json": b"{}"}
    repo.commit({f"{root}/{path}": data for root in ("x/y", "x/z") for path, data in end.items()})
    with pytest.raises(HubError, match=r"no such repository at http://127.0.0.1") as found:
        fetch("hf://them/nothing", NAMES)
    assert "hf auth login" in found.value.next
    with pytest.raises(HubError, match="has no such revision"):
        fetch("hf://them/saes@v7/layer_1/a", NAMES)
    with pytest.raises(HubError, match="has no such folder") as found:
        fetch("hf://them/saes/x/w", NAMES)
    assert found.value.allowed == "hf://them/saes/x/y, hf://them/saes/x/z"
    with pytest.raises(HubError, match="holds no file of a checkpoint"):
        fetch("hf://them/saes/layer_1", NAMES)
    other = hub.add("them/other", FILES)
    for wrong in ("layer_1/c/d", "layer_1"):
        with pytest.raises(HubError) as found:
            fetch(f"hf://them/other/{wrong}", NAMES)
        assert found.value.allowed == "hf://them/other/layer_1/a, hf://them/other/layer_1/b"
    other.commit(dict.fromkeys(FILES))
    with pytest.raises(HubError, match="has no such folder") as found:
        fetch("hf://them/other/layer_1", NAMES)
    assert found.value.allowed is None
    with pytest.raises(HubError, match="a revision stands behind the repository: them/saes@v1/"):
        fetch("hf://them/saes/x/y@v1", NAMES)


def test_a_private_repository(hub, monkeypatch):
    hub.add("them/secret", FILES, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="or it is private and you may not see it"):
        fetch("hf://them/secret/layer_1/a", NAMES)
    monkeypatch.setenv("HF_TOKEN", READER)
    assert (fetch("hf://them/secret/layer_1/a", NAMES) / "cfg.json").read_bytes() == SETTINGS
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(HubError, match="your token is not accepted"):
        fetch("hf://them/secret/layer_1/a", NAMES)


def test_a_gated_repository(hub, monkeypatch):
    hub.add("google/gemma", FILES, gated=True)
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(HubError, match="is gated") as found:
        fetch("hf://google/gemma/layer_1/a", NAMES)
    assert f"ask for access at {hub.url}/google/gemma, then hf auth login" in found.value.next


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "your token may not do this"), (500, "the Hub is out of order"), (418, "the Hub refuses")],
)
def test_other_answers(hub, repo, status, message):
    hub.refuse["/api/models"] = (status, {})
    with pytest.raises(HubError, match=message):
        fetch("hf://them/saes/layer_1/a", NAMES)


# --- a disk that is full


def test_a_disk_without_room_is_found_before_anything_is_fetched(hub, repo, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 1000})())
    with pytest.raises(UnwritableError, match="300,012 bytes are to be fetched, and 1,000 are free"):
        fetch("hf://them/saes/layer_1/a", NAMES)
    assert hub.sent == {}


def test_a_disk_that_fills_up_keeps_what_there_is(hub, repo, monkeypatch):
    def full(url, out, **options):
        out.write(WEIGHTS[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        with pytest.raises(UnwritableError, match="the disk is full") as found:
            fetch("hf://them/saes/layer_1/a", ("*.npz",))
    assert "set HF_HOME to a folder elsewhere" in found.value.next
    fetch("hf://them/saes/layer_1/a", ("*.npz",))
    assert hub.sent["layer_1/a/params.npz"] == len(WEIGHTS) - 1000
