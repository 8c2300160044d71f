from __future__ import annotations

import json
import pathlib
import struct
from collections.abc import Callable, Iterator

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from qsae_core import Run

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4


def records(file: pathlib.Path) -> Iterator[Record]:
    """What wandb wrote: a log of LevelDB's, blocks of pieces, each behind its checksum, length and kind."""
    data, at, parts = file.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        at += HEADER + length
        parts += data[at - length : at]
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


class Written:
    """One of their runs, as its file says."""

    def __init__(self, folder: pathlib.Path) -> None:
        (file,) = folder.glob("*.wandb")
        self.steps: dict[int, dict[str, object]] = {}
        self.summary: dict[str, object] = {}
        self.exit_code = None
        for record in records(file):
            if record.HasField("run"):
                self.about = record.run
                self.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif record.HasField("history"):
                self.steps[record.history.step.num] = _values(record.history.item)
            elif record.HasField("summary"):
                self.summary |= _values(record.summary.update)
            elif record.HasField("exit"):
                self.exit_code = record.exit.exit_code


def _values(items) -> dict[str, object]:
    """Ours; what wandb adds of itself begins with a line below."""
    named = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}


@pytest.fixture
def written() -> Callable[[Run], list[Written]]:
    """Of a run of ours, theirs in the order in which they were begun."""

    def read(run: Run) -> list[Written]:
        wandb.teardown()  # its service, a process of its own, writes the last of a file when it ends
        return [Written(folder) for folder in sorted(run.path.glob("wandb/offline-run-*"))]

    return read


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """One that has just begun."""
    found = Run(tmp_path / "results" / "mine" / "2" / "500")
    found.path.mkdir(parents=True)
    record = {"sae": {"use": "topk", "k": 8}, "trackers": [{"use": "wandb"}], "started_at": "now"}
    record |= {"status": "finished"}
    found.config_file.write_text(json.dumps(record))
    return found
