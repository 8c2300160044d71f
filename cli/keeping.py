"""Where ``qsae evaluate`` keeps what is found, and which older results stay: said before it measures."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from qsae_core.errors import QsaeError
from qsae_core.evaluation.fuller import Stays, check_same_subject, fuller_ones
from qsae_core.evaluation.watch import Subject
from qsae_core.results.files import check_writable
from qsae_core.results.run import Run
from qsae_core.results.words import vectors_of

if TYPE_CHECKING:
    from qsae_core.evaluation.run import Evaluated
    from qsae_core.registry import Registry


class Keeping:
    """A folder for results, or none.

    Args:
        path: the coder, as it was given.
        out: where ``--out`` says; None: nowhere else than in the run.
        of_run: where the run keeps what is found on its own data; None: these are others.
        overwrite: whether a result of more tokens gives way to one of fewer.
    """

    def __init__(
        self, path: pathlib.Path, out: pathlib.Path | None, of_run: pathlib.Path | None, overwrite: bool
    ) -> None:
        self.path, self.out, self.overwrite = path, out, overwrite
        self.folder = out or of_run
        self.stays: list[Stays] = []
        self.fault: QsaeError | None = None
        """Why something could not be kept."""
        self._is_other_data = False

    def begins(self, subject: Subject) -> None:
        """Say what is evaluated on what, where it is kept, and what stays.

        Raises:
            ConfigError: if what is there is of another coder or other data.
        """
        level = "" if subject.level is None else f", level {subject.level}"
        click.echo(f"evaluating {subject.folder}{level}: {subject.n_latents:,} latents", err=True)
        more = ", in whole contexts, so a few more" if subject.in_contexts else ""
        click.echo(
            f"on {subject.n_tokens:,} tokens{more}, of {subject.measured['what']}: vectors of "
            + vectors_of({"model": subject.model, "layer": subject.layer}),
            err=True,
        )
        if self.folder is not None and self.out is None and subject.is_other_data:
            self.folder, self._is_other_data = None, True
        if self.folder is None:
            click.echo(
                f"what is found is printed and not kept, {self._why(subject.level)}; --out DIR keeps it",
                err=True,
            )
            return
        check_writable(self.folder)
        if self.out is not None:
            self._check(subject)
        click.echo(f"what is found is kept in {self.folder}", err=True)
        if not self.overwrite:
            fuller = fuller_ones(self.folder, subject.evaluations, subject.n_tokens)
            self._echo(fuller, subject.n_tokens, err=True)

    def store(self, found: Evaluated, registry: Registry, *below: str) -> None:
        """Keep all that was found of a coder, in a folder of that name below, unless more is there. What
        cannot be kept is shown all the same: ``fault`` says why."""
        from qsae_core.evaluation.kept import store_evaluated

        if self.folder is not None:
            folder = self.folder.joinpath(*below)
            try:
                self.stays += store_evaluated(found, folder, registry, overwrite=self.overwrite)
            except QsaeError as error:
                self.fault = self.fault or error

    @property
    def kept(self) -> pathlib.Path | None:
        """Where all is that was found; None where some could not be kept, or nothing was to be."""
        return None if self.fault is not None else self.folder

    @property
    def unkept(self) -> set[str]:
        """Evaluations of the coder itself of which an older result is in the folder, and stays."""
        return {one.evaluation for one in self.stays if one.place.parent == self.folder}

    def closing(self, n_tokens: int | None) -> None:
        """Where it is now, and what did not go there."""
        if self.folder is None:
            click.echo("not kept: --out DIR keeps all of it")
            return
        if self.fault is not None:
            return
        click.echo(f"kept in {self.folder}")
        self._echo(self.stays, n_tokens, err=False)

    def _check(self, subject: Subject) -> None:
        from qsae_core.evaluation.kept import stored_coder

        assert self.folder is not None
        about = {**stored_coder(subject.folder), "level": subject.level, "model": subject.model}
        about |= {"layer": subject.layer, "measured": subject.measured}
        check_same_subject(self.folder, about, subject.evaluations if self.overwrite else ())

    def _why(self, level: int | None) -> str:
        if level is not None:
            return "since it is of one level"
        if not Run(self.path).config_file.is_file():
            from qsae_core.artifact.places import stands_alone

            if stands_alone(self.path):
                return "since this is not the data that is recorded for it"
            return f"since {self.path} is no run's folder"
        if self._is_other_data:
            return "since the run was not trained on this, though it is where its data was"
        return "since these are not the run's own data"

    def _echo(self, stays: Sequence[Stays], n_tokens: int | None, *, err: bool) -> None:
        """A sentence for all that stay since more was measured, and one for those that failed now."""
        fuller = _named([one for one in stays if not one.failed])
        now = "" if n_tokens is None else f", of {n_tokens:,},"
        if fuller:
            text = f"results of more tokens stay where they are: {fuller}; --overwrite puts these{now} there"
            click.echo(text, err=err)
        failed = _named([one for one in stays if one.failed])
        if failed:
            click.echo(f"older results stay, since these failed: {failed}; --overwrite removes them", err=err)


def _named(stays: Sequence[Stays]) -> str:
    """``reconstruction, sparsity (32,768)``: by how many tokens were asked for."""
    by_tokens: dict[int, dict[str, None]] = {}
    for one in stays:
        by_tokens.setdefault(one.n_tokens, {})[one.evaluation] = None
    return "; ".join(f"{', '.join(names)} ({n:,})" for n, names in by_tokens.items())
