"""``qsae runs``: the runs in a results folder."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from qsae_cli.output import json_option, print_json, print_table


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
    """List the runs in a results folder, and where their coders are."""
    from qsae_core.errors import QsaeError
    from qsae_core.results import find_runs

    if not out.is_dir():
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


def _describe(run: Any) -> dict[str, Any]:
    """What the run's own files say; nothing is read from paths."""
    from qsae_core.files import read_json

    record = run.record()
    summary = read_json(run.metrics_file) if run.metrics_file.exists() else None
    return {
        "path": str(run.path),
        "status": record.get("status"),
        "started_at": record.get("started_at"),
        "completed_at": record.get("completed_at"),
        "sae": record.get("sae", {}).get("use"),
        "transcoder": record.get("transcoder", {}).get("use"),
        "quantizer": record.get("quantizer", {}).get("use"),
        "artifact": str(run.final) if run.final.is_dir() else None,
        "coders": summary["coders"] if summary else None,
    }


def _row(entry: dict[str, Any]) -> list[Any]:
    from qsae_core.results import values_of

    coder = entry["sae"] or entry["transcoder"]
    label = f"{coder} ({entry['quantizer']})" if entry["quantizer"] else coder
    if not entry["coders"]:
        return [entry["path"], entry["status"], label, None, None, None, entry["completed_at"]]
    main = entry["coders"]["coder"]
    values = values_of(main)
    fvu, l0 = values.get("fvu"), values.get("l0")
    return [
        entry["path"],
        entry["status"],
        label,
        None if fvu is None else f"{fvu:.4f}",
        None if l0 is None else f"{l0:.1f}",
        f"{main['artifact']['bytes']:,}",
        entry["completed_at"],
    ]
