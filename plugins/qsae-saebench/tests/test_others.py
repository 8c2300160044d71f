"""Absorption and sparse probing of both kinds, from results by hand."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

spec = importlib.util.spec_from_file_location("layout", pathlib.Path(__file__).with_name("layout.py"))
layout = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layout)

MEANS = {
    "mean_absorption_fraction_score": 0.25,
    "mean_full_absorption_score": 0.5,
    "mean_num_split_features": 1.5,
    "std_dev_absorption_fraction_score": 0.1,
    "std_dev_full_absorption_score": 0.2,
    "std_dev_num_split_features": 0.5,
}
LETTERS = """\
letter,probe_f1,num_probe_true_positives,mean_absorption_fraction,full_absorption_rate,num_full_absorption,num_split_features
a,0.9,16,0.25,0.5,8,1
b,0.6,10,0.1,0.2,2,1
c,0.61,4,0.75,1.0,4,2
"""
"""The second letter's probe is not above .6."""
ACCURACIES = {"dense_accuracy": 0.9, "top_1_accuracy": 0.7, "top_3_accuracy": 0.75, "top_5_accuracy": None}
TASKS = """\
task,k,accuracy,dense_accuracy
keyword,1,0.8,0.95
keyword,3,0.85,0.95
string,1,0.6,0.85
string,3,0.65,0.85
after-self,,,
"""
"""Of the last one the text held too few tokens."""


@pytest.fixture
def copy(run, tmp_path):
    """Of the run, so that each test may add to it."""
    made = tmp_path / "mine" / "1" / "6"
    shutil.copytree(run, made)
    return made


def written(qsae, run, out):
    found = json.loads(qsae("saebench", run, "--out", out, "--json").stdout)
    contents = {}
    for entry in found["written"]:
        path = pathlib.Path(entry["file"])
        contents[path.parent.name] = json.loads(path.read_text())
    names = {pathlib.Path(entry["file"]).name for entry in found["written"]}
    assert names == {"mine_1_6_eval_results.json"}, "plots join files by their name"
    return contents, found["left_out"]


def test_absorption_has_its_means_and_the_letters_that_count(copy, qsae, stored, tmp_path):
    stored(copy / "evaluations" / "absorption", MEANS, {"letters": LETTERS}, words=2000, seed=42)
    contents, left_out = written(qsae, copy, tmp_path / "out")
    content = contents["absorption"]
    assert list(layout.faults("absorption", content)) == []
    assert content["eval_type_id"] == "absorption_first_letter"
    assert content["eval_result_metrics"] == {"mean": MEANS}
    assert [row["first_letter"] for row in content["eval_result_details"]] == ["a", "c"]
    assert content["eval_result_details"][0] == {
        "first_letter": "a",
        "mean_absorption_fraction": 0.25,
        "full_absorption_rate": 0.5,
        "num_full_absorption": 8,
        "num_probe_true_positives": 16,
        "num_split_features": 1,
    }
    assert content["eval_config"]["random_seed"] == 42
    assert [sentence.partition(":")[0] for sentence in left_out] == ["sparse-probing", "sae-probes"]


def test_where_too_few_letters_pass_no_file_is_written(copy, qsae, stored, tmp_path):
    reason = "reason\n0 of 26 letters pass\n"
    values = dict.fromkeys(MEANS)
    stored(
        copy / "evaluations" / "absorption", values, {"letters": LETTERS, "not_applicable": reason}, seed=42
    )
    contents, left_out = written(qsae, copy, tmp_path / "out")
    assert contents.keys() == {"core"}
    assert left_out[0] == "absorption: not written, as SAEBench would not; 0 of 26 letters pass"


