"""The model card: what it says, by hand."""

from __future__ import annotations

import pytest
import yaml
from qsae_hub.address import Address
from qsae_hub.card import header_of, stands_as_written, write_card
from qsae_hub.known import known

COMMIT = "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"
RECORD = {
    "sae": {"use": "ternary", "n_latents": 16384},
    "quantizer": {"use": "ste", "grid": "ternary", "n_bits": None},
    "encoder_quantizer": {"use": "ste", "grid": "uniform", "n_bits": 4},
    "code_quantizer": {"use": "none"},
    "activation": {"use": "relu"},
    "sparsity": {"use": "topk", "k": 32},
    "data": {"use": "lm", "dataset": "Skylion007/openwebtext"},
    "versions": {"qsae": "0.1.0", "torch": "2.13.0"},
}
SOURCE = {
    "model": "HuggingFaceTB/SmolLM2-135M",
    "revision": COMMIT,
    "source_sites": ["9.resid_post"],
    "target_sites": ["9.resid_post"],
    "context": 256,
}
METRICS = {
    "model": "smollm2-135m",
    "layer": "9",
    "steps": 500,
    "tokens": 512000,
    "coders": {
        "coder": {
            "artifact": {
                "bytes": 1234567,
                "times_smaller": 10.84,
                "bits_per_weight": {"W_dec": 1.694, "W_enc": 4.06},
            },
            "evaluations": {
                "reconstruction": {
                    "n_tokens": 32885.0,
                    "fvu": 0.17394,
                    "cosine": 0.91,
                    "l0": 32.0,
                    "dead_fraction": 0.0213,
                },
                "loss-recovered": {"n_tokens": 8378.0, "ce_recovered": 0.9731, "kl": 0.13859},
                "sparsity": {"unavailable": "not today"},
            },
            "measured": {
                "what": "the 34 held-out of the 686 documents of openwebtext",
                "documents": 11,
                "warning": None,
            },
        }
    },
}
DESCRIPTION = {
    "shape": {"d_in": 576, "d_out": 576},
    "distributions": {
        "sae": {"name": "qsae-sae-ternary", "version": "0.1.0"},
        "activation": {"name": "qsae-activations"},
    },
    "source": SOURCE,
}
PLACE = Address("me/saes")


def card(*coders, **options):
    return write_card(PLACE, coders, **({"license": None, "base_models": (), "before": None} | options))


def one(root="", record=RECORD, metrics=METRICS, descriptions=None):
    return known(root, record, metrics, descriptions or {"": DESCRIPTION})


def test_the_header_and_the_table_by_hand():
    text = card(one(), license="apache-2.0")
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "library_name": "qsae",
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M",
        "tags": [
            "sparse-autoencoder",
            "interpretability",
            "mechanistic-interpretability",
            "ternary",
            "quantized",
        ],
    }
    lines = text.splitlines()
    model = "[HuggingFaceTB/SmolLM2-135M](https://huggingface.co/HuggingFaceTB/SmolLM2-135M)"
    for line in (
        f"A sparse autoencoder of hidden states of {model}, made with qsae.",
        f"| base model | {model} at {COMMIT} |",
        "| reads | layer 9, resid_post |",
        "| architecture | ternary, sparsity topk (k = 32), activation relu |",
        "| latents | 16,384 |",
        "| width | 576 |",
        "| quantized | decoder: ste (ternary); encoder: ste (uniform, 4 bits) |",
        "| trained on | 512,000 tokens of Skylion007/openwebtext |",
        "| context | 256 tokens |",
        "|  | FVU | cosine | L0 | dead | CE recovered | KL | bits/weight, decoder | encoder | bytes "
        "| x smaller | tokens |",
        "| ternary (ste) | 0.1739 | 0.9100 | 32.0 | 2.1% | 97.3% | 0.1386 | 1.69 | 4.06 | 1,234,567 | 10.8 "
        "| 32,885 (FVU, cosine, L0, dead), 8,378 (CE recovered, KL) |",
        "Measured on 32,885 (reconstruction) and 8,378 (loss-recovered) vectors of 11 documents, among the "
        "34 held-out of the 686 documents of openwebtext.",
        'coder = qsae_core.load("hf://me/saes")',
        "qsae pull me/saes --out pulled",
        "`pip install qsae qsae-hub qsae-sae-ternary qsae-activations`",
    ):
        assert line in lines, line
    assert not [line for line in lines if line.startswith("| reconstructs")]


def test_a_transcoder_of_several_layers_in_a_folder_at_a_revision():
    record = {k: v for k, v in RECORD.items() if k != "sae"} | {
        "transcoder": {"use": "transcoder", "n_latents": 64}
    }
    layers = {}
    for layer in ("1", "2"):
        sites = {"source_sites": [f"{layer}.mlp_in"], "target_sites": [f"{layer}.mlp_out"]}
        source = {"model": "/home/me/models/llama", "revision": None, **sites}
        layers[layer] = DESCRIPTION | {"source": source}
    metrics = {"coders": {"coder": {"layers": {"1": METRICS["coders"]["coder"]}}}}
    coder = known("tc/all", record, metrics, layers)
    text = write_card(
        Address("me/saes", "v2"), [coder], license=None, base_models=["meta-llama/Llama-3.2-1B"], before=None
    )
    header = header_of(text)
    assert header["base_model"] == "meta-llama/Llama-3.2-1B"
    assert header["tags"][0] == "transcoder"
    assert "license" not in header
    assert "/home/me" not in text  # a folder of this machine, by its name alone
    assert "transcoders of hidden states of llama, made with qsae." in text.lower()
    assert "| reads | layer 1, mlp_in; layer 2, mlp_in |" in text
    assert "| reconstructs | layer 1, mlp_out; layer 2, mlp_out |" in text
    assert 'coders = qsae_core.load_set("hf://me/saes@v2/tc/all")  # coders["1"] is that of one layer' in text
    assert "qsae pull me/saes --path tc/all --revision v2 --out pulled" in text
    assert "| layer 1 | 0.1739 |" in text


