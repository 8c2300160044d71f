"""Rules for other libraries' checkpoint formats."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import torch

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.component import ComponentSpec
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder_samples import Variant, built, data_of
from qsae_core.conformance.data_source import expect_close
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    CheckFailure,
    NotApplicable,
    copy_of_state,
    expect,
    expect_same_state,
)
from qsae_core.contracts.format import CheckpointFormat
from qsae_core.errors import QsaeError
from qsae_core.kinds import CODER_SLOTS

RULES = Rules()


def _foreign(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name -> path of things that are no checkpoint of any library."""
    (folder / "empty").mkdir()
    (folder / "text").mkdir()
    (folder / "text" / "cfg.json").write_text("[1, 2", encoding="utf-8")
    (folder / "notes.txt").write_text("no checkpoint", encoding="utf-8")
    (folder / "zero.safetensors").write_bytes(b"")
    return {
        "an empty folder": folder / "empty",
        "a folder with a broken cfg.json": folder / "text",
        "a text file": folder / "notes.txt",
        "an empty file": folder / "zero.safetensors",
        "a path where nothing is": folder / "nothing",
    }


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, subject.construct)


@RULES.each_case("recognizes", "recognizes gives False for what is no checkpoint, and raises nothing.")
def _recognizes(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    with tempfile.TemporaryDirectory() as folder:
        for what, path in _foreign(pathlib.Path(folder)).items():
            answer = form.recognizes(path)
            expect(answer is False, f"recognizes gives {answer!r} for {what}.")


@RULES.each_case("refuses", "read refuses what is no checkpoint with a QsaeError.")
def _refuses(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    with tempfile.TemporaryDirectory() as folder:
        for what, path in _foreign(pathlib.Path(folder)).items():
            try:
                form.read(path)
            except QsaeError:
                continue
            raise CheckFailure(f"read accepted {what}.")


@RULES.each_case("round-trip", "what write wrote is recognized, and read gives an equal coder.")
def _round_trip(subject: Subject, case: Case) -> None:
    form: CheckpointFormat = subject.build(case)
    written = 0
    for name, coder, x in _coders(subject):
        before = copy_of_state(coder)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "checkpoint"
            try:
                form.write(coder, path)
            except QsaeError:
                continue  # a format may have no place for a variant
            written += 1
            expect_same_state(copy_of_state(coder), before, f"the state of {name} after write")
            expect(form.recognizes(path) is True, f"it does not recognize the {name} that it wrote.")
            again = form.read(path)
            expect(not again.training, f"the {name} that it read is in training mode.")
            with torch.no_grad():
                expect_close(again(x), coder(x), f"the reconstruction of {name} after write and read")
    if not written:
        raise NotApplicable("no installed SAE or transcoder can be written in this format")


def _coders(subject: Subject) -> Iterator[tuple[str, MatrixCoder, torch.Tensor]]:
    """(name, coder in evaluation mode, vectors) for every installed SAE and transcoder that builds."""
    specs: list[ComponentSpec] = []
    if subject.registry is not None:
        specs = [spec for kind in CODER_SLOTS for spec in subject.registry.specs(kind)]
    for spec in specs:
        coder_subject = Subject(spec, subject.registry)
        try:
            coder = built(coder_subject, Variant(coder_subject.cases[0], {})).eval()
        except NotApplicable:
            continue  # its own checks report that
        yield (
            f"{spec.kind} {spec.name}",
            coder,
            data_of(coder_subject, coder_subject.cases[0]).next_batch(32).x,
        )
