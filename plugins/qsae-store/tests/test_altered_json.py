"""Manifests and records with other entries than a harvest writes."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.errors import QsaeError

OTHERS: tuple[Any, ...] = ("x", -1, 2.5, None, True, [], {}, [1, "x"], {"x": 1}, 10**30)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every entry, at any depth; of lists the first two."""
    if path:
        yield path
    listed = enumerate(tree[:2]) if isinstance(tree, list) else ()
    entries = tree.items() if isinstance(tree, dict) else listed
    for key, value in entries:
        yield from places(value, (*path, key))


def with_other(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value there; without the entry where that is ``...``."""
    changed = copy.deepcopy(tree)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def use(harvest: Any, place: Any) -> None:
    """All that reads the manifest or a record."""
    store = harvest.store(place, layer=1)
    store.describe()
    store.next_batch(16)
    next(iter(store.held_out(16, 16)))
    store.language_model()
    store.close()


@pytest.mark.parametrize("name", ["manifest.json", "training-00001.json"])
def test_other_entries_are_refused_or_do_not_matter(harvest, whole, tmp_path, name):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    if name != "manifest.json":  # records count while a harvest is not complete
        manifest = json.loads((place / "manifest.json").read_text())
        (place / "manifest.json").write_text(json.dumps(manifest | {"shards": None, "statistics": None}))
    tree = json.loads((place / name).read_text())
    use(harvest, place)
    refused = 0
    for number, path in enumerate(places(tree)):
        for value in (..., OTHERS[number % len(OTHERS)], OTHERS[(3 * number + 1) % len(OTHERS)]):
            (place / name).write_text(json.dumps(with_other(tree, path, value)))
            try:
                use(harvest, place)
            except QsaeError:
                refused += 1
    assert refused > 20


def test_a_record_names_no_other_file(harvest, whole, tmp_path):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes(b"precious")
    tree = json.loads((place / "manifest.json").read_text())
    for name in ("../victim", str(tmp_path / "victim")):
        changed = with_other(tree, ("shards", "training", 0, "name"), name)
        (place / "manifest.json").write_text(json.dumps(changed))
        done = CliRunner().invoke(cli, ["cache", "verify", str(place), "--drop"], prog_name="qsae")
        assert done.exit_code != 0
        assert "shards.training.0.name" in done.output
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("command", ["info", "verify"])
def test_statistics_of_another_kind(whole, tmp_path, command):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    tree = json.loads((place / "manifest.json").read_text())
    for value in ("x", [], {"x": 1}, {"x": {"mean": "x"}}):
        (place / "manifest.json").write_text(json.dumps(tree | {"statistics": value}))
        done = CliRunner().invoke(cli, ["cache", command, str(place)], prog_name="qsae")
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)


def test_a_record_knows_what_it_held(whole, tmp_path):
    """Down to a number of a norm or a sum, which no type tells."""
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    tree = json.loads((place / "training-00000.json").read_text())
    stored = next(iter(tree["norms"]))
    for path in (("norms", stored, "squares"), ("sums", stored, 0)):
        (place / "training-00000.json").write_text(json.dumps(with_other(tree, path, 1.5)))
        done = CliRunner().invoke(cli, ["cache", "verify", str(place)], prog_name="qsae")
        assert done.exit_code != 0
        assert "has been altered" in done.output


def test_places_and_statistics_fit_one_another(harvest, whole, tmp_path):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    tree = json.loads((place / "manifest.json").read_text())
    stored = next(iter(tree["statistics"]))
    for path, value in (
        (("plan", "places"), []),
        (("plan", "sources"), []),
        (("plan", "sources"), ["9.foo"]),
        (("statistics", stored, "rms"), [1.0]),
    ):
        (place / "manifest.json").write_text(json.dumps(with_other(tree, path, value)))
        done = CliRunner().invoke(cli, ["cache", "info", str(place)], prog_name="qsae")
        assert done.exit_code == 2
        assert "manifest.json: cannot be read" in done.output
