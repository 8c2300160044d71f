"""Documents out of Hugging Face datasets, streamed. Nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qsae_core.errors import DataError
from qsae_data_lm.text_column import Row, sample_rows, text_column

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


def open_dataset(
    dataset: str, name: str | None, split: str, column: str | None
) -> tuple[Callable[[int], Iterator[str]], dict[str, Any]]:
    """Opens a dataset id, or a local file or folder, for streaming.

    Returns:
        a function that reads texts from the n-th row on, and what is to be said about the dataset.

    Raises:
        DataError: if it cannot be opened, has no such split, or no column that is clearly the text; the
            function raises it if a row cannot be read or holds no text.
    """
    rows = _load(dataset, name, split)
    sample = sample_rows(_read_rows(rows, dataset, 0))
    if not sample:
        raise DataError(f"the dataset {dataset!r} has no rows", where="data.dataset")
    column = column or text_column(sample, dataset, other=_of_another_type(rows.features or {}))
    if column not in sample[0]:
        raise DataError(
            f"the dataset {dataset!r} has no column {column!r}",
            where="data.dataset_column",
            allowed=", ".join(sample[0]),
        )

    def read(start: int) -> Iterator[str]:
        for number, row in enumerate(_read_rows(rows, dataset, start), start):
            yield _text_of(row, column, f"{dataset}: row {number}")

    return read, {"dataset": dataset, "dataset_split": split, "dataset_column": column}


def _of_another_type(features: Mapping[str, Any]) -> set[str]:
    """Columns whose declared type is not text; one that is null so far is of an unknown type."""
    return {c for c, feature in features.items() if getattr(feature, "dtype", None) not in _MAYBE_TEXT}


def _text_of(row: Row, column: str, where: str) -> str:
    if column not in row:
        raise DataError(f"has no column {column!r}", where=where, allowed=", ".join(row))
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise DataError(
            f"the column {column!r} holds a value of type {type(value).__name__}, not text",
            where=where,
            allowed="a column of strings; rows count from 0",
            next="choose another with --data.dataset-column, or make the values text",
        )
    return value or ""


def _read_rows(rows: Any, dataset: str, start: int) -> Iterator[Row]:
    """The rows from one on; whatever the library raises on the way names the data set and the row."""
    number = start
    iterator = iter(rows.skip(start) if start else rows)
    while True:
        try:
            row = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # the library raises its own kinds, pyarrow's, pandas' and network errors
            raise DataError(
                f"rows from number {number} on cannot be read: {_reason(error)}",
                where=f"data.dataset: {dataset}",
                allowed="files of one format with the same columns; rows count from 0",
                next="mend or leave out the file or row; files that differ can be read one by one",
            ) from error
        yield row
        number += 1


def _reason(error: Exception) -> str:
    """What the library says, in one line of bounded length."""
    text = " ".join(str(error).split()) or repr(error)
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _load(dataset: str, name: str | None, split: str) -> Any:
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
            reader, options = _reader(path)
            return datasets.load_dataset(reader, data_files=str(path), split=split, streaming=True, **options)
        if any(os.path.isfile(path / f"{name}.json") for name in ("dataset_info", "dataset_dict")):
            stored = datasets.load_from_disk(str(path))
            if isinstance(stored, datasets.DatasetDict):
                stored = stored[split]
            return stored.to_iterable_dataset()
        place = str(path) if os.path.isdir(path) else dataset
        return datasets.load_dataset(place, name, split=split, streaming=True)
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(
            f"the dataset {dataset!r} (split {split!r}) cannot be opened: {_reason(error)}",
            where="data.dataset",
            allowed="a Hugging Face dataset id, or a local file or folder",
        ) from error


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
