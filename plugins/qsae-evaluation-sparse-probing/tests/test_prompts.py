"""Files of labelled prompts, odd ones too."""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import pytest
from qsae_evaluation_sparse_probing import SaeProbesConfig
from qsae_evaluation_sparse_probing import prompts as prompts_module
from qsae_evaluation_sparse_probing.drawing import Spelled, draw
from qsae_evaluation_sparse_probing.prompts import Labelled, labelled_prompts, missing, read

from qsae_core.errors import ConfigError, DataError


def written(folder: pathlib.Path, text: str, name: str = "task.csv") -> pathlib.Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def config(folder: pathlib.Path, **options) -> SaeProbesConfig:
    return SaeProbesConfig(data=str(folder), **options)


def test_a_file_as_spreadsheets_write_them(tmp_path):
    text = '\ufeffid,target,prompt\r\n1,yes,"a, ""b""\r\nc"\r\n2,no,NA\r\n3, yes ,\r\n'
    found = read("t", written(tmp_path, text))
    assert found.prompts == ['a, "b"\r\nc', "NA", ""]
    assert (found.positive, found.labels.tolist()) == ("yes", [True, False, True])


@pytest.mark.parametrize(
    ("targets", "positive"),
    [(("10", "9"), "10"), (("0", "1"), "1"), (("True", "False"), "True"), (("b", "a1"), "b")],
)
def test_the_larger_number_or_the_later_word_is_true(tmp_path, targets, positive):
    rows = "\n".join(f"p{target},{target}" for target in targets)
    assert read("t", written(tmp_path, f"prompt,target\n{rows}\n")).positive == positive


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,label\na,1\nb,0\n", "no column target; its first line is 'prompt,label'"),
        ("", "no column prompt and no column target"),
        ("prompt,target\na,1\nb,1\n", "1 different values ('1')"),
        ("prompt,target\na,1\nb,2\nc,0\n", "3 different values ('0', '1', '2')"),
        ("prompt,target\na,1\nb,\n", "line 3 has no target"),
        ("prompt,target\na, b,1\n", "line 2 has not 2 cells"),
        ("prompt,target\na\n", "line 2 has not 2 cells"),
    ],
)
def test_a_file_that_is_none_of_labelled_prompts(tmp_path, text, says):
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read("t", path)
    assert says in caught.value.what
    assert caught.value.where == str(path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.csv").write_bytes("prompt,target\né,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="it cannot be read"):
        read("latin", tmp_path / "latin.csv")
    pytest.importorskip("zstandard")
    (tmp_path / "torn.csv.zst").write_bytes(b"prompt,target\na,1\n")
    with pytest.raises(DataError, match="it cannot be read"):
        read("torn", tmp_path / "torn.csv.zst")


