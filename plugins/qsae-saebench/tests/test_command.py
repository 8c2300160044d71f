"""``qsae saebench`` on a real run: files that SAEBench's schemas and plots take."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil

import pytest
import torch
from qsae_saebench.weights import max_cosines

import qsae_core

spec = importlib.util.spec_from_file_location("layout", pathlib.Path(__file__).with_name("layout.py"))
layout = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layout)

NOT_MEASURED = {
    "reconstruction_quality.explained_variance_legacy",
    "details.consistent_activation_heuristic",
}


def read(file: pathlib.Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def evaluation(run: pathlib.Path, name: str) -> dict:
    return read(run / "evaluations" / name / "result.json")["values"]


def test_core_has_every_name_of_the_schema_and_the_numbers_of_the_run(run, qsae, tmp_path):
    printed = json.loads(qsae("saebench", run, "--out", tmp_path, "--json").stdout)
    (entry,) = printed["written"]
    assert entry["file"] == str(tmp_path / "core" / "mine_1_6_eval_results.json")
    content = read(pathlib.Path(entry["file"]))
    assert set(layout.faults("core", content)) == NOT_MEASURED == set(entry["null"])
    assert set(content["eval_result_unstructured"]["qsae_undefined"]) == NOT_MEASURED

    metrics = content["eval_result_metrics"]
    loss, sparsity = evaluation(run, "loss-recovered"), evaluation(run, "sparsity")
    of_loss = metrics["model_performance_preservation"]
    assert of_loss["ce_loss_score"] == loss["ce_recovered"]
    damage = of_loss["ce_loss_with_ablation"] - of_loss["ce_loss_without_sae"]
    saved = of_loss["ce_loss_with_ablation"] - of_loss["ce_loss_with_sae"]
    assert of_loss["ce_loss_score"] == pytest.approx(saved / damage)
    behaviour = metrics["model_behavior_preservation"]
    assert behaviour["kl_div_score"] == pytest.approx(1 - loss["kl"] / loss["kl_zero"])
    assert metrics["sparsity"] == {"l0": sparsity["l0"], "l1": sparsity["l1"]}
    assert metrics["misc_metrics"]["frac_alive"] == 1 - sparsity["dead_fraction"]
    assert metrics["misc_metrics"]["freq_over_1_percent"] == sparsity["density_over_1pct"]
    assert metrics["token_stats"] == {
        "total_tokens_eval_reconstruction": loss["n_tokens"],
        "total_tokens_eval_sparsity_variance": sparsity["n_tokens"],
    }
    densities = [row["feature_density"] for row in content["eval_result_details"]]
    assert len(densities) == 64
    assert sum(densities) == pytest.approx(sparsity["l0"], rel=1e-5)  # p_j over latents sum to L0


def test_what_plots_group_and_label_by(run, qsae, tmp_path):
    qsae("saebench", run, "--out", tmp_path, "--release", "a/b")
    file = tmp_path / "core" / "a_b_1_6_eval_results.json"
    content, config = read(file), read(file)["sae_cfg_dict"]
    assert (content["sae_lens_release_id"], content["sae_lens_id"]) == ("a/b", "1/6")
    assert content["eval_config"]["model_name"] == config["model_name"] == "builtin"
    assert (config["architecture"], config["d_sae"]) == ("ternary (ste)", 64)
    assert (config["hook_layer"], config["hook_name"]) == (1, "blocks.1.hook_resid_post")
    assert config["training_tokens"] == 6 * 128
    assert config["qsae"]["sae"]["use"] == "ternary"
    qsae("saebench", run, "--out", tmp_path, "--architecture", "topk")
    assert read(tmp_path / "core" / "mine_1_6_eval_results.json")["sae_cfg_dict"]["architecture"] == "topk"


def test_the_encoders_columns_are_those_of_its_rows(run, qsae, tmp_path):
    qsae("saebench", run, "--out", tmp_path)
    rows = read(tmp_path / "core" / "mine_1_6_eval_results.json")["eval_result_details"]
    form = qsae_core.load(run).dense()
    assert form.subtracts_b_dec  # as SAEs here do: its share of a pre-activation is part of the columns' bias
    W, cosine = form.W_enc.double(), torch.nn.functional.cosine_similarity
    between = cosine(W[:, None], W[None], dim=2).fill_diagonal_(-torch.inf)
    for name, expected in (
        ("encoder_bias", form.b_enc.double() - form.W_enc.double() @ form.b_dec.double()),
        ("encoder_norm", W.norm(dim=1)),
        ("max_encoder_cosine_sim", between.max(1).values),
        ("encoder_decoder_cosine_sim", cosine(W, form.W_dec.double(), dim=1)),
    ):
        found = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5, msg=name)


def test_cosines_by_hand():
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    assert max_cosines(rows) == pytest.approx([0.6, 0.8, 0.8, 0.0], abs=1e-7)
    assert max_cosines(rows[:1]) == [None]


def test_a_file_written_again_is_the_same(run, qsae, tmp_path):
    files = []
    for folder in ("one", "two"):
        qsae("saebench", run, "--out", tmp_path / folder)
        files.append((tmp_path / folder / "core" / "mine_1_6_eval_results.json").read_bytes())
    assert files[0] == files[1]


def test_the_float_twin_is_an_sae_of_its_own(run, qsae, tmp_path):
    qsae("saebench", run / "checkpoints" / "float_twin", "--out", tmp_path)
    content = read(tmp_path / "core" / "mine_1_6_float_twin_eval_results.json")
    found = evaluation(run, "float_twin/reconstruction")
    quality = content["eval_result_metrics"]["reconstruction_quality"]
    assert quality["explained_variance"] == found["explained_variance"]
    assert quality["explained_variance"] != evaluation(run, "reconstruction")["explained_variance"]
    assert content["sae_cfg_dict"]["architecture"] == "ternary"


def test_coders_of_single_layers_have_a_file_each(train, qsae, tmp_path):
    run = train("each", "--sae", "topk", "--layers", "1,2", "--per-layer", "--no-compare-float")
    qsae("saebench", run, "--out", tmp_path)
    for layer in ("1", "2"):
        file = tmp_path / "core" / f"each_1-2_6_{layer}_eval_results.json"
        assert read(file)["sae_cfg_dict"]["hook_layer"] == int(layer)
        found = evaluation(run, f"layers/{layer}/sparsity")
        assert read(file)["eval_result_metrics"]["sparsity"]["l1"] == found["l1"]
    one = tmp_path / "one"
    qsae("saebench", run / "checkpoints" / "final" / "2", "--out", one)
    name = "each_1-2_6_2_eval_results.json"
    assert (one / "core" / name).read_bytes() == (tmp_path / "core" / name).read_bytes()


def test_evaluations_that_were_kept_elsewhere(run, qsae, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(run / "evaluations", kept)
    shutil.copytree(run / "checkpoints" / "final", tmp_path / "coder")
    refused = qsae("saebench", tmp_path / "coder", "--out", tmp_path / "out", code=2)
    assert "--evaluations DIR and --release NAME" in refused.stderr
    qsae(
        *("saebench", tmp_path / "coder", "--out", tmp_path / "out"),
        *("--evaluations", kept, "--release", "alone"),
    )
    found = read(tmp_path / "out" / "core" / "alone_coder_eval_results.json")
    assert found["eval_result_metrics"]["sparsity"]["l0"] == evaluation(run, "sparsity")["l0"]
    assert "training_tokens" not in found["sae_cfg_dict"]


def test_what_is_missing_is_named_with_the_command_that_makes_it(run, qsae, tmp_path):
    copy = tmp_path / "mine" / "1" / "6"
    shutil.copytree(run, copy)
    for name in ("loss-recovered", "similarity"):
        shutil.rmtree(copy / "evaluations" / name)
    refused = qsae("saebench", copy, "--out", tmp_path / "out", code=2).stderr
    missing = "loss-recovered, similarity, and none of absorption and sparse-probing"
    assert f"has no results of {missing}" in refused
    four = "--eval loss-recovered --eval similarity --eval absorption --eval sparse-probing"
    assert f"qsae evaluate {copy} {four}" in refused
    assert not (tmp_path / "out").exists()


def test_a_coder_of_several_layers_is_refused(train, qsae, tmp_path):
    run = train("both", "--sae", "crosscoder", "--layers", "1,2", "--no-compare-float")
    refused = qsae("saebench", run, "--out", tmp_path / "out", code=2).stderr
    assert "it reads 2 and writes 2 layers at once" in refused


def test_a_path_that_plots_would_take_for_something_else(run, qsae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "warning" not in qsae("saebench", run, "--out", "bench").stderr
    warned = qsae("saebench", run, "--out", "bench", "--release", "scratch").stderr
    assert "would take this for a file of 'scr'" in warned
