"""What users get wrong: a sentence that says what, where and what is allowed; exit 2; nothing is lost."""

import pathlib

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from qsae_cli.main import cli


def qsae(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="qsae")


@pytest.fixture
def states(tmp_path) -> pathlib.Path:
    path = tmp_path / "states.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4096, 16)).astype(np.float32))
    return path


def train(states, *arguments, sae="topk"):
    small = ["--n-latents", 64, "--k", 4, "--steps", 3, "--batch-size", 64, "--eval-tokens", 64]
    out = ["--out", states.parent / "results", "--eval", "reconstruction", "--device", "cpu"]
    return qsae("train", "--sae", sae, "--data-path", states, *small, *out, *arguments)


def refused(result, *fragments):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for fragment in fragments:
        assert fragment in result.output, result.output


def test_the_small_run_itself_works(states):
    result = train(states)
    assert result.exit_code == 0, result.output
    assert "FVU" in result.output


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--quantizer", "stee"), ("unknown quantizer 'stee'", "did you mean 'ste'", "installed: ", "none")),
        (("--sparsity", "topp"), ("unknown sparsity 'topp'", "topk")),
        (("--latents-n", "3"), ("--latents-n",)),
        (("--k", "65"), ("65", "64")),
        (("--k", "0"), ("--sparsity.k", "greater than 0", "got 0")),
        (("--lr", "fast"), ("--train.lr", "got 'fast'")),
        (("--set", "sae.atoms=3"), ("sae.atoms",)),
        (("--device", "tpu"), ("tpu", "cpu")),
        (("--n-bits", "9", "--quantizer", "ste"), ("n-bits", "9")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value[0].startswith("--") else "",
)
def test_names_keys_and_values(states, arguments, fragments):
    refused(train(states, *arguments), *fragments)
    assert not (states.parent / "results").exists()


@pytest.mark.parametrize("sizes", ["[0,64]", "3", "[]"])
def test_a_list_is_described_in_words(states, sizes):
    result = train(states, "--set", f"sae.group_sizes={sizes}", sae="matryoshka")
    refused(result, "allowed: a list of sizes of 1 or more that add up to n_latents")


def test_an_unknown_sae_names_the_installed_ones(states):
    refused(train(states, sae="topk2"), "unknown sae 'topk2'", "did you mean 'topk'", "ternary")


def test_an_existing_finished_run(states):
    assert train(states).exit_code == 0
    before = sorted((p, p.stat().st_mtime_ns) for p in (states.parent / "results").rglob("*"))
    refused(train(states), "a finished run is there already", "--overwrite")
    assert sorted((p, p.stat().st_mtime_ns) for p in (states.parent / "results").rglob("*")) == before
    assert train(states, "--overwrite").exit_code == 0
    refused(train(states, "--resume"), "this run is finished")


@pytest.mark.parametrize(
    ("arguments", "place", "advice"),
    [
        ("--k 65", "--sparsity.k", "give --sparsity.k of at most 64, or --n-latents of at least 65"),
        ("--quantizer nf4 --block 7", "--quantizer.block", "leave block out"),
        ("--quantizer vector --length 7", "--quantizer.length", "leave length out"),
        ("--sparsity batchtopk --screen int8", "train.screen", "leave --train.screen out"),
        (
            "--k 60 --activation identity --code-quantizer ste",
            "code_quantizer.signed",
            "add --code-quantizer.signed",
        ),
        ("--set foo.bar=1", "--set foo.bar", "correct the name, or leave 'foo' out"),
        ("--set sparsity.kk=1", "--set sparsity.kk", "qsae describe sparsity topk"),
    ],
)
def test_what_to_do_next(states, arguments, place, advice):
    refused(train(states, *arguments.split()), f"error: {place}: ", f"next:    {advice}")


@pytest.mark.parametrize(
    ("sae", "arguments", "level"),
    [
        ("quantized-matryoshka", "--sparsity batchtopk --k 30", "level 1 of 4 has 8 of the 64 latents"),
        ("residual-quantized", "--n-levels 16 --k 8", "level 1 of 16 has 4 of the 64 latents"),
    ],
)
def test_levels_smaller_than_k(states, sae, arguments, level):
    refused(
        train(states, *arguments.split(), sae=sae),
        f"error: --sparsity.k: {level}",
        "next:    give --sparsity.k",
    )


def test_a_part_is_called_by_the_name_that_a_user_gave(states):
    parts = "--preact-coefficient 1 --activation relu --sparsity topk"
    result = train(states, *parts.split(), sae="jumprelu")
    refused(result, "activation 'relu' has no threshold", "--activation jumprelu")


@pytest.mark.parametrize(
    ("names", "advice"), [("", "give the folder"), ("a.npy b.pt", "leave the files of one")]
)
def test_a_folder_without_one_format_of_tensors(states, names, advice):
    folder = states.parent / "chunks"
    folder.mkdir()
    for name in names.split():
        (folder / name).write_bytes(states.read_bytes())
    refused(train(folder), f"error: {folder}: the folder holds ", f"next:    {advice}")


EACH = "--per-layer for a coder of each layer"


