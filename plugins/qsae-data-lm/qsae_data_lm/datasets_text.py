"""Documents out of Hugging Face datasets, streamed. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from qsae_core.errors import DataError

_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".arrow": "arrow",
}
_SAMPLE = 50


def open_dataset(
    dataset: str, name: str | None, split: str, column: str | None
) -> tuple[Callable[[int], Iterator[str]], dict[str, Any]]:
    """Opens a dataset id, or a local file or folder, for streaming.

    Returns:
        a function that reads texts from the n-th row on, and what is to be said about the dataset.

    Raises:
        DataError: if it cannot be opened, has no such split, or no column that is clearly the text.
    """
    rows = _load(dataset, name, split)
    sample = list(islice(rows, _SAMPLE))
    if not sample:
        raise DataError(f"the dataset {dataset!r} has no rows", where="data.dataset")
    column = column or text_column(sample, dataset)
    if column not in sample[0]:
        raise DataError(
            f"the dataset {dataset!r} has no column {column!r}",
            where="data.dataset_column",
            allowed=", ".join(sample[0]),
        )

    def read(start: int) -> Iterator[str]:
        for row in rows.skip(start) if start else rows:
            yield row[column] or ""

    return read, {"dataset": dataset, "dataset_split": split, "dataset_column": column}


def text_column(rows: list[dict[str, Any]], dataset: str) -> str:
    """The column of strings with the longest values: more than twice as long, on average, as any other's.

    Raises:
        DataError: if there is no column of strings, or two are of similar length; it lists the columns.
    """
    means: dict[str, float] = {}
    for column in rows[0]:
        values = [row[column] for row in rows if row[column] is not None]
        if values and all(isinstance(value, str) for value in values):
            means[column] = sum(map(len, values)) / len(values)
    ranked = sorted(means, key=lambda c: -means[c])
    if not ranked:
        fault = "has no column of text"
    elif len(ranked) > 1 and means[ranked[0]] <= 2 * means[ranked[1]]:
        fault = f"has two columns of similar length, {ranked[0]!r} and {ranked[1]!r}"
    else:
        return ranked[0]
    columns = ", ".join(f"{c} (text, {means[c]:.0f} characters)" if c in means else c for c in rows[0])
    raise DataError(
        f"the dataset {dataset!r} {fault}; its columns: {columns}",
        where="data.dataset",
        allowed=", ".join(ranked) or "a dataset with a column of strings",
        next=f"--data.dataset-column {ranked[0]}" if ranked else None,
    )


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
        if path.is_file():
            builder = _BUILDERS.get(path.suffix.lower())
            if builder is None:
                raise DataError(
                    f"{path} is no dataset file that is known by its ending",
                    where="data.dataset",
                    allowed=", ".join(_BUILDERS),
                )
            return datasets.load_dataset(builder, data_files=str(path), split=split, streaming=True)
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            stored = datasets.load_from_disk(str(path))
            if isinstance(stored, datasets.DatasetDict):
                stored = stored[split]
            return stored.to_iterable_dataset()
        place = str(path) if path.is_dir() else dataset
        return datasets.load_dataset(place, name, split=split, streaming=True)
    except DataError:
        raise
    except Exception as error:  # the library raises its own kinds, network errors and bare ones
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
        raise DataError(
            f"the dataset {dataset!r} (split {split!r}) cannot be opened: {reason}",
            where="data.dataset",
            allowed="a Hugging Face dataset id, or a local file or folder",
        ) from error
