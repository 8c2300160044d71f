"""Bytes of tokens that are a part of a character."""

from __future__ import annotations

import pytest
from qsae_data_lm.byte_tokens import ALPHABET, spelled_bytes
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.loading import load_tokenizer

LOST = "\ufffd"


@pytest.mark.parametrize(
    ("spelling", "text", "raw"),
    [
        ("âĤ", LOST, b"\xe2\x82"),  # GPT-2's letters of two bytes that begin a character
        ("Ġâ", f" {LOST}", b" \xe2"),
        ("¬", LOST, b"\xac"),
        ("<0xE2>", LOST, b"\xe2"),
        ("<0x41>", "A", None),  # a whole character
        ("Ġthe", " the", None),
        ("▁x", LOST, None),  # no spelling of bytes
        ("<0xE2>", LOST * 2, None),  # not what it decodes to
    ],
)
def test_by_hand(spelling: str, text: str, raw: bytes | None) -> None:
    assert spelled_bytes(spelling, text) == raw


def test_the_alphabet_has_a_letter_for_each_byte() -> None:
    """Beside that of the library that tokenizes."""
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(ALPHABET.values()) == list(range(256))
    assert sorted(ALPHABET) == sorted(ByteLevel.alphabet())
    spelled = ByteLevel(add_prefix_space=False).pre_tokenize_str("€ é\x00\n\xad")
    whole = "".join(piece for piece, _ in spelled)
    assert bytes(ALPHABET[letter] for letter in whole) == "€ é\x00\n\xad".encode()


def test_of_the_built_in_model() -> None:
    model = HfLanguageModel.__new__(HfLanguageModel)  # its weights are not needed
    model.tokenizer = load_tokenizer("builtin")
    ids = model.encode("€日本")
    parts = [model.partial_bytes(token) for token in ids]
    assert None not in parts
    assert b"".join(part for part in parts if part) == "€日本".encode()
    assert [model.partial_bytes(token) for token in model.encode("def x")] == [None] * 2
    model.tokenizer = None
    assert model.partial_bytes(ids[0]) is None