def test_several_coders_have_a_table_together_and_a_section_each():
    text = card(one("layer-9/4bit"), one("layer-9/none", metrics=None), one(""))
    assert "## Coders" in text
    assert "| layer-9/4bit | ternary (ste) | 9.resid_post | 0.1739 |" in text
    assert "| layer-9/none | ternary (ste) | 9.resid_post |  |" in text
    for title in ("## `layer-9/4bit`", "## `layer-9/none`", "## The repository itself"):
        assert title in text
    assert header_of(text)["base_model"] == "HuggingFaceTB/SmolLM2-135M"


def test_a_card_knows_whether_it_was_changed():
    text = card(one(), license="mit")
    assert stands_as_written(text)
    assert text == card(one(), license="mit")  # nothing in it hangs on when it was written
    for changed in (
        text.replace("license: mit", "license: gpl"),
        text + "\n",
        text.replace("0.1739", "0.0739"),
    ):
        assert changed != text
        assert not stands_as_written(changed)
    assert not stands_as_written("# mine\n")
    assert not stands_as_written("")


def test_what_was_said_in_the_header_before_is_kept():
    before = card(one(), license="mit", base_models=["org/other"])
    assert header_of(before)["base_model"] == ["HuggingFaceTB/SmolLM2-135M", "org/other"]
    again = header_of(card(one(), before=before))
    assert again == header_of(before)
    assert header_of(card(one(), before=before, license="apache-2.0"))["license"] == "apache-2.0"
    assert header_of("---\n: {\n---\n") == header_of("no header") == {}


def test_a_quantized_coder_is_of_the_model_that_it_was_imported_for():
    """The run read saved vectors; the coder is for those that its own record names."""
    record = RECORD | {"data": {"use": "tensors"}, "data_record": {"paths": ["states.pt"]}}
    source = {key: value for key, value in SOURCE.items() if key != "revision"}
    source |= {"imported_from": {"path": "theirs", "format": "saelens"}}
    text = card(one("", record, METRICS | {"model": "states"}, {"": DESCRIPTION | {"source": source}}))
    model = "[HuggingFaceTB/SmolLM2-135M](https://huggingface.co/HuggingFaceTB/SmolLM2-135M)"
    assert header_of(text)["base_model"] == "HuggingFaceTB/SmolLM2-135M"
    for line in (
        f"| base model | {model} |",
        "| reads | layer 9, resid_post |",
        "| trained on | 512,000 tokens |",
        "| imported from | theirs (format saelens) |",
    ):
        assert line in text.splitlines(), line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"model": "states", "layer": "tensors", "paths": []}, "| data | states |"),
        (
            {"model": "models/llama", "revision": None, "imported_from": {}},
            "| data | llama |",
        ),  # a folder here
        (
            {"model": "org/llama", "imported_from": {}},
            "| base model | [org/llama](https://huggingface.co/org/llama) |",
        ),
    ],
)
def test_whose_vectors_a_card_names(source, said):
    assert said in card(one("", descriptions={"": DESCRIPTION | {"source": source}})).splitlines()


@pytest.mark.parametrize("hostile", ["a|b\nc", "<script>x</script>", "[x](http://evil)", "`x`\n## Title"])
def test_what_others_wrote_into_their_records_is_no_markup(hostile):
    record = RECORD | {"sae": {"use": hostile, "n_latents": hostile}, "data": {"dataset": hostile}}
    source = {"model": hostile, "source_sites": [hostile], "target_sites": 3, "revision": hostile}
    record["data_record"] = {"text": hostile}
    metrics = {
        "coders": {"coder": {"measured": {"what": hostile}, "evaluations": {"x": {"n_tokens": 3, "fvu": 1}}}}
    }
    text = card(one("a", record, metrics, {"": DESCRIPTION | {"source": source}}), one("b"))
    assert "<script>" not in text
    assert "\n## Title" not in text
    rows = [line for line in text.splitlines() if line.startswith("| a |")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == next(
        r for r in text.splitlines() if r.startswith("| b |")
    ).count("|")


@pytest.mark.parametrize("record", [None, 3, [], {}, {"sae": 3}, {"data_record": []}])
@pytest.mark.parametrize(
    "metrics", [None, 3, {"coders": [1]}, {"coders": {"coder": 3}}, {"coders": {"x": {"layers": 1}}}]
)
def test_records_that_are_none(record, metrics):
    text = card(known("a", record, metrics, {"": 3}), one("b"))
    assert "## `a`" in text
    assert stands_as_written(text)
