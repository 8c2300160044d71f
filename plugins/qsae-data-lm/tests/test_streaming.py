"""Datasets of any size: read in parts, shuffled within bounds, gone on with, and divided among processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from qsae_data_lm import LmConfig
from qsae_data_lm.corpus import Document
from qsae_data_lm.dataset_rows import RowStream
from qsae_data_lm.source import LmSource
from qsae_data_lm.split import Split

from qsae_cli.main import cli
from qsae_core.contracts import shard
from qsae_core.errors import DataError

datasets = pytest.importorskip("datasets")
from qsae_data_lm.dataset_documents import IndexedDocuments, StreamedDocuments  # noqa: E402
from qsae_data_lm.datasets_text import dataset_documents  # noqa: E402

FILES, ROWS = 4, 90


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def body(file: int, row: int) -> str:
    return f"{file}-{row} is a row. " + f"It is the number {row} of file {file}. " * 5


def written(folder: Path, kind: str) -> str:
    """Four files of 90 rows."""
    folder.mkdir()
    for file in range(FILES):
        rows = [{"id": row, "text": body(file, row)} for row in range(ROWS)]
        if kind == "jsonl":
            (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            datasets.Dataset.from_list(rows).to_parquet(str(folder / f"{file}.parquet"))
    if kind == "saved":
        whole = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "other"))
        folder = folder.parent / "on-disk"
        whole.save_to_disk(str(folder), num_shards=FILES)
    return str(folder)


@pytest.fixture(params=["jsonl", "parquet", "saved"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return written(tmp_path / "files", request.param)


@pytest.fixture
def jsonl(tmp_path: Path) -> str:
    return written(tmp_path / "files", "jsonl")


def documents(dataset: str, **options: Any) -> StreamedDocuments:
    config = LmConfig(dataset=dataset, **{"shuffle_buffer": 50, **options})
    return dataset_documents(config, None, Split(0.1))  # type: ignore[return-value]


def names(found: StreamedDocuments | IndexedDocuments, *where: Any) -> list[str]:
    return [n.document.text.split()[0] for n in found.training(*where)]


def test_an_epoch_takes_the_files_in_a_new_order_and_every_document_once(jsonl: str) -> None:
    found = documents(jsonl)
    assert found.describe()["dataset_parts"] == FILES
    held_out = [d.text.split()[0] for d in found.held_out()]
    epochs = [names(found, 3, epoch, None) for epoch in range(6)]
    assert epochs[0] == names(found, 3, 0, None)
    for epoch in epochs:
        assert sorted(epoch + held_out) == sorted(f"{f}-{r}" for f in range(FILES) for r in range(ROWS))
        rows = [int(name.split("-")[1]) for name in epoch[:40]]
        assert rows != sorted(rows)
    assert len({epoch[0][0] for epoch in epochs}) > 1  # which file is first
    assert names(found, 4, 0, None) != epochs[0]


def test_no_more_rows_are_in_memory_than_asked_for() -> None:
    read: list[int] = []

    def endless() -> Iterator[dict[str, str]]:
        for n in count():
            read.append(n)
            yield {"text": f"document {n}"}

    rows = RowStream(datasets.IterableDataset.from_generator(endless), "endless")
    found = StreamedDocuments(
        rows, lambda _, row: Document(row["text"], row["text"]), Split(0.1), {}, buffer=70
    )
    first = list(islice(found.training(0, 0, None), 60))
    assert max(read) < 70
    rows = [int(n.document.text.split()[1]) for n in first]
    assert max(rows[:20]) > 60  # so they are shuffled over the buffer
    numbers = [n.number for n in first]
    assert numbers == sorted(numbers)
    assert len(list(islice(found.held_out(), 10))) == 10


@pytest.mark.parametrize("stop", [0, 7, 44, 45, 100, 200, 320])
def test_an_epoch_is_entered_anywhere_without_what_was_read_before(
    dataset: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = documents(dataset)
    whole = list(found.training(3, 1, None))
    place = json.loads(json.dumps(whole[stop].behind))
    opened: list[int] = []
    part = RowStream.part
    monkeypatch.setattr(RowStream, "part", lambda self, number: opened.append(number) or part(self, number))
    assert list(documents(dataset).training(3, 1, place)) == whole[stop + 1 :]
    # the first part is that which holds the window's beginning; one more is opened by looking at the sample
    assert len(opened) == 1 + FILES - place["window"]["part"]


def test_the_library_skips_to_the_place_within_a_file(tmp_path: Path) -> None:
    """Its state says so: rows before it are not made into documents again."""
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(300)))
    made: list[str] = []

    def document(where: str, row: Any) -> Document:
        made.append(where)
        return Document(row["text"], row["text"])

    path = str(tmp_path / "x.jsonl")
    load = lambda: datasets.load_dataset("json", data_files=path, split="train", streaming=True)  # noqa: E731
    whole = list(
        StreamedDocuments(RowStream(load(), "x"), document, Split(0.1), {}, buffer=50).training(0, 0, None)
    )
    again = StreamedDocuments(RowStream(load(), "x"), document, Split(0.1), {}, buffer=50)
    made.clear()
    assert list(again.training(0, 0, whole[200].behind)) == whole[201:]
    read = [int(where.removeprefix("x: row ")) for where in made]
    assert min(read) >= 200
    window, done = whole[200].behind["window"]["row"], whole[200].behind["next"]
    assert len(read) == 300 - window - done


@pytest.mark.parametrize(("world", "by_files"), [(2, True), (4, True), (3, False), (8, False)])
@pytest.mark.parametrize("streaming", [True, False])
def test_processes_have_documents_of_their_own(
    jsonl: str, world: int, by_files: bool, streaming: bool
) -> None:
    found = documents(jsonl, streaming=streaming)
    shares = [list(found.training(3, 1, None, (rank, world))) for rank in range(world)]
    parts = [{n.document.key for n in share} for share in shares]
    whole = {n.document.key for n in found.training(3, 1, None)}
    assert set().union(*parts) == whole
    assert sum(map(len, parts)) == len(whole)
    assert len({n.number for share in shares for n in share}) == len(whole)
    files = [{key[0] for key in part} for part in parts]
    assert all(len(some) == FILES // world for some in files) == (by_files and streaming)
    stop = shares[-1][20]
    rest = found.training(3, 1, json.loads(json.dumps(stop.behind)), (world - 1, world))
    assert list(rest) == shares[-1][21:]


def test_a_table_on_disk_is_shuffled_as_a_whole_and_counted(dataset: str) -> None:
    table, stream = documents(dataset, streaming=False), documents(dataset)
    assert [d.text for d in table.held_out()] == [d.text for d in stream.held_out()]
    epoch = names(table, 3, 0, None)
    assert sorted(epoch) == sorted(names(stream, 3, 0, None))
    assert {name[0] for name in epoch[:40]} == set("0123")
    described = table.describe()
    assert described["documents"] == FILES * ROWS
    assert described["documents"] - described["held_out_documents"] == len(epoch)
    part = table.held_out_part("x")
    part.take_all()
    assert part.name() == f"all {FILES * ROWS} documents of x"
    assert len(list(table.held_out())) == FILES * ROWS
    assert not list(table.training(3, 0, None))


def test_empty_rows_are_no_documents(tmp_path: Path) -> None:
    rows = [{"text": "" if n % 3 else f"text number {n}"} for n in range(300)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for streaming in (True, False):
        found = documents(str(tmp_path / "x.jsonl"), streaming=streaming)
        assert len(list(found.training(0, 0, None))) + len(list(found.held_out())) == 100
    assert found.describe()["documents"] == 100


Make = Callable[..., LmSource]


@pytest.fixture
def make(jsonl: str, tiny: Path) -> Make:
    def build(**options: Any) -> LmSource:
        defaults = {"dataset": jsonl, "shuffle_buffer": 40, "context": 32, "buffer_tokens": 512}
        return LmSource(LmConfig(model=str(tiny), dtype="fp32", **{**defaults, **options}), seed=5)

    return build


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("taken", [0, 300, 6000, 40_000])
def test_a_source_goes_on_with_the_very_next_batch(make: Make, streaming: bool, taken: int) -> None:
    source, resumed = make(streaming=streaming), make(streaming=streaming)
    for _ in range(taken // 1000):
        source.next_batch(1000)
    source.next_batch(taken % 1000 or 1)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    for size in (7, 900):
        one, other = source.next_batch(size), resumed.next_batch(size)
        assert torch.equal(one.x, other.x)
        assert one.token_ids.tolist() == other.token_ids.tolist()
    assert source.state_dict() == resumed.state_dict()
    assert (source.state_dict()["epoch"] > 0) == (taken == 40_000)


def test_two_processes_read_other_contexts_and_hold_out_the_same(make: Make) -> None:
    parts = [shard(make(), rank, 2) for rank in range(2)]
    for each, source in enumerate(parts):
        assert isinstance(source, LmSource)
        assert source.next_batch(100).x.shape == (100, 16)
        assert source.state_dict()["share"] == [each, 2]
    texts = [{n.document.key for n in s._documents.training(5, 0, None, s._blocks.share)} for s in parts]
    assert not texts[0] & texts[1]
    held_out = [next(source.held_out(200, 200)).x for source in (*parts, make())]
    assert torch.equal(held_out[0], held_out[1])
    assert torch.equal(held_out[0], held_out[2])
    state = json.loads(json.dumps(parts[1].state_dict()))
    for other, wanted in (((0, 2), "1 of 2, not 0 of 2"), ((0, 1), "1 of 2, not 0 of 1")):
        with pytest.raises(DataError, match=f"the state is that of process {wanted}") as caught:
            shard(make(), *other).load_state_dict(state)
        assert "as many processes as before" in str(caught.value.next)
    again = shard(make(), 1, 2)
    again.load_state_dict(state)
    assert torch.equal(again.next_batch(300).x, parts[1].next_batch(300).x)


def test_a_process_without_a_context_of_its_own(make: Make, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"text": f"few words {n}"}) + "\n" for n in range(12))
    )
    source = shard(make(dataset=str(tmp_path / "x.jsonl")), 4, 5)
    with pytest.raises(DataError, match="the training text of process 4 of 5 is shorter than one context"):
        source.next_batch(5)


def test_a_broken_file_is_named_by_its_part_and_row(jsonl: str) -> None:
    with (Path(jsonl) / "2.jsonl").open("a") as file:
        file.write('{"text": "cut of')
    with pytest.raises(DataError, match=r"rows from number 0 of part 3 of 4 on cannot be read: JSON"):
        list(documents(jsonl).held_out())
    (Path(jsonl) / "2.jsonl").write_text(json.dumps({"id": 1, "text": ["a", "list"]}) + "\n")
    with pytest.raises(DataError):
        list(documents(jsonl).held_out())
    with pytest.raises(DataError, match=r"cannot be opened"):
        documents(jsonl, streaming=False)
    with pytest.raises(DataError, match="'other'"):
        documents(jsonl, dataset_split="other", streaming=False)


def test_flags(jsonl: str) -> None:
    line = f"train --sae topk --data lm --dataset {jsonl} --split test --no-streaming --dry-run"
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, result.output
    for words in ("dataset_split: test", "streaming: false", "shuffle_buffer: 1000"):
        assert words in result.output


def test_a_dataset_that_has_grown_is_no_more_the_one_that_was_interrupted(make: Make, jsonl: str) -> None:
    """The order of an epoch is one of so many rows, or parts: going on in another one some would come twice,
    and others not at all. The first rows are the same."""
    table, stream = make(streaming=False), make()
    states = []
    for source in (table, stream):
        source.next_batch(600)
        states.append(json.loads(json.dumps(source.state_dict())))
    make(streaming=False).load_state_dict(states[0])
    more = "".join(json.dumps({"id": n, "text": body(9, n)}) + "\n" for n in range(7))
    (Path(jsonl) / "9.jsonl").write_text(more)
    grown = f"there are {FILES * ROWS + 7} rows, and there were {FILES * ROWS} when the run was interrupted"
    with pytest.raises(DataError, match=grown) as found:
        make(streaming=False).load_state_dict(states[0])
    assert found.value.where == jsonl
    with pytest.raises(DataError, match=f"there are {FILES + 1} parts, and there were {FILES} when"):
        make().load_state_dict(states[1])
    (Path(jsonl) / "9.jsonl").unlink()
    rows = (Path(jsonl) / "3.jsonl").read_text().splitlines(keepends=True)
    (Path(jsonl) / "3.jsonl").write_text("".join([*rows[:-1], json.dumps({"id": 0, "text": "other"}) + "\n"]))
    with pytest.raises(DataError, match="the text is another one"):
        make(streaming=False).load_state_dict(states[0])
