"""Text out of Hugging Face datasets, from local files."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from qsae_data_lm import LmConfig
from qsae_data_lm.source import LmSource

from qsae_core.errors import DataError

datasets = pytest.importorskip("datasets")
from qsae_data_lm.datasets_text import open_dataset, text_column  # noqa: E402


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return [
        {"id": n, "title": f"About {n}", "body": f"{n} is a number. " * 20, "url": None} for n in range(600)
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


def test_the_text_column_is_found_and_reading_starts_anywhere(dataset: str) -> None:
    read, description = open_dataset(dataset, None, "train", None)
    assert description["dataset_column"] == "body"
    assert next(read(0)).startswith("0 is a number. ")
    assert [x.split()[0] for x in islice(read(400), 2)] == ["400", "401"]
    assert len(list(read(0))) == 600


def test_a_column_can_be_named_and_must_exist(dataset: str) -> None:
    read, _ = open_dataset(dataset, None, "train", "title")
    assert next(read(3)) == "About 3"
    with pytest.raises(DataError, match="no column 'text'") as caught:
        open_dataset(dataset, None, "train", "text")
    assert caught.value.allowed == "id, title, body, url"


def test_an_ambiguous_or_missing_text_column_is_an_error_that_lists_the_columns() -> None:
    question = {"question": "How many are there?", "answer": "There are twelve.", "n": 12}
    with pytest.raises(DataError, match="'question' and 'answer'") as caught:
        text_column([question], "qa")
    assert "question (text, 19 characters), answer (text, 17 characters), n" in str(caught.value)
    assert "--data.dataset-column question" in str(caught.value)
    with pytest.raises(DataError, match="no column of text; its columns: n, m"):
        text_column([{"n": 1, "m": None}], "numbers")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "data.xyz").write_text("?")
    with pytest.raises(DataError, match="known by its ending"):
        open_dataset(str(tmp_path / "data.xyz"), None, "train", None)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        open_dataset(str(tmp_path / "empty.jsonl"), None, "train", None)
    (tmp_path / "data.txt").write_text("text\n")
    with pytest.raises(DataError, match="'validation'"):
        open_dataset(str(tmp_path / "data.txt"), None, "validation", None)


def test_a_streamed_source_resumes_bit_equal(dataset: str, tiny: Path) -> None:
    config = LmConfig(model=str(tiny), dataset=dataset, context=32, buffer_tokens=256)
    source, resumed = LmSource(config), LmSource(config)
    source.next_batch(3000)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert torch.equal(source.next_batch(600).x, resumed.next_batch(600).x)
    assert source.training_tokens is None
    assert source.describe()["dataset_column"] == "body"
    assert len(next(source.held_out(200, 200))) == 200
