"""``qsae check``: the conformance checks on an installed plugin."""

from __future__ import annotations

from typing import Any

import click

from qsae_cli.output import json_option, print_json, print_table


@click.command()
@click.argument("dist")
@json_option
def check(dist: str, as_json: bool) -> None:
    """Run the conformance checks on the installed plugin DIST, and exit with 1 if one fails.

    A check that has nothing to say about a component is skipped, with the reason.
    """
    from qsae_core.conformance import CheckFailure, checks_for  # imports torch

    results: list[dict[str, Any]] = []
    for one in checks_for(dist):
        try:
            reason = one.run()
            result = "skip" if reason else "pass"
        except CheckFailure as failure:
            result, reason = "fail", str(failure)
        results.append({"id": one.id, "result": result, "reason": reason, "checks": one.description})
    failed = sum(entry["result"] == "fail" for entry in results)
    if as_json:
        print_json(results)
    else:
        shown = {"fail": "FAIL"}
        rows = [(e["id"], shown.get(e["result"], e["result"]), e["reason"] or e["checks"]) for e in results]
        print_table(("check", "result", "what"), rows)
        click.echo(f"\n{dist}: {len(results)} checks, {failed} failed")
    if failed:
        raise click.exceptions.Exit(1)
