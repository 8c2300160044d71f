"""A path that is given for a coder: what is none, a folder of one coder, of several, and of links."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil

import pytest

import qsae_core
from qsae_core.artifact.imported import import_checkpoint, read_checkpoint
from qsae_core.coders.coder_set import CoderSet
from qsae_core.errors import ArtifactError, ConfigError, PluginError
from qsae_core.plugins.records import load_plugins

PLUGINS = pathlib.Path(__file__).parents[1] / "plugins"
READERS = [qsae_core.load, qsae_core.load_set, read_checkpoint]


def golden(fmt: str, name: str) -> pathlib.Path:
    return PLUGINS / f"qsae-format-{fmt}" / "tests" / "golden" / name / "checkpoint"


def imported(path: pathlib.Path, out: pathlib.Path) -> object:
    return import_checkpoint(path, out, load_plugins().registry, message=lambda text: None)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("path", [None, 3, b"x", [], {"a": 1}, object(), "", "a\0b"])
def test_what_is_no_path(read, path):
    with pytest.raises(ConfigError, match="a path is asked for, and this is none") as caught:
        read(path)
    assert caught.value.allowed is not None
    assert caught.value.next is not None


@pytest.mark.parametrize("name", [None, 3])
def test_what_is_no_name(name):
    with pytest.raises(PluginError, match=f"unknown kernel {name!r}"):
        load_plugins().registry.get("kernel", name)
    with pytest.raises(PluginError, match="unknown format 3"):
        read_checkpoint("x", format=3)


@pytest.mark.parametrize(
    ("fmt", "name", "said", "first"),
    [
        ("sparsify", "layers", "2, 10", "layers.2"),
        ("saelens", "several", "sae_9, sae_10", "sae_9"),
        ("dictionary-learning", "layers", "3, 11", "resid_post_layer_3/trainer_0"),
        ("circuit-tracer", "relu-set", "0, 1", "layer_0.safetensors"),
    ],
)
def test_a_folder_of_several_where_one_is_asked_for(fmt, name, said, first):
    path = golden(fmt, name)
    with pytest.raises(ArtifactError) as caught:
        read_checkpoint(path)
    error = caught.value
    assert error.what == f"holds several coders, and one is asked for here: {said}"
    assert error.allowed.split(", ")[0] == str(path / first)
    assert error.next == f"give one of these; or qsae import {path} --out DIR, and qsae_core.load_set(DIR)"
    assert read_checkpoint(path / first).n_latents > 0


@pytest.mark.parametrize(
    ("fmt", "name", "below"),
    [
        ("dictionary-learning", "transcoder", "resid_post_layer_3/trainer_0"),
        ("dictionary-learning", "topk", "trainer_0"),
        ("sparsify", "transcoder", "layers.3.mlp"),
        ("saelens", "jumprelu", "sae"),
    ],
)
def test_a_folder_with_one_coder_below_it_means_that_coder(fmt, name, below, tmp_path):
    shutil.copytree(golden(fmt, name), tmp_path / "run" / below)
    coder = imported(tmp_path / "run", tmp_path / "out")
    assert not isinstance(coder, CoderSet)
    record = json.loads((tmp_path / "out" / "coder.json").read_text())["source"]["imported_from"]
    assert record["path"] == str(tmp_path / "run" / below)
    assert read_checkpoint(tmp_path / "run").shape == coder.shape


def test_a_set_of_one_that_says_so_stays_one(tmp_path):
    shutil.copytree(golden("circuit-tracer", "relu-set"), tmp_path / "set")
    (tmp_path / "set" / "layer_1.safetensors").unlink()
    coders = imported(tmp_path / "set", tmp_path / "out")
    assert isinstance(coders, CoderSet)
    assert coders.names == ("0",)
    (tmp_path / "set" / "config.yaml").unlink()
    assert not isinstance(imported(tmp_path / "set", tmp_path / "alone"), CoderSet)


def test_links_out_of_a_folder_are_named(tmp_path):
    (tmp_path / "links").mkdir()
    for file in golden("saelens", "jumprelu").iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    with pytest.raises(ArtifactError, match=re.escape("cfg.json is a link out of it")):
        read_checkpoint(tmp_path / "links")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sae").symlink_to(golden("saelens", "jumprelu"))
    with pytest.raises(ArtifactError, match="folder/sae is a link out of it"):
        read_checkpoint(tmp_path / "folder")


def test_links_in_a_circle(tmp_path):
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "cfg.json").symlink_to("cfg.json")
    os.symlink(".", tmp_path / "circle" / "self")
    with pytest.raises(ArtifactError) as caught:
        read_checkpoint(tmp_path / "circle")
    assert caught.value.what == "is of none of the installed formats"


def test_of_two_imports_to_one_folder_the_first_wins(tmp_path):
    """The second begins, and the first ends, while the second reads."""
    path, out = golden("saelens", "jumprelu"), tmp_path / "out"

    def meanwhile(text: str) -> None:
        if not out.exists():
            imported(golden("saelens", "standard"), out)

    with pytest.raises(ConfigError, match="written by another process in the meantime, and stays as it is"):
        import_checkpoint(path, out, load_plugins().registry, message=meanwhile)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    record = json.loads((out / "coder.json").read_text())["source"]["imported_from"]
    assert record["path"] == str(golden("saelens", "standard"))
    qsae_core.load(out)
