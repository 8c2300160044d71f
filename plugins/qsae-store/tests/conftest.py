"""Small stores of the built-in language model."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from qsae_store.beginning import begin, manifest_of
from qsae_store.folder import open_folder
from qsae_store.harvest import Harvest

from qsae_core.runs import load_plugins, open_data, read_block

SIZES = {"seed": 0, "storage": "fp32", "shard_positions": 512, "tokens": None, "held_out_tokens": 600}


class Harvester:
    """Harvests a text with the built-in model; every call is as a run of ``qsae cache``."""

    def __init__(self, text: pathlib.Path) -> None:
        self.text = text
        self.registry = load_plugins().registry

    def block(self, **options: Any) -> Any:
        tree = {"use": "lm", "text": str(self.text), "context": 32, "held_out_share": 0.2, "dtype": "fp32"}
        return read_block("data", {**tree, **options}, self.registry, "a test")

    def open(self, seed: int = 0, **options: Any) -> Any:
        return open_data(self.block(**options), self.registry, seed=seed)

    def __call__(
        self, place: pathlib.Path | str, *, rank: int = 0, world: int = 1, watch: Any = None, **choices: Any
    ) -> bool:
        sizes = {name: choices.pop(name, value) for name, value in SIZES.items()}
        options = {"sites": "0.mlp_in,1.resid_post", **choices}
        source = self.open(sizes["seed"], **options)
        folder = open_folder(str(place))
        manifest = begin(folder, manifest_of(source, self.block(**options).to_dict(), **sizes))
        more = {} if watch is None else {"watch": watch}
        return (
            manifest.shards is not None
            or Harvest(folder, manifest, source, rank=rank, world=world, **more).run()
        )

    def store(self, place: pathlib.Path | str, seed: int = 0, **options: Any) -> Any:
        tree = {"use": "store", "path": str(place), **options}
        return open_data(read_block("data", tree, self.registry, "a test"), self.registry, seed=seed)


@pytest.fixture(scope="session")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> Harvester:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    lines = (f"Line {n}: {n} + {n} = {2 * n}, {n} * {n} = {n * n}.\n\n" for n in range(400))
    text.write_text("".join(lines))
    return Harvester(text)


@pytest.fixture(scope="session")
def whole(harvest: Harvester, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A store that nothing disturbed, in float32; not to be changed."""
    place = tmp_path_factory.mktemp("whole") / "store"
    assert harvest(place)
    return place


def files(place: pathlib.Path) -> dict[str, bytes]:
    """Name -> bytes of every file, hidden ones too."""
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.fixture
def same_files() -> Callable[[pathlib.Path, pathlib.Path], None]:
    def check(one: pathlib.Path, other: pathlib.Path) -> None:
        found, expected = files(one), files(other)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []

    return check


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
