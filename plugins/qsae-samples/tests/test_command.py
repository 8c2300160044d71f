"""``qsae samples`` as a user runs it, on the built-in language model and a text of several scripts."""

from __future__ import annotations

import csv
import json
import re

import pytest
from click.testing import CliRunner
from qsae_samples.samples import Samples

from qsae_cli.main import cli
from qsae_core.runs import identity

FEW = "--steps 8 --batch-size 128 --eval-tokens 256 --eval-every 0 --statistics-tokens 256 --threads 1"
TINY = ["--n-latents", "64", "--k", "4", *FEW.split(), "--eval", "reconstruction"]


def qsae(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for n in range(60):
        text = f"def f{n}(x):  # größer als {n} → naïve, {n} €, 日本語 🙂\n    return x + {n}\n"
        (folder / f"{n}.py").write_text(text * 12, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(texts):
    return ["--text", texts, "--context", "32", "--held-out-share", "0.3", "--layer", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    qsae("train", "--sae", "topk", *TINY, *data, "--name", "it", "--out", folder)
    return next(folder.rglob("config.json")).parent


@pytest.fixture(scope="module")
def collected(run):
    found = qsae("samples", run, "--tokens", "3K", "--top", "4", "--device", "cpu", "--json")
    return json.loads(found.stdout)[0]


def test_one_file_in_the_run_with_text_as_it_was_written(run, collected, texts):
    assert collected["path"] == str(run / "samples" / "samples.safetensors")
    assert 3000 <= collected["n_tokens"] + collected["n_skipped"] < 3032  # whole contexts
    assert collected["options"]["top"] == 4
    samples = Samples.load(run)
    assert (samples.n_latents, samples.n_tokens) == (64, collected["n_tokens"])
    written = [file.read_text(encoding="utf-8") for file in texts.iterdir()]
    checked = 0
    for number in range(samples.n_latents):
        latent = samples.latent(number)
        assert len(latent.top) <= 4
        assert len({example.document for example in latent.top}) == len(latent.top)
        for example in latent.examples:
            whole = example.text.strip("\N{REPLACEMENT CHARACTER}")  # where a context cuts a character
            assert any(whole in text for text in written), example.text
            assert example.activations[example.peak] != 0
            checked += 1
    assert checked == collected["n_examples"]
    most = samples.latent(int(samples.densities.argmax()))
    assert any("日本語 🙂" in example.text for example in most.examples)
    assert len(most.raises) == len(most.lowers) == 10
    assert most.raises[0].value > 0 > most.lowers[0].value


def test_it_is_known_of_which_coder_they_are(run, collected):
    assert Samples.load(run).about["coder_sha256"] == identity(run / "checkpoints" / "final")


def test_shown_as_a_person_reads_it(run, collected):
    number = int(Samples.load(run).densities.argmax())
    shown = qsae("samples", "show", run, "--latent", number, "--examples", "2").stdout
    example = Samples.load(run).latent(number).top[0]
    assert shown.startswith(f"latent {number}: on ")
    assert f"⟦{example.pieces[example.peak]}⟧".replace("\n", "⏎") in shown
    assert len(qsae("samples", "show", run, "--examples", "1").stdout.split("latent ")) == 6  # five of them
    assert "no latent 64" in qsae("samples", "show", run, "--latent", "64", code=2).output


def test_beside_other_evaluations(run, tmp_path):
    options = ["--set", "evaluate=[{use: samples, top: 2}]", "--out", tmp_path / "kept", "--device", "cpu"]
    shown = qsae("evaluate", run, *options, "--tokens", "1K").stdout
    assert "n_examples" in shown
    with (tmp_path / "kept" / "samples" / "strongest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["token"] in row["text"] for row in rows)


def test_less_text_than_was_asked_for_is_said(run, tmp_path):
    (tmp_path / "short.txt").write_text("A short text of forty words or so. " * 12, encoding="utf-8")
    found = qsae("samples", run, "--text", tmp_path / "short.txt", "--out", tmp_path / "out")
    assert re.search(
        r"note: 1,000,000 tokens were asked for, and there are no more in .*short.txt; --text", found.stderr
    )
    assert Samples.load(tmp_path / "out").n_tokens < 200


def test_of_an_imported_coder_the_held_out_part_is_read_which_the_note_says(run, data, tmp_path):
    qsae("export", run, "--format", "saelens", "--out", tmp_path / "theirs")
    read = {}
    for name, given in (("unknown", ()), ("elsewhere", ("--trained-on", "elsewhere"))):
        qsae("import", tmp_path / "theirs", *data, *given, "--out", tmp_path / name)
        read[name] = qsae("samples", tmp_path / name, "--out", tmp_path / f"{name}-samples")
    assert re.search(
        r"no more in [^;]* held-out [^;]*; what the coder was trained on is not", read["unknown"].stderr
    )
    assert "--trained-on elsewhere" in read["unknown"].stderr
    assert re.search(r"no more in [^;]*; --text FOLDER reads other text", read["elsewhere"].stderr)
    assert "held-out" not in read["elsewhere"].stderr
    few, all_of_it = (Samples.load(tmp_path / f"{name}-samples").n_tokens for name in read)
    assert few < all_of_it / 2  # three tenths of the documents


def test_a_coder_for_each_layer_has_a_file_each(tmp_path, data):
    qsae("train", "--sae", "topk", *TINY, *data[:-2], "--layers", "1,2", "--per-layer", "--out", tmp_path)
    run = next(tmp_path.rglob("config.json")).parent
    files = [one["path"] for one in json.loads(qsae("samples", run, "--tokens", "1K", "--json").stdout)]
    assert files == [str(run / "samples" / "layers" / layer / "samples.safetensors") for layer in "12"]
    one, other = (Samples.load(file) for file in files)
    assert (one.arrays["count"] != other.arrays["count"]).any()


def test_a_transcoder_of_nested_groups(tmp_path, data):
    sites = ["--source-layer", "1", "--target-layer", "1"]
    arguments = ["--n-latents", "64", "--k", "4", *TINY[4:], *data[:-2], *sites, "--out", tmp_path]
    qsae("train", "--transcoder", "matryoshka-transcoder", *arguments)
    run = next(tmp_path.rglob("config.json")).parent
    found = json.loads(qsae("samples", run, "--tokens", "1K", "--json").stdout)[0]
    assert (found["source_sites"], found["target_sites"]) == (["1.mlp_in"], ["1.mlp_out"])
    assert found["n_latents"] == 64
    assert found["n_examples"] > 0


def test_what_cannot_be_collected_is_said(run, tmp_path, texts):
    final = run / "checkpoints" / "final"
    assert "'--top': 0 is not in the range 1<=x<=255" in qsae("samples", run, "--top", "0", code=2).output
    assert "--out DIR" in qsae("samples", final, code=2).output
    lost = qsae("samples", run, "--model", tmp_path / "gone", code=2).output
    assert "gone" in lost
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in qsae("samples", run, "--text", tmp_path / "empty", code=2).output
    small = ["--data", "synthetic", "--preset", "tiny", *TINY, "--out", tmp_path / "synthetic"]
    qsae("train", "--sae", "topk", *small)
    no_model = next((tmp_path / "synthetic").rglob("config.json")).parent
    refused = qsae("samples", no_model, code=2).output
    assert "no language model" in refused
    assert "--text FOLDER" in refused
    assert not (no_model / "samples").exists()
    assert "there is no samples.safetensors" in qsae("samples", "show", no_model, code=2).output
