"""``qsae compare`` of runs whose ``metrics.json`` is damaged."""

from __future__ import annotations

import pathlib
import shlex
import shutil

import pytest
from click.testing import CliRunner
from qsae_compare.measured import read

from qsae_cli.main import cli
from qsae_core.errors import ArtifactError
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json, write_json

TRAIN = (
    "train --sae topk --n-latents 32 --k 4 --data synthetic --preset tiny --steps 3 --batch-size 64 "
    "--eval-tokens 512 --eval-every 0 --statistics-tokens 256 --threads 1 --eval reconstruction --name float"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that was quantized after training."""
    out = tmp_path_factory.mktemp("results")
    line = "quantize --quantizer rtn --n-bits 3 --tokens 256 --name rounded"
    for words in ([*shlex.split(TRAIN)], [*shlex.split(line), str(out / "float/synthetic/3")]):
        result = CliRunner().invoke(cli, [*words, "--out", str(out)])
        assert result.exit_code == 0, result.output
    return out / "rounded/synthetic/0"


@pytest.fixture
def run(made, tmp_path):
    return pathlib.Path(shutil.copytree(made, tmp_path / "rounded/synthetic/0"))


def without(summary, *path):
    for key in path[:-1]:
        summary = summary[key]
    del summary[path[-1]]


@pytest.mark.parametrize(
    ("path", "lacking"),
    [
        (("coders",), "coders.coder"),
        (("coders", "coder", "artifact"), "coders.coder.artifact.bytes"),
        (("coders", "coder", "artifact", "path"), "coders.coder.artifact.path"),
        (("coders", "coder", "artifact", "bits_per_weight"), "coders.coder.artifact.bits_per_weight"),
        (("coders", "coder", "evaluations"), "coders.coder.evaluations"),
        (("quantized_from", "method"), "quantized_from.method"),
        (("quantized_from", "method", "lr"), "quantized_from.method"),
    ],
)
def test_a_summary_that_lacks_something_is_told(run, path, lacking):
    file = run / "metrics.json"
    summary = read_json(file)
    without(summary, *path)
    write_json(file, summary)
    with pytest.raises(ArtifactError, match=f"is no summary of a run: .*{lacking}") as caught:
        read([file.parent], load_plugins().registry)
    assert caught.value.where == str(file)
    assert f"remove this file, and qsae compare --evaluate {run}/checkpoints/final" in str(caught.value)
    file.unlink()
    result = CliRunner().invoke(cli, ["compare", "--evaluate", f"{run}/checkpoints/final"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"coders": []}', '{"coders": {"coder": 3}}'])
@pytest.mark.parametrize("name", ["", "checkpoints/final"])
def test_what_is_no_summary_is_told(run, text, name):
    """In a run, and beside an artifact that stands alone."""
    folder = shutil.copytree(run / name, run.parent / "alone") if name else run
    (folder / "metrics.json").write_text(text)
    result = CliRunner().invoke(cli, ["compare", str(folder)])
    assert result.exit_code == 2
    assert f"{folder}/metrics.json: is no summary of a run: it has no coders.coder" in result.output
