"""Pieces join to the decoded text, whatever the tokenizer."""

from __future__ import annotations

import pytest
from qsae_samples.text import Pieces


def by_bytes(table):
    """A tokenizer of bytes: what is no character decodes to U+FFFD."""
    return lambda ids: b"".join(table[i] for i in ids).decode("utf-8", "replace")


def words(ids):
    """One that loses the space before a first token, as SentencePiece does."""
    return "".join(f" w{i}" for i in ids)[1:]


def test_a_character_of_several_tokens_is_the_piece_of_the_token_that_ends_it():
    table = [b"a", b" b", b"\xe2", b"\x82", b"\xac", b"\xc3\xa9c", b"\xc3", b"\xa9"]
    pieces = Pieces(by_bytes(table)).of([0, 2, 3, 4, 1, 5, 6, 7])
    assert pieces == ["a", "", "", "€", " b", "éc", "", "é"]


def test_two_characters_that_share_a_token():
    table = [b"x", b"\xc3", b"\xa9\xc3", b"\xa8"]
    assert Pieces(by_bytes(table)).of([0, 1, 2, 3]) == ["x", "", "é", "è"]


def test_a_replacement_character_of_the_text_itself():
    table = [b"x", "\N{REPLACEMENT CHARACTER}".encode(), b"y", b"\xff"]
    assert "".join(Pieces(by_bytes(table)).of([0, 1, 2, 3])) == "x\ufffdy\ufffd"
    assert Pieces(by_bytes(table)).of([0, 1, 2])[2] == "y"


def test_spaces_that_a_token_has_behind_others_alone():
    assert Pieces(words).of([3, 4, 3]) == ["w3", " w4", " w3"]


@pytest.mark.parametrize("decode", [lambda ids: str(list(ids)), lambda ids: "-".join(map(str, ids))[::-1]])
def test_where_no_table_can_hold_pieces_they_are_cut_out_of_the_text(decode):
    pieces = Pieces(decode).of([5, 6, 7])
    assert len(pieces) == 3
    assert "".join(pieces) == decode([5, 6, 7])


def test_context_after_context():
    table = [b"a", b" b", b"\xc3", b"\xa9"]
    pieces = Pieces(by_bytes(table))
    assert pieces.of([2, 3, 0]) == ["", "é", "a"]
    assert pieces.of([3, 1]) == ["\ufffd", " b"]
    assert pieces.of([1, 2, 3]) == [" b", "", "é"]
    assert pieces.of([]) == []