def test_a_compressed_file_is_read_as_its_text(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    text = "prompt,prompt_len,target\nü 1,3,cat\nb,1,dog\n"
    (tmp_path / "t.csv.zst").write_bytes(zstandard.compress(text.encode()))
    (found,) = labelled_prompts(config(tmp_path))
    assert (found.name, found.prompts, found.positive) == ("t", ["ü 1", "b"], "dog")


def test_a_folder_of_ones_own(tmp_path):
    for name in ("b.csv", "a.csv", "notes.txt"):
        written(tmp_path, f"prompt,target\n{name},1\nx,0\n", name)
    assert [task.name for task in labelled_prompts(config(tmp_path))] == ["a", "b"]
    assert [task.name for task in labelled_prompts(config(tmp_path, tasks=["b"]))] == ["b"]
    assert [task.name for task in labelled_prompts(config(tmp_path, tasks=["all"]))] == ["a", "b"]
    with pytest.raises(ConfigError, match="there is no task 'bb'; did you mean 'b'"):
        labelled_prompts(config(tmp_path, tasks=["bb"]))
    written(tmp_path, "", "b.csv.zst")
    with pytest.raises(DataError, match=r"b is there twice: b.csv, b.csv.zst"):
        labelled_prompts(config(tmp_path))


def test_a_folder_without_prompts(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        labelled_prompts(config(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no .csv and no .csv.zst file"):
        labelled_prompts(config(tmp_path))


def without(monkeypatch, *names: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else found(name))


def test_what_is_missing_is_named_with_the_command(tmp_path, monkeypatch):
    without(monkeypatch, "sae_probes", "zstandard")
    assert "pip install --no-deps sae-probes zstandard" in str(missing(SaeProbesConfig()))
    written(tmp_path, "", "a.csv")
    assert missing(config(tmp_path)) is None
    written(tmp_path, "", "b.csv.zst")
    assert str(missing(config(tmp_path))).endswith("pip install zstandard")


def test_the_package_is_read_and_not_imported(tmp_path, monkeypatch):
    zstandard = pytest.importorskip("zstandard")
    module = tmp_path / "sae_probes"
    folder = module / "data" / "cleaned_data"
    folder.mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError('imported')")

    def put(path: pathlib.Path, text: str) -> None:
        path.write_bytes(zstandard.compress(text.encode()))

    put(folder / "1_two.csv.zst", "prompt,target\na,1\nb,0\n")
    put(folder / "2_many.csv.zst", "prompt,target\na,1\nb,2\nc,3\n")
    kinds = "1_two.csv,Binary Classification\ncleaned_data/2_many.csv,Continuous Data\n"
    put(
        module / "data" / "probing_datasets_MASTER.csv.zst",
        f"Dataset save name,Data type\ncleaned_data/{kinds}",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(prompts_module, "SELECTION", ("1_two",))
    assert missing(SaeProbesConfig()) is None
    for tasks in (None, ["all"]):
        (task,) = labelled_prompts(SaeProbesConfig(tasks=tasks))
        assert (task.name, task.prompts) == ("1_two", ["a", "b"])
    with pytest.raises(DataError, match="3 different values"):
        labelled_prompts(SaeProbesConfig(tasks=["2_many"]))


def spell(prompt: str) -> Spelled | None:
    """A character a token, of which the last five are read."""
    return Spelled(tuple(map(ord, prompt[-5:])), len(prompt) > 5) if prompt else None


def task(n: int, *, also: tuple[tuple[str, bool], ...] = ()) -> Labelled:
    """``n`` different prompts of each class, and more."""
    rows = [(f"{i:05}", i % 2 == 1) for i in range(2 * n)] + list(also)
    prompts, labels = zip(*rows, strict=True)
    return Labelled("t", "1", list(prompts), np.array(labels))


@pytest.mark.parametrize(
    ("n", "most", "train", "test"),
    [
        (1000, 5000, 1024, 976),  # n_train = min(2000 - 100, 1024)
        (1000, 1524, 1024, 500),
        (200, 1524, 300, 100),  # min(400 - 100, 1024)
        (64, 1524, 28, 100),
    ],
)
def test_how_many_train_and_test(n, most, train, test):
    drawn, sizes = draw(task(n), spell, SaeProbesConfig(prompts=most))
    assert drawn is not None
    assert (
        (sizes.train_examples, sizes.test_examples)
        == (train, test)
        == (
            drawn.n_train,
            len(drawn.tokens) - drawn.n_train,
        )
    )
    assert drawn.labels[:train].sum() == train / 2
    assert drawn.labels[train:].sum() == test / 2
    assert len(set(drawn.tokens)) == train + test  # no prompt twice, so none in both parts
    # a token of the drawn prompt's number tells the label that it had in the file
    assert [tokens[-1] % 2 == 1 for tokens in drawn.tokens] == drawn.labels.tolist()


def test_too_few_prompts_of_a_class_are_no_task():
    drawn, sizes = draw(task(63), spell, SaeProbesConfig())
    assert drawn is None
    assert (sizes.positives, sizes.negatives, sizes.train_examples) == (63, 63, 0)


def test_the_seed_draws():
    runs = [draw(task(300), spell, SaeProbesConfig(seed=seed, prompts=300))[0] for seed in (0, 0, 1)]
    assert runs[0].tokens == runs[1].tokens != runs[2].tokens


def test_what_is_left_out_is_counted():
    """Of 00000, a negative, and 00001, a positive, more rows; two empty prompts; one that is read alike."""
    also = (("00000", False), ("00001", True), ("00001", False), ("", True), ("", True), ("x00002", False))
    drawn, sizes = draw(task(200, also=also), spell, SaeProbesConfig())
    assert drawn is not None
    # 00001 has both targets; "" is one different positive, x00002 one more negative
    assert (sizes.positives, sizes.negatives) == (200, 201)
    assert (sizes.repeated, sizes.contradictory, sizes.unreadable) == (3, 1, 2)
    assert len(drawn.tokens) == 2 * 199
    assert tuple(map(ord, "00001")) not in drawn.tokens
    assert sizes.test_also_in_train == 0


def test_repeats_are_kept_where_asked_and_what_they_do_is_counted():
    twice = Labelled("t", "1", [*task(150).prompts] * 2, np.tile(task(150).labels, 2))
    once, sizes = draw(twice, spell, SaeProbesConfig())
    assert once is not None
    assert (sizes.repeated, len(once.tokens), sizes.test_also_in_train) == (300, 300, 0)
    kept, sizes = draw(twice, spell, SaeProbesConfig(repeats=True))
    assert kept is not None
    assert (sizes.repeated, len(kept.tokens), sizes.train_examples) == (0, 600, 500)
    trained = set(kept.tokens[:500])
    assert sizes.test_also_in_train == sum(tokens in trained for tokens in kept.tokens[500:]) > 50
