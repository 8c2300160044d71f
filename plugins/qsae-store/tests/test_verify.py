"""What verify finds in the records of shards, and how the harvest mends it."""

from __future__ import annotations

import json
import shutil

import pytest
from qsae_store.folder import open_folder
from qsae_store.json_files import MANIFEST, write_text
from qsae_store.manifest import read_manifest
from qsae_store.verify import drop_damaged, find_damage

from qsae_core.errors import DataError


def changed(text, **values):
    return json.dumps({**json.loads(text), **values})


DAMAGES = {
    "empty": (lambda text: "", "cannot be read"),
    "cut": (lambda text: text[:100], "cannot be read"),
    "without sums": (lambda text: json.dumps({**json.loads(text), "sums": None}), "cannot be read"),
    "another place in the text": (lambda text: changed(text, behind={}), "has been altered"),
    "another number of vectors": (lambda text: changed(text, vectors=7), "has been altered"),
    "missing": (None, "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_found_and_mended(harvest, whole, tmp_path, same_files, damage):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    path, (change, what) = place / "training-00001.json", DAMAGES[damage]
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    (found,) = find_damage(str(place))
    assert (found.shard, found.file) == ("training-00001", "training-00001.json")
    assert what in found.what
    drop_damaged(str(place), [found])
    assert harvest(place)
    same_files(place, whole)


def test_records_of_a_store_that_is_not_complete(whole, tmp_path):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    folder = open_folder(str(place))
    tree = json.loads(read_manifest(folder).to_json()) | {"shards": None, "statistics": None}
    write_text(folder, MANIFEST, json.dumps(tree))
    assert find_damage(str(place)) == []
    path = place / "training-00001.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sums"}))
    (place / "training-00002.json").write_text("{")
    found = find_damage(str(place))
    assert [one.file for one in found] == ["training-00001.json", "training-00002.json"]


def test_a_harvest_that_meets_a_damaged_record_says_what_mends_it(harvest, tmp_path):
    place = tmp_path / "store"
    assert harvest(place, tokens=700)
    (place / "training-00000.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read") as caught:
        harvest(place, tokens=900)
    assert f"qsae cache verify {place} --drop" in caught.value.next
    drop_damaged(str(place), find_damage(str(place)))
    assert harvest(place, tokens=900)
