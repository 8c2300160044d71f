"""``qsae saebench PATH --out DIR``: stored evaluations as the result files of SAEBench."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import click

from qsae_cli.commands import json_option, print_json, print_table

READ_AS = ("tpp", "scr", "absorption", "autointerp", "sparse_probing", "unlearning", "core")
"""By the first of these words that is somewhere in a file's path, SAEBench's plots tell what it holds."""


@click.command("saebench")
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--out",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    required=True,
    help="Folder that gets core/, absorption/, sparse_probing/ and sparse_probing_sae_probes/.",
)
@click.option(
    "--evaluations",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Where qsae evaluate --out kept them.  [default: those of the run]",
)
@click.option("--release", help="What the SAE is called, first part.  [default: the run's name]")
@click.option(
    "--architecture",
    help="By what plots group it.  [default: coder and quantizer, as topk (ste)]",
)
@json_option
def saebench(
    path: pathlib.Path,
    out: pathlib.Path,
    evaluations: pathlib.Path | None,
    release: str | None,
    architecture: str | None,
    as_json: bool,
) -> None:
    """Write what is stored of the coder at PATH in the layout of SAEBench 0.6.0: one file an evaluation, all
    of one name.

    PATH is a run's folder, or that of a coder in it (checkpoints/float_twin). Of a run with a coder for each
    layer, each has its files. core needs the evaluations reconstruction, loss-recovered, sparsity and
    similarity; absorption, sparse-probing and sae-probes are written where they are stored.
    """
    from qsae_saebench.results import stored_coders

    written: list[dict[str, Any]] = []
    left_out: list[str] = []
    for stored in stored_coders(path, evaluations, release):
        documents, sentences = _documents(stored)
        left_out += [sentence for sentence in sentences if sentence not in left_out]  # layers say the same
        for document in documents:
            file = out / document.folder / stored.file_name
            _write(file, document.content(stored, architecture))
            written.append({"evaluation": document.type_id, "file": str(file), "null": document.undefined()})
            _warn(file, document.folder)
    if as_json:
        print_json({"written": written, "left_out": left_out})
        return
    rows = [(entry["evaluation"], entry["file"], ", ".join(entry["null"]) or None) for entry in written]
    print_table(("evaluation", "file", "null"), rows)
    for sentence in left_out:
        click.echo(sentence)


def _documents(stored: Any) -> tuple[list[Any], list[str]]:
    """The files of a coder, and why others are not written."""
    from qsae_saebench import absorption, core, sae_probes, sparse_probing

    others = (absorption.EVALUATION, sparse_probing.EVALUATION)
    documents, left_out = [core.core(stored, others)], []
    for name, make, refusal in (
        (absorption.EVALUATION, absorption.absorption, absorption.refusal),
        (sparse_probing.EVALUATION, sparse_probing.sparse_probing, None),
        (sae_probes.EVALUATION, sae_probes.sae_probes, sae_probes.refusal),
    ):
        found = stored.find(name)
        if found is None:
            left_out.append(f"{name}: not stored; {stored.evaluate_command([name])}")
        elif refusal is not None and (reason := refusal(found)) is not None:
            left_out.append(f"{name}: not written, as SAEBench would not; {reason}")
        else:
            documents.append(make(found))
    return documents, left_out


def _write(file: pathlib.Path, content: dict[str, Any]) -> None:
    from qsae_core.runs import atomic_file

    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _warn(file: pathlib.Path, own: str) -> None:
    """Where SAEBench's plots would take a file for another evaluation's."""
    word = next(word for word in READ_AS if word in str(file))
    if not own.startswith(word):  # of sparse_probing_sae_probes they know the beginning
        click.echo(
            f"qsae: warning: {file}: SAEBench's plots would take this for a file of {word!r}, since these "
            "letters are in its path; choose another --out or --release",
            err=True,
        )
