"""Labels of Python source by hand: which characters a token spells, and what it stands in."""

from __future__ import annotations

import itertools

import pytest
from qsae_evaluation_sparse_probing.source import read_source
from qsae_evaluation_sparse_probing.spelling import Speller
from qsae_evaluation_sparse_probing.tasks import NEGATIVE, NO_TASK, POSITIVE, TASKS, labels_of

TEXT = '''\
import os as system
def go(self, x=1):  # of x
    """Say."""
    return self.size + f(y, [len(system)])
'''
WORDS = 'import| os| as| system|\n|def| go|(|self|,| x|=|1|):|  #| of| x|\n    |"""|Say|."""|\n    return|'
WORDS += " self|.|size| +| f|(|y|,| [|len|(|system|)])|\n"


def labels(text: str, pieces: list[str], contexts: list[int] | None = None) -> dict[str, list[int]]:
    """Task -> label of each piece."""
    speller = Speller(lambda ids: "".join(pieces[i] for i in ids))
    spelled = speller.spell(range(len(pieces)))
    assert spelled.text == text
    source = read_source(text)
    assert source is not None
    rows = labels_of(spelled, source, contexts or [0] * len(pieces))
    return {task: [row[number] for row in rows] for number, task in enumerate(TASKS)}


def said(task: str, label: int, contexts: list[int] | None = None) -> str:
    """The pieces of ``TEXT`` that a task gives a label, without white space."""
    found = labels(TEXT, WORDS.split("|"), contexts)[task]
    return " ".join(w.strip() for w, own in zip(WORDS.split("|"), found, strict=True) if own == label)


@pytest.mark.parametrize(
    ("task", "positives"),
    [
        ("keyword", "import as def return"),
        ("string", '""" Say ."""'),
        ("comment", "# of x"),
        ("def-header", "def go ( self , x = 1 ):"),
        ("brackets", "len ( system )])"),
        ("line-start", "import def return"),
        ("number", "1"),
        ("defined", "self system"),
        ("after-self", "size"),
    ],
)
def test_positives(task, positives):
    assert said(task, POSITIVE) == positives


@pytest.mark.parametrize(
    ("task", "negatives"),
    [
        ("keyword", "os system go self x self size f y len system"),
        ("comment", said("string", NEGATIVE) + ' """ Say ."""'),
        ("defined", "f y len"),
        ("after-self", ""),
    ],
)
def test_negatives(task, negatives):
    assert sorted(said(task, NEGATIVE).split()) == sorted(negatives.split())


def test_white_space_alone_is_of_no_task():
    found = labels("x = 1\n", ["x", " ", "=", " 1", "\n"])
    assert {own[1] for own in found.values()} == {own[4] for own in found.values()} == {NO_TASK}


def test_a_definition_counts_within_the_window_alone():
    pieces = ["x", " = 1\n", "y", " = ", "x", "\n"]
    assert labels("x = 1\ny = x\n", pieces)["defined"][4] == POSITIVE
    assert labels("x = 1\ny = x\n", pieces, [0, 0, 1, 1, 1, 1])["defined"][4] == NEGATIVE


def test_only_the_first_piece_of_a_name_is_asked_whether_it_is_a_keyword():
    assert labels("handler = 1\n", ["hand", "ler", " = 1\n"])["keyword"] == [NEGATIVE, NO_TASK, NO_TASK]


def test_a_formatted_string_is_one_string_in_every_version_of_python():
    pieces = ['f"', "a", "{", "b", '!r}"', "\n", "c = 1\n"]
    assert labels('f"a{b!r}"\nc = 1\n', pieces)["string"] == [1, 1, 1, 1, 1, -1, 0]


def test_a_header_ends_at_its_own_colon():
    pieces = ["def", " f(x", "={1:", " 2}):", " z"]
    assert labels("def f(x={1: 2}): z", pieces)["def-header"] == [1, 1, 1, 1, 0]


def test_names_behind_characters_of_several_bytes_are_found():
    pieces = ["é = 1; ", "y", " = ", "é", "\n"]
    assert labels("é = 1; y = é\n", pieces)["defined"][3] == POSITIVE


@pytest.mark.parametrize(
    "text", ["Dear reader,\n", "words\nalone\n", "x = (\n", "x = 1\ry = 2\n", "x = '\0'\n", ""]
)
def test_what_is_no_python(text):
    assert read_source(text) is None


def test_a_fragment_that_begins_in_a_block_is_read_as_a_block():
    source = read_source("    x = 1\n\ndef f():\n    return 2\n")
    assert source is not None
    assert [(t.kind, t.start) for t in source.tokens][:2] == [("name", 4), ("operator", 6)]


def test_a_text_that_is_cut_is_read_up_to_its_last_whole_statement():
    text = "x = 1\ndef f(y):\n    return (y,\n"
    assert read_source(text) is None
    source = read_source(text, cut=True)
    assert source is not None
    assert [text[t.start : t.end] for t in source.tokens] == ["x", "=", "1"]


BYTES = "aé→b".encode()


def test_tokens_that_share_a_character_share_its_place():
    # a byte a token: a | é of two | → of three | b
    spelled = Speller(lambda ids: bytes(BYTES[i] for i in ids).decode(errors="replace")).spell(range(7))
    assert spelled.text == "aé→b"
    assert spelled.spans == [(0, 1), *[(1, 3)] * 5, (3, 4)]


def test_a_tokenizer_that_drops_the_first_space():
    # as sentencepiece does: the space belongs to the token, and what is decoded begins without it
    words = ["▁x", "▁=", "▁1"]
    spelled = Speller(lambda ids: "".join(words[i] for i in ids).replace("▁", " ").lstrip(" ")).spell(
        [0, 1, 2, 0]
    )
    assert spelled.text == "x = 1 x"
    assert spelled.spans == [(0, 1), (1, 3), (3, 5), (5, 7)]


def test_every_word_is_looked_up_once():
    asked = itertools.count()

    def decode(ids):
        next(asked)
        return "x" * len(ids)

    Speller(decode).spell([1] * 1000)
    assert next(asked) < 10
