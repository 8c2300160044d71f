"""One ``qsae train`` in this process, with the seconds since its start at which each stage was over.

The one argument is JSON: ``arguments`` of ``qsae train``, ``started`` (when the process was started, in
seconds since the epoch), ``out`` (the file that takes the result).
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Mapping

SPEC = json.loads(sys.argv[1])
STAGES: dict[str, float] = {}


def over(stage: str) -> None:
    """A stage ends now; the first time counts."""
    STAGES.setdefault(stage, time.time() - SPEC["started"])


over("interpreter")

import qsae_core.training.run  # noqa: E402, F401
from qsae_cli import train as command  # noqa: E402
from qsae_core.training.watcher import Watcher  # noqa: E402

over("imports")


class Clock(Watcher):
    """A watcher that takes the time."""

    def message(self, text: str) -> None:
        if text.startswith("compiled kernels"):
            over("kernels")
        elif text.startswith("measuring statistics"):
            over("data and coder")

    def start(self, run: object, first_step: int, steps: int) -> None:
        over("statistics and held-out vectors")

    def logged(self, step: int, values: Mapping[str, float | None]) -> None:
        over("first batch and step")


def main() -> None:
    command.make_watcher = Clock
    command.train.main(args=SPEC["arguments"], prog_name="qsae train", standalone_mode=False)
    over("artifact and evaluation")
    pathlib.Path(SPEC["out"]).write_text(json.dumps({"stages": STAGES}))


if __name__ == "__main__":
    main()
