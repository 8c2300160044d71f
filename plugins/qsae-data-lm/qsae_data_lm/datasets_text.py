"""Documents out of Hugging Face datasets: what is opened, what of it is read. Nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from qsae_core.errors import DataError
from qsae_data_lm import LmConfig
from qsae_data_lm.chat import ChatTemplate
from qsae_data_lm.corpus import Document
from qsae_data_lm.dataset_documents import IndexedDocuments, StreamedDocuments, ToDocument
from qsae_data_lm.dataset_rows import RowStream, reason
from qsae_data_lm.documents import PLAIN, Documents, Form
from qsae_data_lm.messages import is_conversation
from qsae_data_lm.split import Split
from qsae_data_lm.text_column import MOST, Row, conversation_column, sample_rows, text_column

_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
    ".arrow": ("arrow", {}),
}
"""A file's ending -> the library's reader, and its options."""
_COMPRESSED = (".gz", ".bz2", ".xz")
"""Endings that may stand behind one of a text format: .jsonl.gz."""
_TEXT_FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".txt")

_MAYBE_TEXT = ("string", "large_string", "null")


def dataset_documents(config: LmConfig, tokenizer: Any, split: Split) -> Documents:
    """The documents of the dataset that a config names.

    Args:
        tokenizer: of transformers; its chat template renders conversations.
        split: which documents are held out.

    Raises:
        DataError: if it cannot be opened, has no such split, or no column that is clearly the text; reading
            the documents raises it if a row cannot be read or holds no text.
    """
    name = str(config.dataset)
    stored = _load(name, config.dataset_name, config.dataset_split, config.streaming)
    stream = RowStream(stored, name) if config.streaming else None

    def first_rows() -> Iterator[tuple[str, Row]]:
        return islice(stream.read() if stream is not None else _rows_of(stored, name), MOST)

    sample = sample_rows(row for _, row in first_rows())
    if not sample:
        raise DataError(f"the dataset {name!r} has no rows", where="data.dataset")
    column = _column(config, sample, stored.features or {})
    described = {"dataset": name, "dataset_split": config.dataset_split, "dataset_column": column}
    to_document, form = _text_reader(column), PLAIN
    if config.chat_template is not None:
        chat = ChatTemplate(tokenizer, config.chat_template, config.roles)
        chat.look_at((where, _value(row, column, where)) for where, row in first_rows())
        to_document = _chat_reader(chat, column)
        form = Form("begin" if chat.opens_with_bos else "nothing", spell_special=True)
        described |= {"chat_template": config.chat_template, "roles": config.roles}
    if stream is None:
        table = stored.select_columns([column])
        return IndexedDocuments(table, name, to_document, split, described, form=form)
    buffer = config.shuffle_buffer
    return StreamedDocuments(stream, to_document, split, described, buffer=buffer, form=form)


def _rows_of(table: Any, name: str) -> Iterator[tuple[str, Row]]:
    return ((f"{name}: row {number}", row) for number, row in enumerate(table))


def _column(config: LmConfig, sample: list[Row], features: Mapping[str, Any]) -> str:
    name = str(config.dataset)
    if config.dataset_column is None:
        if config.chat_template is not None:
            return conversation_column(sample, name)
        return text_column(sample, name, other=_of_another_type(features))
    if config.dataset_column not in sample[0]:
        raise DataError(
            f"the dataset {name!r} has no column {config.dataset_column!r}",
            where="data.dataset_column",
            allowed=", ".join(sample[0]),
        )
    return config.dataset_column


def _of_another_type(features: Mapping[str, Any]) -> set[str]:
    """Columns whose declared type is not text; one that is null so far is of an unknown type."""
    return {c for c, feature in features.items() if getattr(feature, "dtype", None) not in _MAYBE_TEXT}


def _chat_reader(chat: ChatTemplate, column: str) -> ToDocument:
    return lambda where, row: chat.document(_value(row, column, where), where)


def _text_reader(column: str) -> ToDocument:
    def to_document(where: str, row: Row) -> Document | None:
        value = _value(row, column, where)
        if value is not None and not isinstance(value, str):
            chat = "; conversations need --chat-template own" if is_conversation(value) else ""
            raise DataError(
                f"the column {column!r} holds a value of type {type(value).__name__}, not text",
                where=where,
                allowed="a column of strings; rows count from 0",
                next=f"choose another with --data.dataset-column, or make the values text{chat}",
            )
        return Document(value, value) if value and value.strip() else None

    return to_document


def _value(row: Row, column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f"has no column {column!r}", where=where, allowed=", ".join(row))
    return row[column]


def _load(dataset: str, name: str | None, split: str, streaming: bool) -> Any:
    """The library's `IterableDataset`, or its `Dataset` where it is not streamed."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "reading a dataset needs the library `datasets`, which is not installed",
            where="data.dataset",
            next="pip install 'qsae-data-lm[datasets]'",
        ) from error

    path = Path(dataset).expanduser()
    try:
        if os.path.exists(path) and not path.is_dir():  # pathlib's raises where a name is too long
            _refuse_name(name, path, "a file")
            reader, options = _reader(path)
            return datasets.load_dataset(
                reader, data_files=str(path), split=split, streaming=streaming, **options
            )
        if any(os.path.isfile(path / f"{name}.json") for name in ("dataset_info", "dataset_dict")):
            _refuse_name(name, path, "a data set that was saved")
            stored = datasets.load_from_disk(str(path))
            if isinstance(stored, datasets.DatasetDict):
                stored = stored[split]
            else:
                _check_split(split, stored.split, path)
            files = max(1, min(len(stored.cache_files), len(stored)))
            return stored.to_iterable_dataset(num_shards=files) if streaming else stored
        place = str(path) if os.path.isdir(path) else dataset
        return datasets.load_dataset(place, name, split=split, streaming=streaming)
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(
            f"the dataset {dataset!r} (split {split!r}) cannot be opened: {reason(error)}",
            where="data.dataset",
            allowed="a Hugging Face dataset id, or a local file or folder",
        ) from error


