"""What an evaluation found, on disk: one folder an evaluation, readable without knowing it.

result.json            values, chance, baseline, uncertainty; why values are missing, if they are; how it
                       was measured, where a reader has to know; the definition's version and options; what
                       was evaluated on what; the names of columns and tables
latents.safetensors    the columns with a value per latent, float32 [F], where there are any
NAME.csv               each table
FILE                   whatever else it writes itself
"""

from __future__ import annotations

import csv
import json
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qsae_core.contracts.evaluation import Cell, Result, Table
from qsae_core.errors import ArtifactError, PluginError
from qsae_core.results.files import atomic_folder, read_json, write_json

RESULT, LATENTS = "result.json", "latents.safetensors"
SCALARS = ("values", "chance", "baseline", "uncertainty")
NAMES = ("per_latent", "tables", "files")
"""Kinds of findings of which ``result.json`` has the names alone."""
END = ("reason", "failed", "how")
TEXTS = "text_columns"
"""Of each table, the columns of text alone: a label ``1.50`` is no number."""
LONE = "backslashreplace"
"""What becomes of a surrogate without its other half, which no UTF-8 file can hold."""
LONGEST_CELL = 2**31 - 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def save_result(folder: pathlib.Path, result: Result, about: Mapping[str, Any]) -> None:
    """Write a result; an older one at that place is replaced once the new one is complete.

    Args:
        about: JSON values: which evaluation in which version with which options, of what, on what.

    Raises:
        PluginError: if a name cannot be a file's, or a chance level, baseline or uncertainty has no value.
    """
    check_result(result, str(about.get("evaluation", folder.name)))
    with atomic_folder(folder) as made:
        if result.per_latent:
            columns = {name: _column(tensor) for name, tensor in result.per_latent.items()}
            save_file(columns, made / LATENTS)
        for name, table in result.tables.items():
            with (made / f"{name}.csv").open("w", encoding="utf-8", errors=LONE, newline="") as file:
                writer = csv.writer(file)
                writer.writerow(table.columns)
                writer.writerows(["" if cell is None else cell for cell in row] for row in table.rows)
        scalars = {key: dict(getattr(result, key)) for key in SCALARS}
        for name, write in result.files.items():
            write(made / name)
        names = {key: sorted(getattr(result, key)) for key in NAMES}
        texts = {TEXTS: {name: _text_columns(table) for name, table in result.tables.items()}}
        end = {key: getattr(result, key) for key in END}
        write_json(made / RESULT, {**about, **scalars, **names, **texts, **end})


def _column(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def check_result(result: Result, evaluation: str) -> None:
    """Refuse a result that cannot be stored or read without knowing the evaluation.

    Raises:
        PluginError: which names the evaluation and what is wrong.
    """
    taken = {RESULT, LATENTS, *(f"{name}.csv" for name in result.tables)}
    for name in sorted(taken & result.files.keys()):
        raise PluginError(f"evaluation '{evaluation}': a file is named {name!r}, which another one is")
    for kind, names in (("table", result.tables), ("column", result.per_latent), ("file", result.files)):
        for name in names:
            if not NAME.fullmatch(name):
                raise PluginError(
                    f"evaluation '{evaluation}': a {kind} is named {name!r}",
                    allowed="letters, digits, dashes, dots and underscores",
                )
    for key in SCALARS[1:]:
        strangers = sorted(getattr(result, key).keys() - result.values.keys())
        if strangers:
            raise PluginError(f"evaluation '{evaluation}': {key} of {strangers[0]!r}, which is no value")
    for name, table in result.tables.items():
        wrong = next((row for row in table.rows if len(row) != len(table.columns)), None)
        if wrong is not None or len(set(table.columns)) != len(table.columns):
            raise PluginError(f"evaluation '{evaluation}': a row of table {name!r} does not fit its columns")
    sizes = {tuple(tensor.shape) for tensor in result.per_latent.values()}
    if len(sizes) > 1 or any(len(size) != 1 for size in sizes):
        raise PluginError(
            f"evaluation '{evaluation}': columns per latent have the shapes {sorted(sizes)}",
            allowed="[n_latents] for each",
        )


def load_result(folder: pathlib.Path) -> tuple[Result, dict[str, Any]]:
    """A stored result, and what is said about it, names of ``files`` included. Cells of tables are numbers
    where they read as such, but for columns that were text alone.

    Raises:
        ArtifactError: if it is not there, or was damaged.
    """
    record = read_json(folder / RESULT)
    try:
        columns = load_file(folder / LATENTS) if record["per_latent"] else {}
        texts = record.get(TEXTS) or {}
        tables = {
            name: _read_table(folder / f"{name}.csv", set(texts.get(name, ()))) for name in record["tables"]
        }
        scalars = {key: record[key] for key in SCALARS}
        end = {key: record.get(key) for key in END} | {"failed": bool(record.get("failed"))}
    except (
        AttributeError,
        KeyError,
        OSError,
        StopIteration,
        SafetensorError,
        TypeError,
        ValueError,
        csv.Error,
    ) as error:
        raise ArtifactError(
            f"does not hold a whole result ({type(error).__name__}: {error})",
            where=str(folder),
            next="qsae evaluate writes it again",
        ) from error
    about = {key: value for key, value in record.items() if key not in (*SCALARS, *NAMES[:2], TEXTS, *END)}
    return Result(**scalars, per_latent=columns, tables=tables, **end), about


def load_results(folder: pathlib.Path) -> dict[str, Result]:
    """Evaluation -> what is stored of it below a folder; empty where nothing is.

    Raises:
        ArtifactError: if one was damaged.
    """
    return {file.parent.name: load_result(file.parent)[0] for file in sorted(folder.glob(f"*/{RESULT}"))}


def _text_columns(table: Table) -> list[str]:
    return [
        column
        for i, column in enumerate(table.columns)
        if all(isinstance(row[i], str | None) for row in table.rows)
    ]


def _read_table(file: pathlib.Path, texts: Collection[str]) -> Table:
    before = csv.field_size_limit(LONGEST_CELL)  # of the whole process
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.reader(lines)
            columns = tuple(next(reader))
            read = [(lambda text: text or None) if column in texts else _cell for column in columns]
            return Table(
                columns, [[cell(text) for cell, text in zip(read, row, strict=True)] for row in reader]
            )
    finally:
        csv.field_size_limit(before)


def _cell(text: str) -> Cell:
    try:
        value = json.loads(text) if text else None
    except ValueError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else (text or None)
