"""Addresses in place of paths: plugins make local folders of them, for ``load`` and all that reads coders."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys

import pytest
import torch

import qsae_core
from qsae_cli.new_plugin import write_plugin
from qsae_core.errors import ArtifactError, PluginError, QsaeError
from qsae_core.plugins.addresses import is_address, local_path
from qsae_core.plugins.records import load_plugins

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from test_new_plugin import install

TRAIN = (
    "train --sae topk --k 4 --n-latents 32 --data synthetic --preset tiny --steps 4 --batch-size 64 "
    "--threads 1 --eval-tokens 64 --eval-every 0 --statistics-tokens 64 --eval reconstruction "
    "--no-compare-float"
)
TOP = """
    from qsae_core import hookimpl

    @hookimpl
    def qsae_register_addresses():
        return {"shelf": "acme.reading:fetch"}
"""
READING = """
    import json, os, pathlib
    from qsae_core.errors import DataError

    def fetch(address, names):
        with open(os.environ["ASKED"], "a") as file:
            file.write(json.dumps([address, list(names)]) + "\\n")
        place = pathlib.Path(os.environ["SHELF"], address.removeprefix("shelf://"))
        if not place.is_dir():
            raise DataError("is not on the shelf", where=address)
        return place
"""


@pytest.fixture
def shelf(tmp_path, plugin_site, monkeypatch):
    """Installed plugins and one that knows ``shelf://``; what it was asked is in ``asked``."""
    plugin_site.add("acme", TOP, files={"reading.py": READING})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    load_plugins.cache_clear()
    yield plugin_site
    load_plugins.cache_clear()


def asked():
    return [json.loads(line) for line in pathlib.Path("asked").read_text().splitlines()]


def qsae(site, line):
    done = site.qsae(*shlex.split(line))
    assert done.returncode == 0, done.stderr
    return done


def test_what_an_address_is():
    assert is_address("hf://user/repo")
    assert is_address("s3+x://a")
    for text in (
        "results/a",
        "/a",
        "C:\\a",
        "C:/a",
        "a:b",
        "://a",
        "HF://a",
        "1a://b",
        pathlib.Path("hf://a/b"),
    ):
        assert not is_address(text)
    assert local_path("results/a", ()) == pathlib.Path("results/a")


def test_a_coder_is_loaded_from_an_address(shelf):
    qsae(shelf, f"{TRAIN} --name one --out shelf")
    coder = qsae_core.load("shelf://one/synthetic/4")
    x = torch.randn(8, coder.shape.d_in, generator=torch.Generator().manual_seed(0))
    assert torch.equal(coder(x), qsae_core.load("shelf/one/synthetic/4")(x))
    ((address, names),) = asked()
    assert address == "shelf://one/synthetic/4"
    files = ["coder.json", "coder.safetensors", "coders.json"]
    assert sorted(names) == sorted(f"{f}{n}" for f in ("", "final/", "checkpoints/final/") for n in files)
    qsae_core.load("shelf://one/synthetic/4/checkpoints/final/coder.json")  # a file's is that of its folder
    assert asked()[1][0] == "shelf://one/synthetic/4/checkpoints/final"
    assert {"coder.json", "coder.safetensors"} <= set(asked()[1][1])


def test_what_the_plugin_says_is_shown_as_it_is(shelf):
    with pytest.raises(QsaeError, match=r"^shelf://two: is not on the shelf$"):
        qsae_core.load("shelf://two")
    pathlib.Path("shelf/empty").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"shelf.empty: holds no trained coder"):
        qsae_core.load("shelf://empty")


def test_several_coders_are_loaded_from_an_address(shelf):
    qsae(shelf, f"{TRAIN} --set data.layers=2 --per-layer --name two --out shelf")
    (run,) = pathlib.Path("shelf/two").glob("*/*")
    coders = qsae_core.load_set(f"shelf://{run.relative_to('shelf').as_posix()}")
    assert len(coders) == 2
    (_, names) = asked()[-1]
    assert {"checkpoints/final/coders.json", "checkpoints/final/*/coder.safetensors"} <= set(names)
    with pytest.raises(ArtifactError, match="holds several coders, one for each layer"):
        qsae_core.load(f"shelf://{run.relative_to('shelf').as_posix()}")


