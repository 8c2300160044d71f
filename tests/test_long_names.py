"""Names that no file system takes: an error with the way out, from every command that takes a path."""

from __future__ import annotations

import pathlib

import pytest
from click.testing import CliRunner

import qsae_core
from qsae_cli import long_name
from qsae_cli.main import cli
from qsae_core.artifact.imported import read_checkpoint
from qsae_core.errors import ArtifactError

LONG = "x" * 256
LINES = [
    f"train --sae topk --data synthetic --preset tiny --out {LONG}",
    f"train --sae topk --data synthetic --preset tiny --name {LONG}",
    f"train --resume {LONG}",
    f"evaluate {LONG}",
    f"quantize {LONG} --quantizer rtn",
    f"import {LONG} --out coder",
    f"import here --out {LONG}",
    f"export {LONG} --format saelens --out there",
    f"new-plugin quantizer abc --dir {LONG}",
    f"report {LONG}",
    f"plot {LONG}",
    f"compare {LONG}",
    f"pull someone/something --out {LONG}",
    f"bench {LONG}",
    f"samples {LONG}",
]


@pytest.mark.parametrize("line", LINES)
def test_a_name_of_256_bytes(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, line.split(), prog_name="qsae")
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert "qsae: error: " in done.output
    assert "xxx" in done.output
    assert list(pathlib.Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("read", [qsae_core.load, qsae_core.load_set, read_checkpoint])
def test_from_python(read):
    with pytest.raises(ArtifactError, match="there is no such file or folder"):
        read(LONG)


def test_what_is_said():
    error = long_name.as_error(OSError(36, "File name too long", f"here/{'é' * 200}/there"))
    assert error is not None
    assert "is too long (400 bytes)" in str(error)
    assert "names of at most 255 bytes" in str(error)
    assert long_name.as_error(OSError(2, "No such file or directory", "x")) is None
