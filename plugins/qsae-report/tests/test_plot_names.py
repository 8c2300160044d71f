"""What runs are called: by what differs."""

from __future__ import annotations

import json

import pytest
from qsae_report.run_names import run_names

from qsae_core.errors import ConfigError


@pytest.fixture
def run(tmp_path):
    def write(place, name=None, seed=0, quantizer="none", slot="sae", **options):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        record = {
            slot: {"use": "topk", "n_latents": 512, **options},
            "quantizer": {"use": quantizer},
            "run": {"name": name, "seed": seed, "out": "results"},
        }
        (folder / "config.json").write_text(json.dumps(record), encoding="utf-8")
        return folder

    return write


def test_the_name_that_was_given_or_the_coder(run):
    assert run_names([run("a", "mine")]) == ["mine"]
    assert run_names([run("b", quantizer="ste")]) == ["topk (ste)"]
    assert run_names([run("c", slot="transcoder")]) == ["topk (none)"]


def test_names_that_differ_say_no_more(run):
    assert run_names([run("a", "one", k=1), run("b", "two", k=2)]) == ["one", "two"]


def test_alike_names_say_what_differs(run):
    found = run_names([run("a", k=8), run("b", k=16), run("c", "other", k=16)])
    assert found == ["topk (none) (k=8)", "topk (none) (k=16)", "other"]
    assert run_names([run("d", "x", seed=0), run("e", "x", seed=1)]) == ["x (seed=0)", "x (seed=1)"]


def test_a_missing_option_is_a_dash(run):
    assert run_names([run("a", "x", k=8), run("b", "x")]) == ["x (k=8)", "x (k=-)"]


def test_many_differences_or_none_are_parts_of_the_path(run):
    many = [run("r/a/1", "x", a=1, b=1, c=1), run("r/b/1", "x", a=2, b=2, c=2)]
    assert run_names(many) == ["x (a)", "x (b)"]
    none = [run("s/a/1", "y"), run("s/a/2", "y")]
    assert run_names(none) == ["y (1)", "y (2)"]


def test_names_that_come_to_be_alike_are_paths(run):
    paths = [run("a", "x", k=1), run("b", "x", k=2), run("c", "x (k=1)")]
    assert run_names(paths) == [str(path) for path in paths]


@pytest.mark.parametrize("text", [None, "[]", '{"model_type": "llama"}'])
def test_another_folder_is_no_run(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="no run's folder") as caught:
        run_names([tmp_path])
    assert caught.value.next == "qsae runs"


def test_a_run_is_drawn_once(run, tmp_path):
    path = run("a")
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="named twice"):
        run_names([path, tmp_path / "b" / ".." / "a"])
