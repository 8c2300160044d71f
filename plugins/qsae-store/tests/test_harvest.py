"""What a harvest writes: compared with the language model's own vectors, and with itself after every
disturbance.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from qsae_store import harvest as harvest_module
from qsae_store.folder import LocalFolder, open_folder
from qsae_store.manifest import read_manifest, written_shards
from qsae_store.shards import ShardFile

from qsae_core.contracts import Site
from qsae_core.errors import DataError, QsaeError

PLACES = {"0.mlp_in": Site(0, "mlp_in"), "1.resid_post": Site(1, "resid_post")}


def shard_files(place, side):
    folder = open_folder(str(place))
    records = written_shards(folder, read_manifest(folder))[side]
    return [ShardFile(folder.local(f"{record.name}.safetensors", record.sha256)) for record in records]


@pytest.mark.parametrize("side", ["training", "held-out"])
def test_vectors_are_the_models_at_every_counted_position_of_the_text(harvest, whole, side):
    source = harvest.open(sites="0.mlp_in,1.resid_post")
    model, context = source.language_model(), 0
    expected = {}
    for tokens, _ in source.contexts(16, held_out=side == "held-out"):
        found = model.read(tokens, list(PLACES.values()))
        for c, t in tokens.counted.nonzero().tolist():
            key = (context + c, t)
            row = [int(tokens.ids[c, t]), int(tokens.documents[c, t]), *key]
            expected[key] = row, {name: found[site][c, t] for name, site in PLACES.items()}
        context += len(tokens.ids)
    seen = 0
    for file in shard_files(place=whole, side=side):
        for n, row in enumerate(file.rows("tokens").tolist()):
            assert row == expected[(row[2], row[3])][0]
            for name in PLACES:
                assert torch.equal(file.rows(name, n, n + 1)[0], expected[(row[2], row[3])][1][name])
            seen += 1
    if side == "training":
        assert seen == len(expected)
    else:
        assert 600 <= seen < 632  # the fewest contexts with 600 vectors


def test_a_block_of_a_training_shard_is_a_sample_of_its_contexts(whole):
    (file, *_) = shard_files(whole, "training")
    contexts = file.rows("tokens")[:64, 2].tolist()
    assert len(set(contexts)) > 12  # of 16, and neighbours in the text would be of two or three


def test_statistics_are_those_of_the_vectors(whole):
    manifest = read_manifest(open_folder(str(whole)))
    for name in PLACES:
        x = torch.cat([file.rows(name) for file in shard_files(whole, "training")]).double()
        found, norms = manifest.statistics[name], x.norm(dim=1)
        assert found["mean"] == pytest.approx(x.mean(0).tolist(), rel=1e-6, abs=1e-7)
        assert found["rms"] == pytest.approx(float((x - x.mean(0)).square().mean().sqrt()), rel=1e-6)
        assert found["mean_norm"] == pytest.approx(float(norms.mean()), rel=1e-6)
        assert found["least_norm"] == pytest.approx(float(norms.min()), rel=1e-6)
        assert found["largest_norm"] == pytest.approx(float(norms.max()), rel=1e-6)


def test_a_harvest_that_ended_anywhere_goes_on_to_the_same_store(
    harvest, whole, tmp_path, same_files, monkeypatch
):
    """Killed before, in, and behind every writing of a file."""

    class Killed(BaseException):
        pass

    place, calls = tmp_path / "store", 0
    write = harvest_module.write_record

    def dying(*args):
        nonlocal calls
        calls += 1
        if calls % 3 == 1:
            raise Killed  # the shard is there and its record is not
        write(*args)
        if calls % 3 == 2:
            raise Killed

    monkeypatch.setattr(harvest_module, "write_record", dying)
    for _ in range(100):
        try:
            if harvest(place):
                break
        except Killed:
            continue
    assert calls > 10
    same_files(place, whole)


KILLER = """
import os, pathlib, random, sys, time
sys.path.insert(0, sys.argv[1])
import transformers  # imported once: every child is a fork of this process, which has computed nothing
from conftest import Harvester
harvest, place, moments = Harvester(pathlib.Path(sys.argv[2])), pathlib.Path(sys.argv[3]), random.Random(0)
written = lambda: len(list(place.glob("*.json")))
for kill in range(11):
    child, before = os.fork(), written()
    if not child:
        harvest(place)
        os._exit(0)
    if kill < 10:
        while written() == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.08))
        os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    print(written())
