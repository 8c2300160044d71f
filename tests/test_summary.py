"""How coders are called in tables."""

import pytest

from qsae_cli.summary import labels, print_coders
from qsae_core.results.words import coder_label


@pytest.mark.parametrize(
    ("quantizers", "shown"),
    [
        ({"quantizer": "ste", "encoder_quantizer": "none", "code_quantizer": "none"}, "topk (ste)"),
        ({"quantizer": "ste", "encoder_quantizer": "ste", "code_quantizer": "none"}, "topk (ste)"),
        (
            {"quantizer": "ste", "encoder_quantizer": "rtn", "code_quantizer": "ste"},
            "topk (ste, encoder rtn, codes ste)",
        ),
        ({"quantizer": "none", "encoder_quantizer": "none", "code_quantizer": "ste"}, "topk (codes ste)"),
        ({"quantizer": "none", "encoder_quantizer": "rtn", "code_quantizer": "none"}, "topk (encoder rtn)"),
        ({"quantizer": "none", "encoder_quantizer": "none", "code_quantizer": "none"}, "topk (none)"),
        ({"encoder_quantizer": "none", "code_quantizer": "none"}, "topk"),
        ({"encoder_quantizer": "ste"}, "topk (encoder ste)"),
        ({}, "topk"),
    ],
)
def test_a_label_says_what_is_quantized(quantizers, shown):
    assert coder_label("topk", quantizers) == shown


def test_the_twin_is_not_called_after_another_sae():
    named = labels({"sae": {"use": "residual-quantized"}, "sparsity": {"use": "batchtopk"}})
    assert named == {"coder": "residual-quantized", "float_twin": "full-precision twin, same size and budget"}


def test_what_coders_were_measured_on_is_said_once_where_it_is_the_same(capsys):
    """The twin has no evaluation of quantization error; that is no other count of vectors."""
    artifact = {"bits_per_weight": {}, "bytes": 1, "times_smaller": 1.0}
    rows = [
        (
            name,
            {
                "artifact": artifact,
                "measured": {"what": "a text", "warning": None},
                "evaluations": {"sparsity": {"n_tokens": n}, "quantization-error": quantization_error},
            },
        )
        for name, n, quantization_error in (
            ("coder", 9, {"n_tokens": 9}),
            ("twin", 9, {}),
            ("other", 8, {}),
        )
    ]
    print_coders(rows, "")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("measured")]
    assert said == ["measured on 9 vectors of a text", "measured on 8 vectors of a text"]
