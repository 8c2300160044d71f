"""Rules for other libraries' checkpoint formats."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Literal

import torch

from qsae_core.artifact.composed import compose_checkpoint
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder_dense import ROUNDING, expect_same_function
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.toy_forms import damages, files, foreign, forms, pickles, provenance, vectors
from qsae_core.conformance.verdicts import CheckFailure, NotApplicable, expect, expect_equal
from qsae_core.contracts.cross_layer import Form
from qsae_core.contracts.dense import DTYPES, DenseForm
from qsae_core.contracts.format import Checkpoint, CheckpointFormat
from qsae_core.errors import ArtifactError, PluginError, QsaeError

RULES = Rules()


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, subject.construct)


@RULES.each_case("recognizes", "recognizes gives False for what is no checkpoint, and raises nothing.")
def _recognizes(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    with tempfile.TemporaryDirectory() as folder:
        for what, path in foreign(pathlib.Path(folder)).items():
            answer = form.recognizes(path)
            expect(answer is False, f"recognizes gives {answer!r} for {what}.")


@RULES.each_case("refuses", "read refuses what is no checkpoint with a QsaeError.")
def _refuses(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    with tempfile.TemporaryDirectory() as folder:
        for what, path in foreign(pathlib.Path(folder)).items():
            try:
                form.read(path)
            except QsaeError:
                continue
            raise CheckFailure(f"read accepted {what}.")


@RULES.each_case(
    "round-trip", "what write wrote is recognized, and read gives what computes the same codes and outputs."
)
def _round_trip(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    for name, wanted, path in _written(form):
        before = {field: tensor.clone() for field, tensor in wanted.tensors().items()}
        expect(form.recognizes(path) is True, f"it does not recognize the {name} that it wrote.")
        checkpoint = form.read(path)
        for field, tensor in wanted.tensors().items():
            expect_equal(tensor, before[field], f"{field} of the {name} that was written")
        checkpoint.form.validate(f"the {name} that it read")
        expect_same_form(checkpoint.form, wanted, f"the {name} that it read")
        _expect_composed(subject, checkpoint, wanted, name)


def expect_same_form(actual: Form, wanted: Form, what: str) -> None:
    """Fail unless two forms give the same codes and reconstructions."""
    expect(type(actual) is type(wanted), f"{what} is a {type(actual).__name__}.")
    x = vectors(wanted)
    x = x.flatten(1) if isinstance(wanted, DenseForm) else x
    for part, a, b in (
        ("codes", actual.encode(x), wanted.encode(x)),
        ("reconstructions", actual.reconstruct(x), wanted.reconstruct(x)),
    ):
        expect(a.shape == b.shape, f"{what} gives {part} of the shape {list(a.shape)}.")
        error = (a - b).abs().max().item()
        expect(error <= ROUNDING * b.abs().max().item(), f"{what} gives {part} that are off by {error:.3g}.")


def _expect_composed(subject: Subject, checkpoint: Checkpoint, wanted: Form, name: str) -> None:
    """Fail unless the coder of installed components does the same; where some are not installed, go on."""
    if subject.registry is None:
        return
    try:
        coder = compose_checkpoint(checkpoint, subject.registry, name)
    except (ArtifactError, PluginError):
        return  # what is installed may have no place for a variant
    expect_same_function(coder, wanted, vectors(wanted).float(), f"the coder composed from the {name}")


@RULES.each_case(
    "writes-again", "what was read and is unchanged is written as the same files, byte for byte."
)
def _writes_again(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    for name, toy, path in _written(form):
        for dtype in DTYPES:
            first, second = (path.parent / which / str(dtype) / path.name for which in ("first", "second"))
            for folder in (first.parent, second.parent):
                folder.mkdir(parents=True)
            try:
                form.write(Checkpoint(toy.in_dtypes(dtype), _kind(toy), provenance(toy)), first)
            except ArtifactError as error:
                expect(dtype is not torch.float32, f"it refuses the {name} in float32: {error}")
                continue  # its files have no such type
            form.write(form.read(first), second)
            names = [file.relative_to(first) for file in files(first)]
            expect(
                names == [file.relative_to(second) for file in files(second)], f"other files for the {name}."
            )
            for file in names:
                same = (first / file).read_bytes() == (second / file).read_bytes()
                expect(same, f"{file} of the {name} ({dtype}), read and written again, has other bytes.")


@RULES.each_case("damaged", "read refuses a truncated or overwritten file with a QsaeError.")
def _damaged(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    for name, wanted, path in _written(form):
        for file in files(path):
            for what in damages(file):
                try:
                    read = form.read(path)
                except QsaeError:
                    continue
                expect_same_form(read.form, wanted, f"the {name}, read with {what},")


@RULES.each_case("never-unpickles", "recognizes and read unpickle nothing.")
def _never_unpickles(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    with tempfile.TemporaryDirectory() as folder:
        trap = pathlib.Path(folder) / "unpickled"
        places = [pathlib.Path(folder) / name for name in ("ae.pt", "model.bin", "params.npz")]
        for data in pickles(trap):
            for place in places:
                place.write_bytes(data)
                _try(form, place, place, trap)
        for _, _, path in itertools.islice(_written(form), 1):
            for file in files(path):
                whole = file.read_bytes()
                for data in pickles(trap):
                    file.write_bytes(data)
                    _try(form, path, file, trap)
                file.write_bytes(whole)


def _try(form: CheckpointFormat, path: pathlib.Path, file: pathlib.Path, trap: pathlib.Path) -> None:
    with contextlib.suppress(Exception):  # 'refuses' and 'damaged' say what may be raised
        form.recognizes(path)
    with contextlib.suppress(Exception):
        form.read(path)
    expect(not trap.exists(), f"it unpickled {file.name}.")


def _kind(form: Form) -> Literal["sae", "transcoder"]:
    if not isinstance(form, DenseForm) or form.W_skip is not None:
        return "transcoder"
    return "sae" if form.W_enc.shape[1] == form.W_dec.shape[1] else "transcoder"


def written_forms(form: CheckpointFormat, folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """(name, path) of every toy form that a format has a place for, each written below a folder."""
    for number, (name, toy) in enumerate(forms().items()):
        path = folder / str(number) / "checkpoint"
        path.parent.mkdir(parents=True)
        with contextlib.suppress(QsaeError):
            form.write(Checkpoint(toy, _kind(toy), provenance(toy)), path)
            yield name, path


def _written(form: CheckpointFormat) -> Iterator[tuple[str, Form, pathlib.Path]]:
    """(name, form, path) of every toy form that the format has a place for.

    Raises:
        NotApplicable: at the end, if there is none.
    """
    written = 0
    for name, toy in forms().items():
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = pathlib.Path(folder) / "checkpoint"
            try:
                form.write(Checkpoint(toy, _kind(toy), provenance(toy)), path)
            except QsaeError:
                continue
            written += 1
            yield name, toy, path
    if not written:
        raise NotApplicable("it writes none of the variants that there are")
