"""Evaluations that were repeated while a coder was trained."""

import pathlib

from qsae_report.gather_evaluations import read_on_the_way
from qsae_report.on_the_way import on_the_way
from qsae_report.page import Measured, render
from qsae_report.subject import Evaluation

from qsae_core.contracts import Result
from qsae_core.evaluation.stored import save_result

HERE = pathlib.Path("run")


def test_they_are_read_by_name_and_step(tmp_path):
    for step, name, layer in [(1000, "b", ""), (50, "b", ""), (50, "a", ""), (50, "a", "layers/3")]:
        folder = tmp_path / f"step_{step:08d}" / layer / name
        save_result(folder, Result(values={"zeal": float(step)}), {})
    (tmp_path / "step_00000050/halfway").mkdir()
    (tmp_path / "steps").mkdir()
    found = read_on_the_way(tmp_path, None)
    steps = {name: list(by_step) for name, by_step in found.items()}
    assert steps == {"a": [50], "b": [50, 1000], "halfway": [50]}
    assert found["b"][1000].result.values == {"zeal": 1000.0}
    assert found["halfway"][50].damage is not None
    assert list(read_on_the_way(tmp_path, "3")) == ["a"]
    assert read_on_the_way(tmp_path / "nothing", None) == {}


def test_values_over_the_steps_and_at_the_end(make_subject):
    way = {
        10: Evaluation(
            "zest", Result(values={"a": 0.5, "same": 2.0, "n_tokens": 8.0}, uncertainty={"a": 0.1})
        ),
        20: Evaluation("zest", Result(values={"a": None, "same": 2.0, "n_tokens": 8.0})),
        30: Evaluation("zest", None, damage="it is gone"),
    }
    end = {"zest": Result(values={"a": 0.25, "same": 2.0, "n_tokens": 9.0, "more": 1.0})}
    subject = make_subject(HERE, None, end, on_the_way={"zest": way}, trained={"steps": 1400})
    (found,) = on_the_way(subject)
    assert found.headings == ["a", "same", "n_tokens", "more"]
    assert found.rows == [
        ("10", ["0.5000", "2", "8", "\u2013"]),
        ("20", ["\u2013", "2", "8", "\u2013"]),
        ("1,400, the end", ["0.2500", "2", "9", "1"]),
    ]
    assert found.damage == ["it is gone"]
    assert "behind 3 steps of training, and at the end" in found.note
    assert "Not all are of as many tokens" in found.note
    (chart,) = found.charts  # of what changes, and says something of the coder
    (line,) = chart.series
    assert (chart.title, line.x, line.y, line.error) == ("a", [10, 1400], [0.5, 0.25], [0.1, None])


def test_they_are_on_the_page(make_subject):
    way = {step: Evaluation("zest", Result(values={"a": step / 7})) for step in (10, 20)}
    html = render(make_subject(HERE, None, on_the_way={"zest": way}), Measured(1, None, {}))
    assert ">zest, while it trained</h3>" in html
    assert '<th scope="row">20</th><td class="n">2.857</td>' in html
    assert html.count('id="way-0-0-title"') == 1
