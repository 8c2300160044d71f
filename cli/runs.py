"""``qsae runs``: the runs in a results folder."""

from __future__ import annotations

import json
import os
import pathlib
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
    """List the runs in a results folder, and where their coders are.

    A run whose config.json or metrics.json cannot be read is listed as damaged; a line on stderr says why.
    """
    from qsae_core.results.run import find_runs

    if not os.path.isdir(out):  # pathlib's raises where a name is too long
        raise QsaeError(
            "there is no such results folder", where=str(out), next="qsae train --sae NAME, or --out DIR"
        )
    found = [_describe(run) for run in find_runs(out)]
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
    entry: dict[str, Any] = dict.fromkeys(KEYS)
    entry |= {"path": str(run.path), "artifact": str(run.final) if run.final.is_dir() else None}
    for file, read in ((run.config_file, _recorded), (run.metrics_file, _measured)):
        fault = None
        try:
            found = read(run)
            json.dumps(found, allow_nan=False)
            entry |= found
        except QsaeError as error:
            fault = error.what
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            fault = f"does not hold what qsae writes there ({type(error).__name__}: {error})"
        if fault is not None:
            entry["status"] = "damaged"
            click.echo(f"qsae: note: {file}: {fault}; the run is listed as damaged", err=True)
    return entry


def _recorded(run: Run) -> dict[str, Any]:
    """From ``config.json``."""
    record = run.record()
    slots: dict[str, Any] = {
        slot: record[slot]["use"] for slot in ("sae", "transcoder", *QUANTIZER_SLOTS) if slot in record
    }
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
