"""Every notebook in docs/notebooks: stored without outputs, and run from the first cell to the last.

What a notebook has computed is compared with what the run's own record says, or with what follows from the
definition.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: pathlib.Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@every_notebook
def test_no_output_is_stored(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert [cell["execution_count"] for cell in code] == [None] * len(code)
    assert len({cell["id"] for cell in cells(path)}) == len(cells(path))


@every_notebook
def test_it_begins_with_its_title(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown"
    assert first["source"][0].startswith("# ")


def run(name: str, folder: pathlib.Path, question: str) -> dict:
    """What an expression gives in the notebook's own process, when all of its cells have run."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({question}))"))
    programs = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env={**os.environ, "PATH": programs, "OMP_NUM_THREADS": "1"})
    return json.loads(notebook.cells[-1].outputs[0].text)


@pytest.mark.slow
def test_training_quantizing_and_evaluating(tmp_path):
    rows = run("train-quantize-evaluate.ipynb", tmp_path, "rows")
    recorded = json.loads((tmp_path / "results/notebook/2/60/metrics.json").read_text())
    rounded = json.loads((tmp_path / "results/notebook-four-bits/2/0/metrics.json").read_text())
    for name, values in (
        ("ternary", recorded["coders"]["coder"]),
        ("full-precision twin", recorded["coders"]["float_twin"]),
        ("twin, four bits", rounded["coders"]["coder"]),
    ):
        error, l0, size = rows[name]
        # the record is of whole contexts, and so of some vectors more
        assert error == pytest.approx(values["evaluations"]["reconstruction"]["fvu"], rel=0.02), name
        assert l0 == pytest.approx(32, abs=0.1)
        assert size == values["artifact"]["bytes"]
    # weights of 32 bits become 1.6 and 4
    assert rows["ternary"][2] < rows["full-precision twin"][2] / 8
    assert rows["twin, four bits"][2] < rows["full-precision twin"][2] / 6
    assert rows["full-precision twin"][0] < rows["twin, four bits"][0] < rows["ternary"][0] < 0.5


@pytest.mark.slow
def test_looking_and_steering(tmp_path):
    question = '{"shifts": shifts, "text": [text.unsteered, text.steered], "dead": int(dead)}'
    found = run("look-and-steer.ipynb", tmp_path, question)
    # a NORM is as much activation as moves the vector by the mean norm: the shift is in proportion to it
    shifts = {float(amount): shift for amount, shift in found["shifts"].items()}
    assert shifts[1.0] == pytest.approx(1.0, rel=0.3)
    assert shifts[0.25] == pytest.approx(0.25, rel=0.3)
    assert found["text"][0] != found["text"][1]
    assert found["dead"] < 2048 / 2
