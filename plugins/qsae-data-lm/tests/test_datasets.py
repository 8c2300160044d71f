"""Text out of Hugging Face datasets, from local files."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from qsae_data_lm import LmConfig
from qsae_data_lm.source import LmSource
from qsae_data_lm.split import Split
from qsae_data_lm.text_files import read_text

from qsae_cli.main import cli
from qsae_core.errors import DataError

datasets = pytest.importorskip("datasets")
from qsae_data_lm.dataset_documents import StreamedDocuments  # noqa: E402
from qsae_data_lm.datasets_text import dataset_documents  # noqa: E402
from qsae_data_lm.text_column import MOST, text_column  # noqa: E402


def opened(dataset: str, column: str | None = None, split: str = "train") -> StreamedDocuments:
    config = LmConfig(dataset=dataset, dataset_column=column, dataset_split=split)
    return dataset_documents(config, None, Split(0.05))  # type: ignore[return-value]


def texts(dataset: str, column: str | None = None) -> list[str]:
    return [document.text for document in opened(dataset, column)._in_order()]


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return [
        {
            "id": n,
            "title": f"About {n}",
            "body": f"{n} is a number. " * 20,
            "url": f"x.org/{n}" if n > 100 else None,
        }
        for n in range(600)
    ]


@pytest.fixture(params=["jsonl", "parquet", "saved", "folder"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path, rows: list[dict[str, object]]) -> str:
    """The rows as a dataset of several kinds."""
    whole = datasets.Dataset.from_list(rows)
    path = tmp_path / f"data.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif request.param == "parquet":
        whole.to_parquet(str(path))
    elif request.param == "saved":
        whole.save_to_disk(str(path))
    else:
        path.mkdir()
        whole.to_parquet(str(path / "train-0.parquet"))
    return str(path)


def test_the_text_column_is_found(dataset: str) -> None:
    assert opened(dataset).describe()["dataset_column"] == "body"
    assert [text.split()[0] for text in texts(dataset)] == [str(n) for n in range(600)]


def test_a_column_can_be_named_and_must_exist(dataset: str) -> None:
    assert texts(dataset, "title")[3] == "About 3"
    with pytest.raises(DataError, match="no column 'text'") as caught:
        opened(dataset, "text")
    assert caught.value.allowed == "id, title, body, url"


def test_an_ambiguous_or_missing_text_column_is_an_error_that_lists_the_columns() -> None:
    question = {"question": "How many are there?", "answer": "There are twelve.", "n": 12}
    with pytest.raises(DataError, match="'question' and 'answer'") as caught:
        text_column([question], "qa")
    assert "question (text, 19 characters), answer (text, 17 characters), n" in str(caught.value)
    assert "--data.dataset-column question" in str(caught.value)
    with pytest.raises(DataError, match=r"no column of text; its columns: n, m \(no value\)"):
        text_column([{"n": 1, "m": None}], "numbers")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "data.xyz").write_text("?")
    with pytest.raises(DataError, match="known by its ending"):
        opened(str(tmp_path / "data.xyz"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        opened(str(tmp_path / "empty.jsonl"))
    (tmp_path / "data.txt").write_text("text\n")
    with pytest.raises(DataError, match="'validation'"):
        opened(str(tmp_path / "data.txt"), split="validation")


def test_a_streamed_source_resumes_bit_equal(dataset: str, tiny: Path) -> None:
    config = LmConfig(model=str(tiny), dataset=dataset, context=32, buffer_tokens=256)
    source, resumed = LmSource(config), LmSource(config)
    source.next_batch(3000)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert torch.equal(source.next_batch(600).x, resumed.next_batch(600).x)
    assert source.training_tokens is None
    assert source.describe()["dataset_column"] == "body"
    assert len(next(source.held_out(200, 200))) == 200


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_tabs_separate_columns_as_commas_do(tmp_path: Path) -> None:
    rows = [("one, two and three " * 5, "yes"), ('with "quotes" in it ' * 5, "no")]
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        with (tmp_path / f"x{suffix}").open("w", newline="") as file:
            csv.writer(file, delimiter=mark).writerows([("text", "label"), *rows])
    assert texts(str(tmp_path / "x.tsv")) == texts(str(tmp_path / "x.csv")) == [text for text, _ in rows]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz"])
def test_compressed_text_is_read_as_the_text(tmp_path: Path, suffix: str, packed: str) -> None:
    lines = [f"number {n}, and more of it" for n in range(300)]
    written = {
        ".jsonl": [json.dumps({"text": line}) for line in lines],
        ".csv": ["text", *(f'"{line}"' for line in lines)],
        ".tsv": ["text", *lines],
        ".txt": lines,
    }[suffix]
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[packed]
    path = tmp_path / f"data{suffix}{packed}"
    path.write_bytes(compress("\n".join(written).encode()))
    assert texts(str(path)) == lines


def test_a_column_without_a_value_may_be_the_text(tmp_path: Path) -> None:
    late = [{"text": None, "id": f"row {n}"} for n in range(60)]
    late += [{"text": "now there is some " * 5, "id": f"row {n}"} for n in range(60)]
    assert opened(write_jsonl(tmp_path / "late.jsonl", late)).describe()["dataset_column"] == "text"
    never = [{"text": None, "id": f"row {n}"} for n in range(MOST + 5)]
    path = write_jsonl(tmp_path / "never.jsonl", never)
    with pytest.raises(
        DataError, match=r"no value in its first 1000 rows of 'text'.*text \(no value\), id"
    ) as e:
        texts(path)
    assert e.value.allowed == "id, text"
    assert texts(path, "id")[0] == "row 0"
    typed = datasets.Features({"text": datasets.Value("string"), "n": datasets.Value("int64")})
    rows = {"text": ["some text"] * 60, "n": [None] * 60}
    datasets.Dataset.from_dict(rows, features=typed).to_parquet(tmp_path / "typed.parquet")
    assert texts(str(tmp_path / "typed.parquet")) == rows["text"]  # a number is no text


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    good = [{"text": f"text {n}"} for n in range(5)]
    path = write_jsonl(tmp_path / "broken.jsonl", good)
    with Path(path).open("a") as file:
        file.write('{"text": "cut of')
    with pytest.raises(
        DataError, match=r"data.dataset: .*broken.jsonl: rows from number 0 on cannot be read: JSON"
    ):
        texts(path)
    folder = tmp_path / "differ"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", good)
    write_jsonl(folder / "b.jsonl", [{"body": "text"}])
    with pytest.raises(DataError, match="part 2 of 2"):
        texts(str(folder))
    (tmp_path / "wide.csv").write_text("text,n\na,1\nb,2,3,4\n")
    with pytest.raises(DataError, match="Expected 2 fields in line 3, saw 4"):
        texts(str(tmp_path / "wide.csv"))


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), (["a", "b"], "list"), ({"a": "b"}, "dict")])
def test_values_that_are_no_text_are_named_with_their_row_and_type(
    tmp_path: Path, value: object, kind: str
) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {n}", "n": n} for n in range(70)]
    if kind == "int":  # beyond the rows by which the column is chosen
        rows[60]["text"] = value
        path, row = write_jsonl(tmp_path / "x.jsonl", rows), 60
    else:
        path, row = write_jsonl(tmp_path / "x.jsonl", [{"text": value, "n": n} for n in range(70)]), 0
    with pytest.raises(DataError, match=f"'text' holds a value of type {kind}, not text") as caught:
        texts(path, "text")
    assert caught.value.where == f"{path}: row {row}"


def test_a_pipe_is_no_dataset(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match="a pipe or a device"):
        texts(str(tmp_path / "x.jsonl"))


def test_a_configuration_that_is_not_there_is_not_passed_over(dataset: str) -> None:
    if dataset.endswith("folder"):
        pytest.skip("its description may have several")
    with pytest.raises(DataError, match="has no configuration 'sample' nor any other") as caught:
        dataset_documents(LmConfig(dataset=dataset, dataset_name="sample"), None, Split(0.05))
    assert caught.value.where == "data.dataset_name"


def test_a_table_on_disk_is_no_split_but_its_own(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(str(tmp_path / "nameless"))
    datasets.Dataset.from_list(rows, split="validation").save_to_disk(str(tmp_path / "named"))
    datasets.DatasetDict({"test": whole}).save_to_disk(str(tmp_path / "several"))
    for good in (("nameless", "train"), ("named", "train"), ("named", "validation"), ("several", "test")):
        assert opened(str(tmp_path / good[0]), split=good[1]).describe()["dataset_column"] == "body"
    with pytest.raises(DataError, match="holds no split of a name, and 'test' is asked for"):
        opened(str(tmp_path / "nameless"), split="test")
    with pytest.raises(
        DataError, match="holds the split 'validation' alone, and 'test' is asked for"
    ) as caught:
        opened(str(tmp_path / "named"), split="test")
    assert caught.value.where == "data.dataset_split"
    with pytest.raises(DataError, match="'train'"):
        opened(str(tmp_path / "several"))


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".ARROW"])
def test_rows_of_a_dataset_are_not_read_as_text(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"docs{ending}"
    path.write_text('{"text": "Line 1."}')
    with pytest.raises(DataError, match="holds rows of a data set") as caught:
        read_text(str(path))
    assert caught.value.next == f"--dataset {path}"


def test_a_recipes_configuration_can_be_taken_back_by_a_flag(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sae: topk\ndata: {use: lm, dataset: some/set, dataset_name: sample-10BT}\n")
    line = ["train", "--config", str(recipe), "--dry-run", "--json", "--dataset", "docs.jsonl"]
    done = CliRunner().invoke(cli, [*line, "--dataset-name", "none"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["data"]["dataset_name"] is None
