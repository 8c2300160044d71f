"""Numbers and texts of the page."""

import json
import math
import zlib
from base64 import b64decode

import numpy as np
import pytest
from qsae_report import words
from qsae_report.payload import block, json_text, value_block


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0983186, "0.09832"),
        (32885.0, "32,885"),
        (1237.93, "1,238"),
        (1.5, "1.500"),
        (0.0000123, "1.23e\u22125"),
        (-0.5, "\u22120.5000"),
        (0.0, "0"),
        (1e20, "100,000,000,000,000,000,000"),
        (None, "\u2013"),
        (math.nan, "\u2013"),
        (math.inf, "∞"),
        (-math.inf, "\u2212∞"),
    ],
)
def test_numbers(value, text):
    assert words.number(value) == text


def test_shares_and_sizes():
    assert [words.percent(share) for share in (0.0237, 1.0, None, math.nan)] == [
        "2.4%",
        "100.0%",
        "\u2013",
        "\u2013",
    ]
    sizes = [words.size(n) for n in (999, 8_415_883, 1_500_000_000_000, None)]
    assert sizes == ["999 bytes", "8.42 MB", "1.5e+03 GB", "\u2013"]


def test_half_a_surrogate_pair_becomes_a_replacement_character():
    assert words.safe("a\ud83db") == "a\ufffdb"
    assert words.safe("\U0001f600") == "\U0001f600"


def test_json_cannot_end_its_element():
    hostile = {"</script><script>alert(1)</script>": ["<!--", "]]>", "&amp;", "\u2028", "\ud800"]}
    text = json_text(hostile)
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == hostile


def test_what_json_lacks_is_null():
    assert json_text({"a": (math.nan, math.inf, 1.5, None)}) == '{"a":[null,null,1.5,null]}'


def unpacked(text):
    return zlib.decompress(b64decode(text), -15)


def test_arrays_of_a_block():
    made = block(
        "it", {"a": np.array([1, 2, 3], dtype=np.uint8), "b": np.array([[0.5], [-2.0]], dtype=np.float32)}
    )
    raw = unpacked(made.text)
    # three bytes, filled up to eight, so that float32 begin where JavaScript can read them
    assert json.loads(made.about) == [["a", "Uint8Array", 0, 3], ["b", "Float32Array", 8, 2]]
    assert raw[:3] == bytes([1, 2, 3])
    assert np.frombuffer(raw[8:16], dtype="<f4").tolist() == [0.5, -2.0]


def test_big_endian_arrays_are_turned():
    made = block("it", {"a": np.array([258], dtype=">u2")})
    assert unpacked(made.text)[:2] == bytes([2, 1])


def test_values_of_a_block():
    made = value_block("it", ["é", "\ud800"])
    assert json.loads(made.about) is None
    assert json.loads(unpacked(made.text)) == ["é", "\ud800"]
