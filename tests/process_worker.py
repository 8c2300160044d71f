"""One of several processes that train together, as torchrun would start it: carries out the jobs of a JSON
file, one after the other, and writes down how each ended. Started by together.py."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import sys
import time

import torch

from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.contracts.data import Batch
from qsae_core.errors import DataError
from qsae_core.plugins.records import load_plugins
from qsae_core.training import torch_join, torch_team
from qsae_core.training.prefetch import BatchReader
from qsae_core.training.run import train
from qsae_core.training.watcher import Unwatched

NEXT_BATCH = BatchReader.next_batch
PATIENCE = 6.0
"""Seconds for which processes wait for one that hangs."""


def faulty(kind: str, rank: int, at: int, folder: str = "") -> None:
    """From now on, one process's batch of that number is unreadable or not finite, or the process is gone; or
    each process is in a folder of its own, as on a machine of its own."""
    read = 0
    if kind == "hangs":
        torch_join.TIMEOUT = torch_team.TIMEOUT = datetime.timedelta(seconds=PATIENCE)
    if kind == "elsewhere":
        os.chdir(pathlib.Path(folder, os.environ["RANK"]))
        return

    def next_batch(reader: BatchReader) -> Batch:
        nonlocal read
        read += 1
        if read != at or int(os.environ["RANK"]) != rank:
            return NEXT_BATCH(reader)
        if kind == "unreadable":
            raise DataError("row 17 is gone", where=f"disk of process {rank}")
        if kind == "gone":
            os._exit(1)
        if kind == "hangs":
            time.sleep(3 * PATIENCE)
        batch = NEXT_BATCH(reader)
        return Batch(torch.full_like(batch.x, torch.inf), batch.y)

    BatchReader.next_batch = next_batch  # type: ignore[method-assign]


def main(jobs: pathlib.Path) -> None:
    plugins, outcomes = load_plugins(), []
    for job in json.loads(jobs.read_text()):
        BatchReader.next_batch = NEXT_BATCH  # type: ignore[method-assign]
        if "fault" in job:
            faulty(**job["fault"])
            if job["fault"]["kind"] == "unlike" and os.environ["RANK"] == "1":
                job["tree"]["train"]["lr"] = 0.5
        began, error = time.monotonic(), None
        try:
            train(resolve([checked_layer(job["tree"], "test")], plugins.registry), plugins, Unwatched())
        except Exception as found:
            error = [type(found).__name__, str(found)]
        outcomes.append({"error": error, "seconds": time.monotonic() - began})
        jobs.with_suffix(f".{os.environ['RANK']}").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