def test_sparse_probing_has_the_numbers_of_latents_that_saebench_knows(copy, qsae, stored, tmp_path):
    folder = copy / "evaluations" / "sparse-probing"
    stored(folder, ACCURACIES, {"tasks": TASKS}, k=[1, 3, 5], seed=7)
    content = written(qsae, copy, tmp_path / "out")[0]["sparse_probing"]
    assert content["eval_result_metrics"] == {
        "llm": {"llm_test_accuracy": 0.9},
        "sae": {"sae_top_1_test_accuracy": 0.7, "sae_top_5_test_accuracy": None},
    }
    beside = content["eval_result_unstructured"]
    assert beside["qsae_undefined"] == ["sae.sae_top_5_test_accuracy"]
    assert "SAEBench has texts of eight data sets" in beside["qsae_deviation"]["tasks"]
    assert content["eval_result_details"] == [
        {"dataset_name": "python-source/keyword", "llm_test_accuracy": 0.95, "sae_top_1_test_accuracy": 0.8},
        {"dataset_name": "python-source/string", "llm_test_accuracy": 0.85, "sae_top_1_test_accuracy": 0.6},
    ]
    assert content["eval_config"] == {
        "model_name": "builtin",
        "random_seed": 7,
        "k_values": [1, 5],
        "dataset_names": ["python-source/keyword", "python-source/string"],
    }
    assert list(layout.faults("sparse_probing", content)) == []


PROMPTS = """\
task,k,accuracy,f1,auc,dense_accuracy,dense_f1,dense_auc
87_glue_cola,1,0.6,0.5,0.65,0.8,0.79,0.85
87_glue_cola,3,0.7,0.6,0.75,0.8,0.79,0.85
96_spam_is,1,,,,,,
"""
"""Of the last one there are too few prompts."""


def test_probes_on_the_prompts_of_sae_probes(copy, qsae, stored, tmp_path):
    values = {
        f"{which}_{name}": value
        for which, value in (("dense", 0.8), ("top_1", 0.6), ("top_3", 0.7))
        for name in ("accuracy", "f1", "auc")
    }
    folder = copy / "evaluations" / "sae-probes"
    stored(folder, values, {"tasks": PROMPTS}, k=[1, 3], seed=7, data=None)
    content = written(qsae, copy, tmp_path / "out")[0]["sparse_probing_sae_probes"]
    assert content["eval_type_id"] == "sparse_probing_sae_probes"
    assert content["eval_result_metrics"] == {
        "llm": {"llm_test_accuracy": 0.8, "llm_test_auc": 0.8, "llm_test_f1": 0.8},
        "sae": {"sae_top_1_test_accuracy": 0.6, "sae_top_1_test_auc": 0.6, "sae_top_1_test_f1": 0.6},
    }
    assert content["eval_result_details"] == [
        {
            "dataset_name": "87_glue_cola",
            "llm_test_accuracy": 0.8,
            "llm_test_auc": 0.85,
            "llm_test_f1": 0.79,
            "sae_top_1_test_accuracy": 0.6,
            "sae_top_1_test_auc": 0.65,
            "sae_top_1_test_f1": 0.5,
        }
    ]
    config = content["eval_config"]
    assert (config["dataset_names"], config["ks"], config["reg_type"]) == (["87_glue_cola"], [1], "l2")
    assert "`repeats`" in content["eval_result_unstructured"]["qsae_deviation"]["examples"]
    assert list(layout.faults("sparse_probing_sae_probes", content)) == []


def test_prompts_of_ones_own_are_not_those_of_sae_probes(copy, qsae, stored, tmp_path):
    stored(copy / "evaluations" / "sae-probes", {}, {"tasks": PROMPTS}, k=[1], seed=7, data="mine")
    contents, left_out = written(qsae, copy, tmp_path / "out")
    assert contents.keys() == {"core"}
    assert "sae-probes: not written" in left_out[-1]
    assert "a folder of your own" in left_out[-1]


def test_nothing_undefined_is_a_number(copy, qsae, tmp_path):
    values_file = copy / "evaluations" / "loss-recovered" / "result.json"
    record = json.loads(values_file.read_text())
    record["values"] |= {"ce_recovered": None, "kl_zero": 0.0}
    values_file.write_text(json.dumps(record))
    columns_file = copy / "evaluations" / "similarity" / "latents.safetensors"
    columns = load_file(columns_file)
    columns["nearest_cosine"][5] = torch.nan  # of an atom of zeros
    save_file(columns, columns_file)
    content = written(qsae, copy, tmp_path / "out")[0]["core"]
    metrics, latents = content["eval_result_metrics"], content["eval_result_details"]
    assert metrics["model_performance_preservation"]["ce_loss_score"] is None
    assert metrics["model_behavior_preservation"]["kl_div_score"] is None  # of no damage there is no share
    assert [row["index"] for row in latents if row["max_decoder_cosine_sim"] is None] == [5]
