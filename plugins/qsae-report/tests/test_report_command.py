"""``qsae report`` of tiny runs."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from qsae_report.cards import cards
from qsae_report.gather import gather
from qsae_samples.samples import Samples

from qsae_cli.main import cli
from qsae_core.contracts import Result as Found
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.evaluation.stored import save_result

TINY = [
    "--eval-tokens",
    512,
    "--statistics-tokens",
    512,
    "--data",
    "synthetic",
    "--preset",
    "tiny",
    "--n-latents",
    64,
    "--steps",
    4,
    "--batch-size",
    256,
]
WITHOUT = "--without-samples"


def qsae(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), prog_name="qsae")


def made(*words: object) -> str:
    done = qsae(*words)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A ternary run with its float twin, evaluated, and a float run."""
    out = tmp_path_factory.mktemp("results")
    evaluated = ["--eval", "reconstruction", "--eval", "quantization-error"]
    made(
        "train",
        "--sae",
        "ternary",
        "--quantizer",
        "ste",
        *TINY,
        *evaluated,
        "--out",
        out,
        "--name",
        "ternary",
    )
    made("train", "--sae", "topk", *TINY, "--eval", "reconstruction", "--out", out, "--name", "float")
    return out


@pytest.fixture(scope="module")
def run(results: pathlib.Path) -> pathlib.Path:
    return results / "ternary/synthetic/4"


@pytest.fixture
def sampled(run: pathlib.Path, make_samples: Any) -> Any:
    """The run, with samples while the test runs."""
    file = run / "samples/samples.safetensors"
    make_samples(64, ["up", "\u2028", "</script>"]).save(file)
    yield run
    file.unlink()


def test_a_run_is_written_into_its_folder(sampled):
    assert re.fullmatch(r"\S+/report.html: \d+\.\d MB\n", made("report", sampled))
    text = (sampled / "report.html").read_text()
    assert "<h1>ternary (ste" in text
    for view in ("overview", "training", "evaluations", "survival", "latents", "latent"):
        assert f'data-view="{view}"' in text
    assert '<dt title="float twin">float twin</dt>' in text
    assert "</script>" not in re.sub(r"</script>\s*<|</script>\s*$", "", text)


def test_what_was_quantized_afterwards_stands_beside_what_it_was_made_of(results, tmp_path):
    """Also where nothing is stored of that: another library's coder has no run."""
    source = tmp_path / "imported"
    shutil.copytree(results / "float/synthetic/4/checkpoints/final", source)
    printed = made(
        "quantize", source, "--quantizer", "rtn", "--tokens", 256, "--out", tmp_path, "--name", "q"
    )
    before, after = re.search(r"fvu: ([\d.]+) before, ([\d.]+) after", printed).groups()
    run = next(tmp_path.glob("q/*/*"))
    made("report", run, WITHOUT, "--out", tmp_path / "it.html")
    subject = gather(run, with_samples=False)
    fvu = next(card for card in cards(subject, 64) if card.title == "FVU")
    ((_, value),) = [row for row in fvu.beside if row[0] == "before quantizing"]
    assert float(value) == pytest.approx(float(before), rel=0.01)
    assert float(fvu.value) == pytest.approx(float(after), rel=0.01)
    assert not fvu.notes  # both are of the same vectors
    assert f">{value}<" in (tmp_path / "it.html").read_text()


def test_no_samples_is_an_error_with_two_ways_out(run):
    said = qsae("report", run)
    assert said.exit_code == 2
    assert "there are no samples of where its latents fire" in said.output
    assert f"qsae samples {run}" in said.output
    assert WITHOUT in said.output


def test_without_samples_there_are_numbers(run, tmp_path):
    made("report", run, WITHOUT, "--out", tmp_path / "it.html")
    text = (tmp_path / "it.html").read_text()
    assert 'id="block-examples"' not in text
    assert 'id="block-columns"' in text


def test_a_folder_without_a_run_needs_a_place(run, tmp_path):
    said = qsae("report", run / "checkpoints/final", WITHOUT)
    assert said.exit_code == 2
    assert "--out report.html" in said.output
    made("report", run / "checkpoints/final", WITHOUT, "--out", tmp_path / "it.html")
    text = (tmp_path / "it.html").read_text()
    assert "Nothing was evaluated yet" in text
    assert "there is no log of its training" in text


def test_all_that_is_missing_is_said_at_once(run, results):
    checkpoint = run / "checkpoints/final"
    said = qsae("report", checkpoint, "--compare", results / "nowhere")
    assert said.exit_code == 2
    for part in (
        "where the report goes has to be said",
        "there are no samples of where its latents fire",
        f"{results / 'nowhere'}: there is no such file or folder",
        f"the report of its run: qsae report {run}",
        WITHOUT,
        "--out report.html",
        f"qsae samples {checkpoint} --out {checkpoint / 'samples'}",
    ):
        assert part in said.output
    made("report", checkpoint, WITHOUT, "--out", run / "it.html")
    (run / "it.html").unlink()


def test_what_is_no_coder_is_all_that_is_said(tmp_path):
    said = qsae("report", tmp_path)
    assert said.exit_code == 2
    assert "where the report goes" not in said.output


def test_the_footer_has_the_whole_command(results, run, tmp_path):
    other, out = results / "float/synthetic/4", tmp_path / "a page.html"
    made("report", run, WITHOUT, "--compare", other, "--out", out)
    command = f"qsae report {run} --compare {other} --out &#39;{out}&#39; {WITHOUT}"
    assert f"Made by <code>{command}</code>" in out.read_text()


