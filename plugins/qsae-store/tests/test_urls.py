"""Stores behind URLs: a real S3 server on this machine, and file://."""

from __future__ import annotations

import pytest
import torch
from qsae_store.folder import open_folder
from qsae_store.verify import drop_damaged, find_damage

from qsae_core.errors import DataError


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Gives an S3 client; what is asked of s3:// goes to the server while the module's tests run."""
    import os

    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    ours = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    client = boto3.client("s3")
    client.create_bucket(Bucket="vectors")
    yield client
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def url(s3, harvest):
    place = "s3://vectors/run/store"
    assert harvest(place)
    return place


def objects(s3):
    found = s3.list_objects_v2(Bucket="vectors", Prefix="run/store/")["Contents"]
    return {entry["Key"].rsplit("/", 1)[-1]: entry["Size"] for entry in found}


def test_a_harvest_to_s3_is_the_one_on_disk(s3, url, whole):
    assert objects(s3) == {path.name: path.stat().st_size for path in whole.iterdir()}
    for path in whole.iterdir():
        body = s3.get_object(Bucket="vectors", Key=f"run/store/{path.name}")["Body"].read()
        assert body == path.read_bytes()


def test_training_from_s3_reads_each_shard_once(harvest, s3, url, whole, tmp_path):
    options = {"layer": 1, "cache_dir": str(tmp_path / "copies")}
    store, here = harvest.store(url, **options), harvest.store(whole, layer=1)
    for _ in range(3):
        assert torch.equal(store.next_batch(3000).x, here.next_batch(3000).x)
    (copies,) = (tmp_path / "copies").iterdir()
    times = {path.name: path.stat().st_mtime_ns for path in copies.iterdir()}
    assert len(times) > 10
    assert {name.split("-", 1)[1] for name in times} <= set(objects(s3))
    assert torch.equal(
        harvest.store(url, **options).next_batch(500).x, harvest.store(whole, layer=1).next_batch(500).x
    )
    assert times == {path.name: path.stat().st_mtime_ns for path in copies.iterdir()}


def test_a_harvest_to_s3_goes_on(harvest, s3, whole, tmp_path):
    place = "s3://vectors/run/broken"

    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.shard.endswith("00003"):
            raise Killed

    with pytest.raises(Killed):
        harvest(place, watch=kill)
    folder, written = open_folder(place), []
    assert "training-00003.json" in folder.sizes()
    assert "training-00004.json" not in folder.sizes()
    assert harvest(place, watch=lambda progress: written.append(progress.shard))
    assert written[0] == "training-00004"
    assert find_damage(place) == []
    assert folder.read("manifest.json") == (whole / "manifest.json").read_bytes()


def test_what_was_altered_behind_a_url_is_found_and_written_again(harvest, s3, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = "s3://vectors/run/altered"
    assert harvest(place)
    data = bytearray((whole / "training-00002.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    s3.put_object(Bucket="vectors", Key="run/altered/training-00002.safetensors", Body=bytes(data))
    with pytest.raises(DataError, match="has been altered since it was written"):
        harvest.store(place, layer=1, cache_dir=str(tmp_path / "copies")).next_batch(8000)
    (damage,) = find_damage(place)
    assert damage.shard == "training-00002"
    drop_damaged(place, [damage])
    assert harvest(place)
    assert find_damage(place) == []


def test_file_urls_are_paths(harvest, whole):
    found = harvest.store(f"file://{whole}", layer=1).next_batch(50).x
    assert torch.equal(found, harvest.store(whole, layer=1).next_batch(50).x)


@pytest.mark.parametrize(
    ("place", "words"),
    [("s3://nowhere/store", "nowhere"), ("nosuch://x/y", "nosuch://"), ("memory://nothing", "no manifest")],
)
def test_urls_that_cannot_be_read(harvest, s3, place, words):
    with pytest.raises(DataError, match=words):
        harvest.store(place)
