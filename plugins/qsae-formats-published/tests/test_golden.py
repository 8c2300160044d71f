"""Files as the published ones, beside their formulas and SAELens' loaders (``write_golden.py``)."""

from __future__ import annotations

import pathlib

import pytest
import torch
from safetensors.torch import load_file

from qsae_core.conformance import check_golden, peer
from qsae_core.contracts import Provenance
from qsae_core.errors import ArtifactError
from qsae_core.runs import load_plugins

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE / "golden"
REFUSED = "openai_refused"
CASES = [folder.name for folder in sorted(GOLDEN.iterdir()) if folder.name != REFUSED]


def form_of(case):
    name = case.partition("_")[0]
    registry = load_plugins().registry
    return registry.load_target(registry.get("format", name))(registry.get("format", name).config())


def read(case, *, layer=None):
    path = next((GOLDEN / case).glob("checkpoint*"))
    form = form_of(case)
    return form.read(path if layer is None else form.members(path)[layer])


@pytest.mark.parametrize("case", CASES)
def test_the_formula_of_its_library(case):
    check_golden(GOLDEN / case, case.partition("_")[0], writes=False)


@pytest.mark.parametrize(
    ("case", "others", "worst"),
    [
        # SAELens puts a ReLU behind the k largest, of which some are negative
        ("qwen-scope", 0.114, 1.41),
        # it compares thresholds without the atoms' norms
        ("llama-scope", 0.042, 1.83),
        ("llama-scope-r1", 0.066, 7.04),
        # and has another unit for latents, which its atoms make up for
        ("llama-scope_one-norm", 0.0, 0.0),
        ("llama-scope-r1_plain", 0.0, 0.0),
        ("goodfire", 0.0, 0.0),
        ("deepseek-r1", 0.0, 0.0),
        ("ckkissane", 0.0, 0.0),
    ],
)
def test_saelens_computes_the_same_or_not(case, others, worst):
    """Share of latents that are active for one of them alone, and the largest difference of outputs."""
    found = load_file(GOLDEN / case / "expected.safetensors")
    first = "0/" if case in ("qwen-scope", "ckkissane") else ""
    ours, theirs = (found[f"{first}{who}latents"] for who in ("", "saelens_"))
    assert ((ours != 0) != (theirs != 0)).double().mean().item() == pytest.approx(others, abs=6e-4)
    difference = found[f"{first}reconstruction"] - found[f"{first}saelens_reconstruction"]
    assert difference.abs().max().item() == pytest.approx(worst, abs=6e-3)
    notes = read(case, layer="0" if first else None).notes
    assert any("SAELens" in note for note in notes) == (case.startswith(("llama", "qwen")))


def test_openais_topk_is_refused_with_the_reason():
    path = GOLDEN / REFUSED / "checkpoint.pt"
    form = form_of(REFUSED)
    assert form.recognizes(path)
    with pytest.raises(ArtifactError, match="'TopK': with it each token is divided by its own deviation"):
        form.read(path)


def test_what_is_folded_keeps_its_type_where_nothing_is_to_fold():
    types = {name: str(t.dtype) for name, t in read("llama-scope_one-norm").dense.tensors().items()}
    assert types["W_enc"] == types["W_dec"] == "torch.bfloat16"  # in and out have one norm, atoms keep theirs
    assert types["b_enc"] == types["b_dec"] == "torch.float32"
    for case in ("qwen-scope", "goodfire", "deepseek-r1", "openai", "ckkissane", "llama-scope-r1_plain"):
        dense = read(case, layer="0" if case in ("qwen-scope", "ckkissane") else None).dense
        kinds = {t.dtype for name, t in dense.tensors().items() if name != "threshold"}
        assert kinds == {torch.bfloat16 if case == "deepseek-r1" else torch.float32}, case


PLACES = {
    ("qwen-scope", "3"): Provenance.at(3, "resid_post", model="Qwen/Qwen3-1.7B-Base"),
    ("llama-scope_set", "11"): Provenance.at(11, "mlp_out", model="meta-llama/Llama-3.1-8B"),
    ("llama-scope", None): Provenance.at(3, "resid_post"),
    ("llama-scope_transcoder", None): Provenance(),  # ln2.hook_normalized is no site
    ("llama-scope-r1", None): Provenance.at(3, "resid_post"),
    ("goodfire", None): Provenance.at(19, "resid_post", model="meta-llama/Llama-3.1-8B-Instruct"),
    ("deepseek-r1", None): Provenance.at(19, "resid_post", model="deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    ("openai", None): Provenance(),
    ("ckkissane", "7"): Provenance(),  # hook_z is no site
    ("ckkissane_crosscoder", None): Provenance(),
}


@pytest.mark.parametrize(("case", "layer"), PLACES)
def test_where_the_vectors_are_from(case, layer):
    assert read(case, layer=layer).provenance == PLACES[case, layer]


@pytest.mark.peer
def test_another_seed(tmp_path):
    peer("sae-lens").run(HERE / "write_golden.py", tmp_path, "--seed", 5)
    for case in CASES:
        check_golden(tmp_path / case, case.partition("_")[0], writes=False)
    for case in ("goodfire", "deepseek-r1", "llama-scope-r1_plain"):
        found = load_file(tmp_path / case / "expected.safetensors")
        for name in ("latents", "reconstruction"):
            assert torch.allclose(found[name], found[f"saelens_{name}"], atol=1e-4), case