def test_two_runs_beside_each_other(results, run, tmp_path):
    made("report", run, WITHOUT, "--compare", results / "float/synthetic/4", "--out", tmp_path / "it.html")
    text = (tmp_path / "it.html").read_text()
    assert "Latents without a counterpart there" in text
    assert '<dt title="float/synthetic/4">' in text
    about = json.loads(re.search(r'id="about">(.*?)</script>', text)[1])
    assert [other["name"] for other in about["others"]] == ["float twin", "float/synthetic/4"]


def test_a_damaged_evaluation_is_named_and_the_rest_is_written(run, tmp_path):
    broken = run / "evaluations/broken"
    broken.mkdir()
    (broken / "result.json").write_text("{")
    try:
        said = qsae("report", run, WITHOUT, "--out", tmp_path / "it.html")
    finally:
        (broken / "result.json").unlink()
        broken.rmdir()
    assert said.exit_code == 0
    assert "broken/result.json: is not valid JSON" in said.stderr
    text = (tmp_path / "it.html").read_text()
    assert "This evaluation cannot be shown" in text
    assert '<h3 id="evaluation-title-2">quantization-error</h3>' in text


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"values": [], "chance": {}, "baseline": {}, "uncertainty": {}, "per_latent": [], "tables": []},
        {
            "values": {"a": "x"},
            "chance": {},
            "baseline": {},
            "uncertainty": {},
            "per_latent": [],
            "tables": [],
        },
        {"values": {}, "chance": {}, "baseline": {}, "uncertainty": {}, "per_latent": ["a"], "tables": []},
        [],
    ],
    ids=["empty", "values are a list", "a value is text", "a column is missing", "a list"],
)
def test_every_kind_of_damage_is_the_evaluation_s_own(tmp_path, record):
    from qsae_report.gather_evaluations import read_evaluations

    folder = tmp_path / "it"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(record))
    found = read_evaluations(tmp_path)["it"]
    assert found.result is None
    assert str(folder) in (found.damage or "")


def test_samples_of_another_coder_are_refused(run, make_samples):
    file = run / "samples/samples.safetensors"
    make_samples(3, ["a"]).save(file)
    try:
        said = qsae("report", run)
    finally:
        file.unlink()
    assert said.exit_code == 2
    assert "the samples are of 3 latents, and the coder has 64" in said.output


def test_a_damaged_summary_is_a_note(run, tmp_path):
    file = run / "metrics.json"
    kept = file.read_text()
    file.write_text("{")
    try:
        said = qsae("report", run, WITHOUT, "--out", tmp_path / "it.html")
    finally:
        file.write_text(kept)
    assert said.exit_code == 0, said.output
    assert "metrics.json was damaged" in said.stderr
    assert "metrics.json was damaged" in (tmp_path / "it.html").read_text()


def test_options_of_a_server_need_one(run):
    said = qsae("report", run, "--port", 0)
    assert said.exit_code == 2
    assert "add --serve" in said.output
    said = qsae("report", run, "--serve", "--out", "x.html")
    assert said.exit_code == 2
    assert "a report that is served is not written" in said.output


def test_layers_of_one_coder(run):
    with pytest.raises(ConfigError, match="there is one coder, and none of a layer '3'"):
        gather(run, layer="3", with_samples=False)


def test_altered_samples_are_refused(sampled):
    file = sampled / "samples/samples.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="was altered"):
        gather(sampled)


def test_samples_of_the_coder_that_was_there_before_are_refused(run, make_samples):
    file = run / "samples/samples.safetensors"
    of_another = make_samples(64, ["a"])
    replace(of_another, about={**of_another.about, "coder_sha256": "another"}).save(file)
    try:
        with pytest.raises(ArtifactError, match="of the coder that was here before"):
            gather(run)
    finally:
        file.unlink()


def test_an_evaluation_of_another_coder_is_left_out(run):
    result = Found(values={"score": 0.5})
    try:
        for name, coder in (("theirs", "another"), ("unknown", None)):
            save_result(run / "evaluations" / name, result, {"evaluation": name, "coder_sha256": coder})
        found = gather(run, with_samples=False).coder.evaluations
        assert found["theirs"].result is None
        assert found["theirs"].damage == "it is of another coder than the one that is stored here"
        assert found["unknown"].result is not None
        assert found["reconstruction"].result is not None
    finally:
        for name in ("theirs", "unknown"):
            shutil.rmtree(run / "evaluations" / name)


def test_samples_that_an_evaluation_has_left_will_do(run, make_samples):
    file = run / "evaluations/samples/samples.safetensors"
    make_samples(64, ["a"]).save(file)
    try:
        assert gather(run).coder.samples is not None
    finally:
        shutil.rmtree(file.parent)


def test_the_twin_s_samples_are_read_where_they_are(sampled, make_samples):
    file = sampled / "samples/float_twin/samples.safetensors"
    make_samples(64, ["up"], seed=1).save(file)
    try:
        twin = gather(sampled).twin
    finally:
        file.unlink()
        file.parent.rmdir()
    assert twin is not None
    assert isinstance(twin.samples, Samples)


def test_a_coder_of_other_vectors_is_compared_with_a_note(run, results):
    same = gather(run, results / "float/synthetic/4", with_samples=False)
    assert same.notes == []
    record = results / "float/synthetic/4/checkpoints/final/coder.json"
    kept = record.read_text()
    tree = json.loads(kept)
    tree["source"]["model"] = "another"
    record.write_text(json.dumps(tree))
    try:
        (note,) = gather(run, results / "float/synthetic/4", with_samples=False).notes
    finally:
        record.write_text(kept)
    assert "the model: synthetic-tiny here, another there" in note
