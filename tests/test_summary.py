"""How coders are called in tables."""

import pytest

from qsae_cli.summary import labels
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
