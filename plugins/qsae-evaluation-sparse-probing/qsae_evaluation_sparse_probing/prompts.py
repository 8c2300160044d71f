"""Labelled prompts: where their files are, and what is in them. Imports no torch. Shapes: N rows."""

from __future__ import annotations

import csv
import importlib.util
import io
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsae_core import QsaeError
from qsae_core.errors import ConfigError, DataError, did_you_mean
from qsae_evaluation_sparse_probing import SaeProbesConfig

MODULE = "sae_probes"
FOLDER, MASTER = "data/cleaned_data", "data/probing_datasets_MASTER.csv.zst"
"""In that module: a file for each task, and the list of them."""
BINARY = "Binary Classification"
"""What the list calls tasks of two labels."""
SELECTION = (
    "5_hist_fig_ismale",
    "65_high-school",
    "87_glue_cola",
    "92_glue_sst2",
    "105_click_bait",
    "159_code_Python",
)
"""Names, a pair of words, grammar, sentiment, style, programming language."""
ALL = "all"
ENDINGS = (".csv", ".csv.zst")
INSTALL = "pip install --no-deps sae-probes zstandard"


class Labelled(NamedTuple):
    """One task's prompts."""

    name: str
    positive: str
    """The target that counts as true: of the two the larger number, or the later word."""
    prompts: list[str]
    labels: NDArray[np.bool_]
    """``[N]``"""


def missing(config: SaeProbesConfig) -> str | None:
    """What has to be installed before the prompts can be read, in a sentence; None: nothing."""
    if config.data is None and _module() is None:
        return (
            f"the package sae-probes, whose labelled prompts it reads, is not installed: {INSTALL}; "
            "prompts of your own are read from a folder, with the option data"
        )
    compressed = config.data is None or any(_folder(config).glob("*.zst"))
    if compressed and importlib.util.find_spec("zstandard") is None:
        return "zstandard, which opens .csv.zst files, is not installed: pip install zstandard"
    return None


def labelled_prompts(config: SaeProbesConfig) -> list[Labelled]:
    """Every task that the options choose, in their order.

    Raises:
        ConfigError: if there is no such task.
        DataError: if a folder or a file is none of labelled prompts.
    """
    files = _files(_folder(config))
    names = tuple(files) if config.data is not None else SELECTION
    if config.tasks == (ALL,):
        names = tuple(files) if config.data is not None else _binary()
    elif config.tasks is not None:
        names = tuple(dict.fromkeys(config.tasks))
    for name in names:
        if name not in files:
            raise ConfigError(
                f"there is no task {name!r}{did_you_mean(name, list(files))}",
                where="sae-probes: tasks",
                allowed=f"names of the files in {_folder(config)} without .csv, or {ALL} alone",
            )
    return [read(name, files[name]) for name in names]


def read(name: str, path: pathlib.Path) -> Labelled:
    """A file's prompts.

    Raises:
        DataError: if it has no columns ``prompt`` and ``target``, or not two different targets.
    """
    prompts, targets = [], []
    for line, row in _rows(path, ("prompt", "target")):
        if not row["target"].strip():
            raise DataError(f"the row that ends in line {line} has no target", where=str(path))
        prompts.append(row["prompt"])
        targets.append(row["target"].strip())
    found = _ordered(set(targets))
    if len(found) != 2:
        shown = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
        raise DataError(
            f"the column target has {len(found)} different values ({shown})",
            where=str(path),
            allowed="two, such as 0 and 1",
            next="a property with several values is several tasks, one file each: this value, or another one",
        )
    return Labelled(name, found[1], prompts, np.array([target == found[1] for target in targets]))


def _ordered(targets: set[str]) -> list[str]:
    """As numbers where all are, else as words."""
    try:
        return sorted(targets, key=float)
    except ValueError:
        return sorted(targets)


def _module() -> pathlib.Path | None:
    """Where the installed package lies, which is not imported: it would want SAELens and more."""
    spec = importlib.util.find_spec(MODULE)
    places = None if spec is None else spec.submodule_search_locations
    return pathlib.Path(next(iter(places))) if places else None


def _folder(config: SaeProbesConfig) -> pathlib.Path:
    if config.data is not None:
        return pathlib.Path(config.data).expanduser()
    module = _module()
    assert module is not None  # as ``missing`` says before
    return module / FOLDER


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name -> file, in the order of names."""
    if not folder.is_dir():
        raise DataError(
            "there is no such folder", where=str(folder), allowed="a folder of .csv or .csv.zst files"
        )
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix(".zst").removesuffix(".csv")
        if not path.name.endswith(ENDINGS):
            continue
        if name in found:
            raise DataError(f"{name} is there twice: {found[name].name}, {path.name}", where=str(folder))
        found[name] = path
    if not found:
        raise DataError("it holds no .csv and no .csv.zst file", where=str(folder), allowed="a file a task")
    return found


def _binary() -> tuple[str, ...]:
    """The package's tasks of two labels, by its own list."""
    module = _module()
    assert module is not None  # as ``missing`` says before
    rows = _rows(module / MASTER, ("Data type", "Dataset save name"))
    names = [row["Dataset save name"] for _, row in rows if row["Data type"] == BINARY]
    return tuple(name.rpartition("/")[2].removesuffix(".csv") for name in names)


def _rows(path: pathlib.Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line in which each row ends, and its cells by column."""
    with _opened(path) as file:
        reader = csv.DictReader(file)
        found = reader.fieldnames or []
        if lacking := [column for column in columns if column not in found]:
            raise DataError(
                f"it has no column {' and no column '.join(lacking)}; its first line is {','.join(found)!r}",
                where=str(path),
                allowed=f"columns {' and '.join(columns)}, named in the first line; others are not read",
            )
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"the row that ends in line {reader.line_num} has not {len(found)} cells",
                    where=str(path),
                    next='put a prompt that has commas, quotes or line breaks between quotes: "a, ""b"""',
                )
            yield reader.line_num, row


@contextmanager
def _opened(path: pathlib.Path) -> Iterator[io.TextIOBase]:
    """Its text; what cannot be read becomes a DataError."""
    broken: tuple[type[Exception], ...] = (csv.Error, UnicodeDecodeError, OSError)
    try:
        if path.suffix == ".zst":
            import zstandard

            broken = (*broken, zstandard.ZstdError)
            with zstandard.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except QsaeError:
        raise
    except broken as error:
        allowed = "a CSV file in UTF-8, or one compressed with zstd"
        raise DataError(f"it cannot be read: {error}", where=str(path), allowed=allowed) from error
