"""``qsae export --format neuronpedia``: files, names, and what is refused."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
from qsae_samples import Samples


@pytest.fixture(scope="module")
def run(sampled):
    return sampled("mine", "--sae", "topk", "--k", "4", "--layer", "2")[0]


def batches(folder):
    files = sorted(folder.glob("batch-*.json"), key=lambda file: int(file.stem.partition("-")[2]))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_files_and_names(run, tmp_path, qsae):
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "out")
    (only,) = batches(tmp_path / "out")
    assert {name: value for name, value in only.items() if name != "features"} == {
        "model_id": "builtin",
        "layer": 2,
        "sae_set": "mine",
        "sae_id_suffix": None,
    }
    assert [feature["feature_index"] for feature in only["features"]] == list(range(96))
    named = "--model-id gpt2-small --sae-set res-96 --sae-id-suffix l0-4 --latents-per-file 40"
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "named", *named.split())
    several = batches(tmp_path / "named")
    assert [len(batch["features"]) for batch in several] == [32, 32, 32]  # three of at most 40, alike
    assert [f for batch in several for f in batch["features"]] == only["features"]
    heads = [(b["model_id"], b["layer"], b["sae_set"], b["sae_id_suffix"]) for b in several]
    assert heads == [("gpt2-small", 2, "res-96", "l0-4")] * 3


def test_a_window_is_the_text_and_its_peak_is_at_its_place(run, tmp_path, qsae):
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "out")
    samples = Samples.load(run)
    seen = 0
    for feature in batches(tmp_path / "out")[0]["features"]:
        latent = samples.latent(feature["feature_index"])
        assert len(feature["activations"]) == len(latent.examples)
        for shown, example in zip(feature["activations"], latent.examples, strict=True):
            assert len(shown["tokens"]) == len(shown["values"])
            silent = [t for t, v in zip(shown["tokens"], shown["values"], strict=True) if not v]
            assert "Ġ" not in "".join(shown["tokens"])
            assert "".join(silent) == "".join(
                p for p, v in zip(example.pieces, example.activations, strict=True) if not v
            )
            value = shown["values"][shown["qualifying_token_index"]]
            assert value != 0
            assert shown["bin_min"] == -1 or value <= shown["bin_max"] * 1.1  # ranks are known to a bin
            seen += 1
    assert seen > 500


def test_a_run_with_a_coder_for_each_layer(train, tmp_path, qsae):
    run = train("layers", "--sae", "topk", "--k", "4", "--layers", "1-2", "--per-layer")
    refusal = qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "out", code=2).output
    assert f"next:    qsae samples {run}" in refusal
    qsae("samples", run, "--tokens", "2000")
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "out")
    folders = sorted((tmp_path / "out").iterdir())
    assert [batches(folder)[0]["layer"] for folder in folders] == [1, 2]
    first, second = (batches(folder)[0]["features"][0] for folder in folders)
    assert first["neuron_alignment_values"] != second["neuron_alignment_values"]


def test_what_is_refused(run, train, tmp_path, qsae):
    def refused(*arguments):
        return qsae("export", *arguments, "--format", "neuronpedia", "--out", tmp_path / "out", code=2).output

    other = train("other", "--sae", "topk", "--k", "4", "--layer", "1")
    text = refused(other)
    assert "there is no samples.safetensors" in text
    assert f"next:    qsae samples {other}" in text
    shutil.copytree(run / "samples", other / "samples")
    assert "samples are of the coder that was here before" in refused(other)
    lone = tmp_path / "lone"
    shutil.copytree(run / "checkpoints" / "final", lone)
    shutil.copytree(run / "samples", lone / "samples")
    text = refused(lone)
    assert "it is in no run" in text
    assert "next:    --sae-set NAME" in text
    qsae("export", lone, "--format", "neuronpedia", "--sae-set", "s", "--out", tmp_path / "of-lone")
    qsae("export", run, "--format", "neuronpedia", "--sae-set", "s", "--out", tmp_path / "of-run")
    assert batches(tmp_path / "of-lone") == batches(tmp_path / "of-run")
    assert "at least 1" in refused(run, "--latents-per-file", "0")
    assert not (tmp_path / "out").exists()


def test_vectors_without_text_are_refused(tmp_path, qsae):
    line = (
        "train --sae topk --k 4 --n-latents 64 --data synthetic --preset tiny --steps 4 --eval reconstruction"
    )
    qsae(*line.split(), "--no-compare-float", "--threads", "1", "--name", "made", "--out", tmp_path)
    run = next(tmp_path.rglob("config.json")).parent
    text = qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "out", code=2).output
    assert "not known of which language model's vectors" in text
    assert "qsae train --model NAME" in text


def test_options_of_one_format_are_no_other_ones(run, tmp_path, qsae):
    line = ["export", run, "--format", "saelens", "--out", tmp_path / "out", "--sae-set", "x"]
    assert "No such option '--sae-set'" in qsae(*line, code=2).output
    text = qsae("export", "--format", "neuronpedia", "--help").output
    assert "--latents-per-file" in text
    assert "--latents-per-file" not in qsae("export", "--help").output


def test_it_is_written_and_not_read(run, tmp_path, qsae):
    qsae("export", run, "--format", "neuronpedia", "--out", tmp_path / "out")
    text = qsae("import", tmp_path / "out", "--out", tmp_path / "in", code=2).output
    assert "dashboards hold no weights" in text


def test_samples_of_an_evaluation_serve_too(run, tmp_path, qsae):
    copied = tmp_path.joinpath(*pathlib.PurePath(run).parts[-3:])
    shutil.copytree(run, copied)
    shutil.rmtree(copied / "samples")
    qsae("evaluate", copied, "--eval", "samples", "--tokens", "2000")
    qsae("export", copied, "--format", "neuronpedia", "--out", tmp_path / "out")
    assert batches(tmp_path / "out")[0]["features"][0]["activations"]