sys.exit(status)
"""


@pytest.mark.slow
def test_sigkill_at_ten_random_moments(harvest, whole, tmp_path, same_files):
    place = tmp_path / "store"
    arguments = [str(pathlib.Path(__file__).parent), str(harvest.text), str(place)]
    command = [sys.executable, "-c", KILLER, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    files = [int(line) for line in done.stdout.split()]
    assert files == sorted(files)
    assert files[9] < files[10]  # the last kill, too, was in the midst of it
    same_files(place, whole)


def test_processes_share_the_shards(harvest, whole, tmp_path, same_files):
    place = tmp_path / "store"
    seen = {0: [], 1: [], 2: []}
    for rank in (2, 0, 1):
        complete = harvest(place, rank=rank, world=3, watch=lambda p, rank=rank: seen[rank].append(p.shard))
        assert complete == (rank == 1)
    numbers = {rank: {int(name[-5:]) % 3 for name in names} for rank, names in seen.items()}
    assert numbers == {0: {0}, 1: {1}, 2: {2}}
    same_files(place, whole)


def test_more_tokens_go_on_with_a_store(harvest, tmp_path, same_files):
    written = []
    assert harvest(tmp_path / "grown", tokens=700)
    assert harvest(tmp_path / "grown", tokens=2000, watch=lambda p: written.append(p.shard))
    assert written[0] == "training-00001"  # the first shard is full, the second had fewer contexts
    assert harvest(tmp_path / "once", tokens=2000)
    same_files(tmp_path / "grown", tmp_path / "once")
    manifest = read_manifest(open_folder(str(tmp_path / "once")))
    vectors = sum(record.vectors for record in manifest.shards["training"])
    assert 2000 <= vectors < 2032


def test_a_store_that_ended_in_the_last_shard_of_the_text_can_grow(harvest, tmp_path, same_files):
    """Its last shard holds some of the text's last contexts, so there is text behind it."""
    sizes = {"shard_positions": 320}
    assert harvest(tmp_path / "once", **sizes)
    records = read_manifest(open_folder(str(tmp_path / "once"))).shards["training"]
    assert records[-1].ends
    assert records[-1].contexts > 1
    tokens = sum(record.vectors for record in records[:-1]) + 1
    assert harvest(tmp_path / "grown", tokens=tokens, **sizes)
    shorter = read_manifest(open_folder(str(tmp_path / "grown"))).shards["training"]
    assert len(shorter) == len(records)
    assert shorter[-1].contexts == 1
    assert harvest(tmp_path / "grown", **sizes)
    same_files(tmp_path / "grown", tmp_path / "once")


def test_what_is_complete_is_not_read_again(harvest, whole):
    written = []
    assert harvest(whole, watch=written.append)
    assert written == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"storage": "bf16"}, "storage was 'fp32' and is 'bf16'"),
        ({"sites": "0.mlp_in"}, "places"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"held_out_tokens": 100}, "held_out_tokens was 600 and is 100"),
        ({"tokens": 50}, "tokens was None and is 50"),
        ({"context": 16}, "source.context was 32 and is 16"),
    ],
)
def test_another_harvest_into_the_same_folder_is_refused(harvest, whole, changed, named):
    with pytest.raises(DataError, match="the store there is of another kind") as caught:
        harvest(whole, **changed)
    assert named in caught.value.what


def test_another_text_is_refused(harvest, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(harvest.text.read_text())
    place = tmp_path / "store"
    assert harvest(place, text=str(text), tokens=300)
    text.write_text(text.read_text() + "One more line.\n\n")
    with pytest.raises(DataError, match=r"record\.fingerprints\.text was"):
        harvest(place, text=str(text), tokens=300)


def test_a_folder_of_other_files_is_refused(harvest, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear all")
    with pytest.raises(DataError, match="holds 1 files and no store"):
        harvest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_full_disk_leaves_what_was_written(harvest, whole, tmp_path, same_files, monkeypatch):
    place, write, left = tmp_path / "store", harvest_module.write_shard, 4

    def filling(path, tensors):
        nonlocal left
        left -= 1
        write(path, tensors)
        if left < 0:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(harvest_module, "write_shard", filling)
    with pytest.raises(QsaeError, match="the harvest stops at training-00002: the disk is full") as caught:
        harvest(place)
    assert "may be trained on" in caught.value.allowed
    assert caught.value.next.startswith("free some space, and run the same command again")
    assert not [path for path in place.iterdir() if path.name.startswith(".")]
    store = harvest.store(place, layer=1)  # what was written is a store
    assert len(store.next_batch(400)) == 400
    assert store.describe()["complete"] is False
    monkeypatch.undo()
    assert harvest(place)
    same_files(place, whole)


def test_a_source_without_text_is_refused(harvest, tmp_path):
    from qsae_store.beginning import manifest_of

    from qsae_core.runs import open_data, read_block

    block = read_block("data", {"use": "synthetic"}, harvest.registry, "a test")
    with pytest.raises(DataError, match="'synthetic' has no language model to harvest from"):
        manifest_of(open_data(block, harvest.registry), block.to_dict(), shard_positions=512)


def test_a_manifest_names_all_that_it_should(whole):
    tree = json.loads((whole / "manifest.json").read_text())
    assert tree["plan"]["places"] == [[0, "mlp_in", 256], [1, "resid_post", 256]]
    assert tree["model"]["name"] == "builtin"
    assert tree["record"]["fingerprints"]["model"] == tree["model"]["fingerprint"]
    assert len(tree["shards"]["training"][0]["sha256"]) == 64


def test_a_limit_of_norms_is_for_training(harvest, tmp_path):
    with pytest.raises(DataError, match="all vectors are stored") as caught:
        harvest(tmp_path / "store", max_norm_multiple=7.5)
    assert caught.value.where == "--max-norm-multiple"
    assert "qsae train --store DIR --max-norm-multiple 7.5" in caught.value.next
    assert not (tmp_path / "store").exists()


def test_of_processes_that_end_at_the_same_time_one_completes_the_store(harvest, whole, tmp_path, same_files):
    """Each has seen all records, and none the other's manifest, before one of them writes it."""
    place, meet = tmp_path / "store", threading.Barrier(2, timeout=60)
    assert not harvest(place, rank=0, world=2)
    assert harvest(place, rank=1, world=2)
    manifest = dataclasses.replace(read_manifest(open_folder(str(place))), shards=None, statistics=None)

    class Meeting(LocalFolder):
        def one_by_one(self, name):
            meet.wait()
            return super().one_by_one(name)

    source = harvest.open(sites="0.mlp_in,1.resid_post")
    harvests = [harvest_module.Harvest(Meeting(place), manifest, source, rank=r, world=2) for r in (0, 1)]
    (place / "manifest.json").write_text(manifest.to_json())
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda one: one.run(), harvests))
    assert sorted(outcomes) == [False, True]
    same_files(place, whole)
