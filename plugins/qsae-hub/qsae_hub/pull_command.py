"""``qsae pull REPO``: a coder from a repository of the Hugging Face Hub."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import click

from qsae_cli.commands import json_option, print_json
from qsae_hub.layout import PARTS

if TYPE_CHECKING:
    from qsae_hub.address import Address


@click.command("pull")
@click.argument("repo", metavar="REPO")
@click.option("--path", "folder", metavar="FOLDER", help="The coder's folder in the repository.")
@click.option("--revision", metavar="NAME", help="A branch, a tag or a commit.  [default: main]")
@click.option(
    "--out",
    type=click.Path(path_type=pathlib.Path),
    help="Folder to write.  [default: below results/, by the repository's name]",
)
@click.option(
    "--with",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Fetch this too; may be given several times.",
)
@click.option("--overwrite", is_flag=True, help="Replace a coder that is in the folder.")
@json_option
def pull(
    repo: str,
    folder: str | None,
    revision: str | None,
    out: pathlib.Path | None,
    parts: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fetch a coder that qsae push put into REPO (USER/NAME, or its address hf://USER/NAME@REVISION/FOLDER),
    and write it as a folder that every command takes like a run's.

    What was begun goes on when the same command is run again, and every file is compared with the Hub's
    checksum. HF_HUB_OFFLINE=1 takes what was fetched before.
    """
    from qsae_hub.pull import check_free, pull_into_cache, put, usual_folder

    address = _address(repo, folder, revision)
    if out is not None:
        check_free(out, overwrite)
    pulled = pull_into_cache(address, parts)
    place = out or usual_folder(address, pulled)
    check_free(place, overwrite)
    put(pulled, place, fresh=not place.exists())
    if as_json:
        files = {name: (pulled.folder / name).stat().st_size for name in pulled.files}
        print_json(
            {"address": str(address), "folder": str(place), "files": files, "left_out": pulled.left_out}
        )
        return
    click.echo(f"{len(pulled.files)} files, {pulled.bytes:,} bytes of {address}")
    for part, size in pulled.left_out.items():
        click.echo(f"not fetched: {part}, {size:,} bytes (--with {part})")
    click.echo(f"artifact: {place / 'checkpoints' / 'final'}")


def _address(repo: str, folder: str | None, revision: str | None) -> Address:
    """Of the arguments; an address says everything itself."""
    from qsae_hub.address import SCHEME, Address
    from qsae_hub.errors import HubError

    if not repo.startswith(SCHEME):
        return Address.of(repo, revision, folder or "", where=repo)
    if folder is not None or revision is not None:
        raise HubError(
            "an address has its folder and revision in it",
            where=repo,
            allowed=f"{SCHEME}USER/NAME@REVISION/FOLDER alone, or USER/NAME with --path and --revision",
        )
    return Address.parse(repo)
