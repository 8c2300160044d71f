"""``qsae runs``: the runs in a results folder."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.output import json_option, print_json, print_table
from qsae_core.errors import QsaeError
from qsae_core.kinds import QUANTIZER_SLOTS
from qsae_core.launched import is_gone
from qsae_core.results.words import coder_label

if TYPE_CHECKING:
    from qsae_core.results.run import Run

KEYS = (
    "path",
    "status",
    "started_at",
    "completed_at",
    "sae",
    "transcoder",
    *QUANTIZER_SLOTS,
    "artifact",
    "coders",
)
"""Of a run in ``--json``."""

STATUS_WIDTH = 40
"""Characters of a status in the table; it may end with an error's whole message."""


@click.command()
@click.option(
    "--out",
    default="results",
    show_default=True,
    type=click.Path(path_type=pathlib.Path),
    help="Results folder.",
)
@json_option
def runs(out: pathlib.Path, as_json: bool) -> None:
    """List the runs in a results folder, and where their coders are; and coders there that are in no run, as
    `qsae import` writes them.

    One whose files cannot be read is listed as damaged; a line on stderr says why.
    """
    from qsae_core.artifact.places import find_alone
    from qsae_core.results.run import find_runs

    if not os.path.isdir(out):  # pathlib's raises where a name is too long
        raise QsaeError(
            "there is no such results folder", where=str(out), next="qsae train --sae NAME, or --out DIR"
        )
    found = [_describe(run) for run in find_runs(out)]
    found += [_describe_alone(folder) for folder in find_alone(out)]
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"no runs in {out}")
    else:
        columns = ["run", "status", "coder", "FVU>", "L0>", "bytes>", "completed"]
        print_table(columns, [_row(entry) for entry in found])


def _describe(run: Run) -> dict[str, Any]:
    """What the run's own files say; nothing is read from paths.

    Its status is ``damaged`` where one of them cannot be read, and a note says why.
    """
    entry = {"path": str(run.path), "artifact": str(run.final) if run.final.is_dir() else None}
    read = {run.config_file: lambda: _recorded(run), run.metrics_file: lambda: _measured(run)}
    return _read(entry, read, "run")


def _describe_alone(folder: pathlib.Path) -> dict[str, Any]:
    """The same of a coder that is in no run, from what lies beside it."""
    entry = {"path": str(folder), "artifact": str(folder)}
    return _read(entry, {folder: lambda: _stored(folder)}, "coder")


def _read(
    entry: dict[str, Any], read: Mapping[pathlib.Path, Callable[[], dict[str, Any]]], what: str
) -> dict[str, Any]:
    """With what its files hold; damaged where one cannot be read."""
    entry = dict.fromkeys(KEYS) | entry
    for file, values in read.items():
        fault = None
        try:
            found = values()
            json.dumps(found, allow_nan=False)
            entry |= found
        except QsaeError as error:
            fault = error.what
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            fault = f"does not hold what qsae writes there ({type(error).__name__}: {error})"
        if fault is not None:
            entry["status"] = "damaged"
            click.echo(f"qsae: note: {file}: {fault}; the {what} is listed as damaged", err=True)
    return entry


def _slots(record: Mapping[str, Any]) -> dict[str, Any]:
    return {slot: record[slot]["use"] for slot in ("sae", "transcoder", *QUANTIZER_SLOTS) if slot in record}


def _stored(folder: pathlib.Path) -> dict[str, Any]:
    """From ``coder.json``, and from what ``qsae evaluate`` left beside it."""
    from qsae_core.artifact.places import bytes_of, stored_description
    from qsae_core.evaluation.fuller import RESULT
    from qsae_core.results.files import read_json
    from qsae_core.results.run import Run

    description = stored_description(folder)
    results = sorted(Run(folder).evaluations.glob(f"*/{RESULT}"))
    evaluations = {file.parent.name: read_json(file)["values"] for file in results}
    coder = {"artifact": {"bytes": bytes_of(folder)}, "evaluations": evaluations}
    _numbers(coder)
    status = "imported" if "imported_from" in description["source"] else "stored"
    return {**_slots(description["config"]), "status": status, "coders": {"coder": coder}}


def _recorded(run: Run) -> dict[str, Any]:
    """From ``config.json``."""
    record = run.record()
    slots = _slots(record)
    status = record["status"]
    if not isinstance(status, str) or not slots.keys() & {"sae", "transcoder"}:
        raise ValueError("neither an SAE nor a transcoder, or no status")
    if status == "running" and "process" in record and is_gone(record["process"]):
        status = "lost: its process is gone"
    return {**slots, "status": status, **{key: record.get(key) for key in ("started_at", "completed_at")}}


def _measured(run: Run) -> dict[str, Any]:
    """From ``metrics.json``, which a run that goes on has not."""
    from qsae_core.results.files import read_json

    if not run.metrics_file.exists():
        return {}
    coders = read_json(run.metrics_file)["coders"]
    _numbers(coders["coder"])
    return {"coders": coders}


def _row(entry: dict[str, Any]) -> list[Any]:
    coder = entry["sae"] or entry["transcoder"]
    used = {slot: entry[slot] for slot in QUANTIZER_SLOTS if entry[slot]}
    label = coder_label(coder, used) if coder else None
    numbers = _numbers(entry["coders"]["coder"]) if entry["coders"] else [None, None, None]
    status = entry["status"]
    status = status if len(status) <= STATUS_WIDTH else f"{status[: STATUS_WIDTH - 3]}..."
    return [entry["path"], status, label, *numbers, entry["completed_at"]]


def _numbers(coder: dict[str, Any]) -> list[str | None]:
    """FVU, L0 and bytes of a coder's entry, as the table shows them."""
    from qsae_core.results.run import values_of

    values = values_of(coder)
    fvu, l0 = values.get("fvu"), values.get("l0")
    return [
        None if fvu is None else f"{fvu:.4f}",
        None if l0 is None else f"{l0:.1f}",
        f"{coder['artifact']['bytes']:,}",
    ]
