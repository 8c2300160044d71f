"""Rules for experiment trackers: a short run in a temporary folder."""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import expect
from qsae_core.contracts.tracker import Tracker
from qsae_core.results.run import Run

RULES = Rules()


@contextmanager
def short_run() -> Iterator[Run]:
    """A run's folder with the record that a run has when it starts."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(pathlib.Path(folder) / "ternary-toy" / "0" / "10")
        run.path.mkdir(parents=True)
        record = {"sae": {"use": "ternary", "n_latents": 64}, "train": {"tokens": 1000}, "completed_at": None}
        record |= {"status": "finished"}
        run.config_file.write_text(json.dumps(record), encoding="utf-8")
        yield run


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, subject.construct)


@RULES.each_case("run", "start, log, measured (values may be None) and finish work, for a resumed run too.")
def _run(subject: Subject, case: Case) -> None:
    with short_run() as run:
        for first in (1, 6):
            tracker: Tracker = subject.build(case)
            tracker.start(run)
            for step in range(first, first + 5):
                tracker.log(step, {"loss": 1.0 / step, "fvu": 0.5, "dead": None})
            tracker.measured(first + 4, {"coder": {"fvu": 0.5, "l0": None}, "float_twin": {"fvu": 0.4}})
            tracker.finish()


@RULES.each_case("keeps-record", "a tracker does not change the run's own files.")
def _keeps_record(subject: Subject, case: Case) -> None:
    with short_run() as run:
        before = run.config_file.read_bytes()
        tracker: Tracker = subject.build(case)
        tracker.start(run)
        tracker.log(1, {"loss": 1.0})
        tracker.finish()
        expect(run.config_file.read_bytes() == before, "config.json has changed.")