@pytest.mark.parametrize(
    ("sae", "data", "advice"),
    [
        ("crosscoder", "--data tensors", "--middle layers, for tensors [N, L, d]; or another coder"),
        ("route", "--data synthetic", "--layers 3; or another coder"),
        (
            "route",
            "--data lm",
            "--layers middle, or numbers such as --layers 3,6,9; or --sites 3.mlp_in,6.resid_mid; or "
            "another coder",
        ),
        ("topk", "--data tensors --middle layers", "--middle positions, which makes each vector"),
        ("topk", "--data synthetic --layers 2", f"--layers 1; {EACH}; or another coder"),
        ("topk", "--data lm --layers 0,1", f"--layer N; {EACH}; or another coder"),
    ],
)
def test_layers_that_do_not_fit_get_the_advice_of_the_data_source(tmp_path, sae, data, advice):
    np.save(tmp_path / "states.npy", np.zeros((64, 2, 16) if sae == "topk" else (64, 16), dtype=np.float32))
    path = ["--data-path", tmp_path / "states.npy"] if "tensors" in data else []
    result = qsae(
        "train", "--sae", sae, *data.split(), *path, "--steps", 1, "--out", tmp_path, "--threads", 1
    )
    refused(result, f"sae '{sae}' reads ", "the data gives ", f"next:    {advice}")


def test_constant_data_is_not_blamed_on_the_learning_rate(states):
    np.save(states, np.ones((4096, 16), dtype=np.float32))
    result = train(states)
    refused(result, "data: the vectors do not vary: ", "all are the same", "next:    look at the data")
    assert "--lr" not in result.output


@pytest.mark.parametrize("file", ["missing.npy", "results"])
def test_a_data_path_that_is_not_there(states, file):
    refused(train(states, "--data-path", states.parent / file), file)


def test_nan_in_the_data_names_file_and_row(states):
    data = np.load(states)
    data[1234, 5] = np.nan
    np.save(states, data)
    refused(train(states, "--steps", 200), "states.npy", "1234")


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_or_one_row_file(states, rows):
    np.save(states, np.zeros((rows, 16), dtype=np.float32))
    refused(train(states), "states.npy")


def test_a_pt_file_that_is_no_tensor(tmp_path):
    path = tmp_path / "states.pt"
    torch.save({"note": "hello"}, path)
    refused(train(path), "states.pt")


def test_a_pt_file_with_code_in_it_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "it-ran",))

    torch.save(Bomb(), tmp_path / "states.pt")
    refused(train(tmp_path / "states.pt"), "states.pt")
    assert not (tmp_path / "it-ran").exists()


def test_a_directory_that_is_no_model(tmp_path):
    refused(qsae("train", "--sae", "topk", "--model", tmp_path, "--out", tmp_path / "r"), str(tmp_path))


def test_a_layer_that_the_model_lacks(tmp_path):
    result = qsae("train", "--sae", "topk", "--layer", 99, "--out", tmp_path / "r")
    refused(result, "99", "qsae sites")


def test_widths_that_do_not_match(states, tmp_path):
    assert train(states).exit_code == 0
    run = next((states.parent / "results").glob("*/*/*"))
    np.save(tmp_path / "wide.npy", np.ones((512, 24), dtype=np.float32))
    refused(qsae("evaluate", run, "--data-path", tmp_path / "wide.npy"), "24", "16")


def test_evaluate_repeats_the_numbers_of_training_and_takes_other_data(states, tmp_path):
    import json

    trained = train(states, "--json", "--quantizer", "ste", "--save-float")
    assert trained.exit_code == 0, trained.output
    run = next((states.parent / "results").glob("*/*/*"))
    again = json.loads(qsae("evaluate", run, "--json").stdout)
    summary = json.loads(trained.stdout)["coders"]["coder"]
    assert again["evaluations"] == summary["evaluations"]
    assert again["artifact"] == {k: v for k, v in summary["artifact"].items() if k != "path"}
    np.save(tmp_path / "other.npy", np.random.default_rng(5).normal(size=(2048, 16)).astype(np.float32))
    other = json.loads(qsae("evaluate", run, "--data-path", tmp_path / "other.npy", "--json").stdout)
    assert other["model"] == "other"
    assert other["evaluations"] != again["evaluations"]


def test_evaluate_says_what_it_cannot_do(states):
    assert train(states).exit_code == 0
    run = next((states.parent / "results").glob("*/*/*"))
    result = qsae("evaluate", run, "--eval", "loss-recovered")
    assert result.exit_code == 0
    assert "loss-recovered: not evaluated" in result.output
    refused(qsae("evaluate", run, "--eval", "los-recovered"), "did you mean 'loss-recovered'")
    refused(qsae("evaluate", states.parent), "holds no trained coder")


def test_runs_lists_what_is_there(states):
    import json

    refused(qsae("runs", "--out", states.parent / "results"), "there is no such results folder")
    assert train(states).exit_code == 0
    listed = json.loads(qsae("runs", "--out", states.parent / "results", "--json").stdout)
    assert [entry["status"] for entry in listed] == ["finished"]
    assert listed[0]["sae"] == "topk"
    assert pathlib.Path(listed[0]["artifact"], "coder.safetensors").exists()
    assert "topk" in qsae("runs", "--out", states.parent / "results").output
