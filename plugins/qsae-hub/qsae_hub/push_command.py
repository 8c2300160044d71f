"""``qsae push RUN REPO``: a coder into a repository of the Hugging Face Hub."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import json_option, print_json, print_table
from qsae_hub.layout import PARTS

if TYPE_CHECKING:
    from qsae_hub.address import Address
    from qsae_hub.layout import Local
    from qsae_hub.push import Plan


@click.command("push")
@click.argument("path", metavar="RUN", type=click.Path(path_type=pathlib.Path))
@click.argument("repo", metavar="REPO")
@click.option("--path", "folder", default="", metavar="FOLDER", help="Folder in the repository: one a coder.")
@click.option(
    "--revision", metavar="BRANCH", help="Branch to commit to; made where there is none.  [default: main]"
)
@click.option("--message", metavar="TEXT", help="Of the commit.  [default: which coder it is]")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option(
    "--with",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Upload this too; may be given several times.",
)
@click.option("--license", metavar="ID", help="For the card's header, as the Hub calls it: mit, apache-2.0.")
@click.option(
    "--base-model",
    "base_models",
    multiple=True,
    metavar="ID",
    help="Name on the Hub of a model that was read locally.",
)
@click.option("--overwrite", is_flag=True, help="Put it in the place of another coder that is there.")
@click.option("--overwrite-card", is_flag=True, help="Write the card anew though it was changed by hand.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be uploaded, and upload nothing; without a network, of an empty repository.",
)
@json_option
def push(
    path: pathlib.Path,
    repo: str,
    folder: str,
    revision: str | None,
    message: str | None,
    private: bool,
    parts: tuple[str, ...],
    license: str | None,
    base_models: tuple[str, ...],
    overwrite: bool,
    overwrite_card: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upload the coder of RUN, a finished run's folder or a folder that qsae wrote, to REPO (USER/NAME) on
    the Hugging Face Hub: one commit.

    The packed coder, config.json, metrics.json and a model card made of these go there; other files of the
    run where --with names them. A repository that is not there is made. Log in first: hf auth login.
    """
    from qsae_hub.address import Address
    from qsae_hub.errors import pushing
    from qsae_hub.layout import check_loads, collect
    from qsae_hub.push import carry_out, plan_push

    address = Address.of(repo, revision, folder, where=repo)
    local = collect(path, parts)
    check_loads(local)
    with pushing():
        plan = plan_push(
            local,
            address,
            private=private,
            overwrite=overwrite,
            overwrite_card=overwrite_card,
            license=license,
            base_models=base_models,
            dry_run=dry_run,
        )
    shown = _shown(plan)
    if not as_json:
        _print_plan(plan, shown, local.left_out, private)
    commit = None
    if not dry_run and (plan.uploads or plan.removed):
        with pushing():
            commit = carry_out(plan, private=private, message=message or _message(local, address))
    if as_json:
        print_json(
            {"address": str(address), "commit": commit, "files": shown, "bytes": plan.bytes}
            | {"left_out": local.left_out, "notes": list(plan.notes)}
        )
        return
    nothing = "nothing was uploaded" + (": --dry-run" if dry_run else ", since it is all there already")
    load = "load" if "" in local.descriptions else "load_set"
    click.echo(f'{commit or nothing}\nload it: qsae_core.{load}("{address}")')


def _shown(plan: Plan) -> list[dict[str, Any]]:
    """Each file with its bytes, and what becomes of the repository's file of that name, if known."""
    from qsae_hub.layout import size_of

    before = plan.before.files if plan.before else {}
    found = []
    for path, content in plan.files.items():
        change = "unchanged" if path in plan.unchanged else "replaced" if path in before else "new"
        found.append({"path": path, "bytes": size_of(content), "change": change if plan.asked else None})
    return [*found, *({"path": path, "bytes": 0, "change": "removed"} for path in plan.removed)]


def _print_plan(plan: Plan, shown: list[dict[str, Any]], left_out: dict[str, int], private: bool) -> None:
    address = plan.address
    there = (
        "" if plan.before or not plan.asked else f", a new {'private' if private else 'public'} repository"
    )
    branch = address.revision or "main"
    made = ", a new branch" if plan.new_branch else ""
    click.echo(f"to {address.repo}{there}, branch {branch}{made}")
    rows = [[file["path"], f"{file['bytes']:,}", file["change"] or "?"] for file in shown]
    print_table(("file", "bytes>", ""), rows)
    click.echo(f"{len(plan.uploads)} files to upload, {plan.bytes:,} bytes")
    for part, size in left_out.items():
        click.echo(f"not uploaded: {part}, {size:,} bytes (--with {part})")
    for note in plan.notes:
        click.echo(f"qsae: note: {note}", err=True)


def _message(local: Local, address: Address) -> str:
    """What the commit is called where nothing else is said."""
    from qsae_hub.known import known

    label = known(address.path, local.record, local.metrics, local.descriptions).label
    return f"{label} with qsae" + (f" in {address.path}" if address.path else "")