@pytest.fixture
def theirs(shelf, tmp_path, monkeypatch):
    """The same with a format, and a checkpoint on the shelf."""
    write_plugin("format", "theirs", tmp_path / "qsae-format-theirs")
    install(tmp_path / "qsae-format-theirs", shelf.path, monkeypatch)  # from the plugin's folder
    monkeypatch.chdir(tmp_path)
    load_plugins.cache_clear()
    qsae(shelf, f"{TRAIN} --name one --out runs")
    qsae(shelf, "export runs/one/synthetic/4 --format theirs --out shelf/lib/layer_3")
    load_plugins.cache_clear()
    return shelf


def test_a_checkpoint_of_another_library_is_read_and_imported_from_an_address(theirs):
    coder = qsae_core.read_checkpoint("shelf://lib/layer_3")
    qsae(theirs, "import shelf://lib/layer_3 --out ours --data synthetic")
    load_plugins.cache_clear()
    x = torch.randn(8, coder.shape.d_in, generator=torch.Generator().manual_seed(0))
    assert torch.equal(qsae_core.load("ours")(x), coder(x))
    (address, names), again = asked()
    assert address == again[0] == "shelf://lib/layer_3"
    assert "**/*.safetensors" in names
    assert "**/*.json" in names
    assert not [name for name in names if name.endswith((".py", "*"))]
    imported = json.loads(pathlib.Path("ours/coder.json").read_text())["source"]["imported_from"]
    assert imported["path"] == "shelf://lib/layer_3"
    assert set(imported["files"]) == {"cfg.json", "sae_weights.safetensors"}


def test_of_a_file_that_and_the_settings_beside_it_are_fetched(theirs):
    assert local_path(
        "shelf://lib/layer_3/a.safetensors", ("**/*.safetensors",), beside=("*.json",)
    ).name == ("a.safetensors")
    assert asked()[-1] == ["shelf://lib/layer_3", ["a.safetensors", "*.json"]]


# --- what cannot be had


def test_where_no_plugin_knows_the_scheme_the_usual_one_is_named(shelf):
    with pytest.raises(
        PluginError, match="no installed plugin knows addresses that begin with gopher://"
    ) as found:
        qsae_core.load("gopher://a/b")
    assert found.value.next == "qsae list-plugins"
    done = shelf.qsae("import", "hf://google/gemma/layer_1", "--out", "x", QSAE_DISABLE_PLUGINS="qsae-hub")
    assert done.returncode == 2
    assert (
        "hf://google/gemma/layer_1: no installed plugin knows addresses that begin with hf://" in done.stderr
    )
    assert "next:    pip install qsae-hub" in done.stderr


def test_a_scheme_of_two_plugins_is_refused(shelf):
    shelf.add("acme-b", TOP)
    load_plugins.cache_clear()
    with pytest.raises(PluginError, match="shelf:// are claimed by acme and acme-b") as found:
        qsae_core.load("shelf://a")
    assert found.value.next == "QSAE_DISABLE_PLUGINS=acme leaves the others"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return ['shelf']", "it must return a dict of scheme -> target"),
        ("return {'shelf': 3}", 'shelf has 3; it must read "package.module:function"'),
        ("return {'Shelf://': 'acme_c:fetch'}", "'Shelf://' is no scheme; one has lower-case letters"),
        ("return {'rack': 'acme_c.missing:fetch'}", "is in a module that does not exist: acme_c.missing"),
        ("raise ValueError('x')", "ValueError: x"),
    ],
)
def test_a_plugin_that_is_wrong_about_its_addresses_is_broken(plugin_site, body, message):
    top = f"from qsae_core import hookimpl\n@hookimpl\ndef qsae_register_addresses():\n    {body}\n"
    plugin_site.add("acme-c", top)
    plugins = plugin_site.load()
    (record,) = plugins.records
    assert (record.status, plugins.addresses) == ("broken", {})
    assert message in record.error


def test_a_function_that_is_not_there_is_found_where_it_is_asked_for_and_by_strict_lists(shelf):
    shelf.add("acme-d", TOP.replace("shelf", "rack").replace("acme.reading:fetch", "acme_d:missing"))
    load_plugins.cache_clear()
    with pytest.raises(PluginError, match="acme-d, addresses rack://: module 'acme_d' has no 'missing'"):
        qsae_core.load("rack://a")
    done = shelf.qsae("list-plugins", "--strict", QSAE_PLUGINS="acme-d")
    assert done.returncode == 1
    assert "addresses rack://: module 'acme_d' has no 'missing'" in done.stdout


def test_commands_that_take_folders_alone_say_so(shelf):
    done = shelf.qsae("evaluate", "hf://user/repo")
    assert done.returncode == 2
    assert "is an address, and a folder is asked for here" in done.stderr