def _refuse_name(name: str | None, path: Path, kind: str) -> None:
    if name is not None:
        raise DataError(
            f"{path} is {kind}, which has no configuration {name!r} nor any other",
            where="data.dataset_name",
            allowed="a configuration of a data set of the hub, or of a folder that describes several",
            next="leave --dataset-name out (where a recipe gives it: --dataset-name none), or give the "
            "folder of that configuration",
        )


def _check_split(asked: str, stored: Any, path: Path) -> None:
    """Of a single table on disk: the default asks for whatever it is."""
    if asked not in (LmConfig.model_fields["dataset_split"].default, str(stored)):
        what = "no split of a name" if stored is None else f"the split {str(stored)!r} alone"
        raise DataError(
            f"{path} holds {what}, and {asked!r} is asked for",
            where="data.dataset_split",
            allowed="what was saved: a `DatasetDict` holds several splits, a `Dataset` one",
            next="leave --dataset-split out, or give the folder of that split",
        )


def _reader(path: Path) -> tuple[str, dict[str, Any]]:
    """The library's reader for a file, by its ending."""
    if not path.is_file():
        raise DataError(
            f"{path} is neither a file nor a folder, but a pipe or a device, which cannot be read twice",
            where="data.dataset",
            allowed="a Hugging Face dataset id, or a local file or folder",
            next="write what it gives into a file first",
        )
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-1] if suffixes else ""
    if ending in _COMPRESSED and len(suffixes) > 1 and suffixes[-2] in _TEXT_FORMATS:
        ending = suffixes[-2]
    if ending not in _READERS:
        raise DataError(
            f"{path} is no dataset file that is known by its ending",
            where="data.dataset",
            allowed=f"{', '.join(_READERS)}; behind a text format also {', '.join(_COMPRESSED)}",
        )
    return _READERS[ending]
