"""One ``qsae`` command in this process, as its script runs it, with the seconds that each part of it took.

The one argument is JSON: ``arguments`` of ``qsae``, ``started`` (when the process was started, in seconds
since the epoch), ``out`` (the file that takes the result).

Parts are functions that call each other. Each has the seconds that were spent in it and in none of the parts
that it calls, under its path: ``training/steps`` has no second of ``training/steps/loss``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.peers.stopwatch import peak_bytes
from qsae_cli import main as script

PARTS = (
    ("qsae_core.training.run:compose_data", "open"),
    ("qsae_core.training.run:_TrainingRun._initialize", "begin"),
    ("qsae_core.training.loop:TrainingLoop.carry_out", "training"),
    ("qsae_core.training.loop:BatchReader.next_batch", "batches"),
    ("qsae_core.training.loop:Trainer.step", "steps"),
    ("qsae_core.training.loop:TrainingLoop._measure", "measured"),
    ("qsae_core.training.loop:TrainingLoop._checkpoint", "resume state"),
    ("qsae_core.training.run:_TrainingRun._finish", "finish"),
    ("qsae_core.training.finish:save_coder", "artifact"),
    ("qsae_core.training.finish:finished_entry", "evaluation"),
    ("qsae_core.training.trainer:Adam.step", "Adam"),
    ("qsae_sae_topk.model:TopKSAE.loss", "loss"),
    ("qsae_data_lm.language_model:HfLanguageModel.read", "language model"),
    ("qsae_data_lm.language_model:HfLanguageModel.logits", "language model"),
    ("qsae_store.command:_manifest", "open"),
    ("qsae_store.harvest:Harvest.run", "harvest"),
)
"""Function -> what it is called. Those that are called one after another come in that order."""
ARTIFACT = "finish/artifact"


class Parts:
    """Seconds by path.

    Attributes:
        seconds: path -> seconds in it alone.
        ended: path -> when it ended last, in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self._path: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done in here belongs to a part of that one in which it is called."""
        self._charge()
        self._path.append(name)
        try:
            yield
        finally:
            self._charge()
            self.ended["/".join(self._path)] = time.time()
            self._path.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._path:
            path = "/".join(self._path)
            self.seconds[path] = self.seconds.get(path, 0.0) + now - self._since
        self._since = now

    def watch(self, place: str, name: str) -> None:
        """Replace ``module:function`` or ``module:Class.function`` by itself, as a part."""
        module, _, inner = place.partition(":")
        *owners, attribute = inner.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, attribute, self._timed(getattr(owner, attribute), name))

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


def main() -> None:
    spec = json.loads(sys.argv[1])
    parts, command = Parts(), script.cli

    def cli(**options: Any) -> None:
        """In place of the command's own, which is called when torch may be imported."""
        for place, name in PARTS:
            parts.watch(place, name)
        command(args=spec["arguments"], standalone_mode=False, **options)

    script.cli = cli
    script.main()
    seconds = time.time() - spec["started"]
    result = {
        "seconds": seconds,
        "ready_seconds": parts.ended.get(ARTIFACT, time.time()) - spec["started"],
        "parts": {"start": seconds - sum(parts.seconds.values()), **parts.seconds},
        "peak_bytes": peak_bytes(),
    }
    pathlib.Path(spec["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
