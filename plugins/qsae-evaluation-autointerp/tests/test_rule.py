"""The judge ``rule`` by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsae_evaluation_autointerp.judge import Example, Window
from qsae_evaluation_autointerp.rule import LARGEST, NOTHING, RuleJudge, name_of


def window(text: str) -> Window:
    """A token a letter, with its number in Unicode."""
    return Window(tuple(map(ord, text)), tuple(text), 0)


def example(text: str, fires: str) -> Example:
    """``fires`` has an x where the latent fires."""
    return Example(window(text), tuple(float(mark == "x") for mark in fires))


def test_a_token() -> None:
    judge = RuleJudge()
    rule = judge.explain([example("abcab", "x..x."), example("cabcc", ".x...")])
    assert rule == "fires on 'a'"
    assert judge.detect(rule, [window("bbab"), window("bbbb"), window("a")]) == [1.0, 0.0, 1.0]


def test_a_pair_where_the_token_alone_says_less() -> None:
    """b fires behind a alone: the token has F1 2*2 / (4+2) = .67, the pair 2*2 / (2+2) = 1."""
    judge = RuleJudge()
    rule = judge.explain([example("abcb", ".x.."), example("bcab", "...x")])
    assert rule == "fires on 'b' after 'a'"
    assert judge.detect(rule, [window("cab"), window("cb"), window("b"), window("ba")]) == [
        1.0,
        0.0,
        0.0,
        0.0,
    ]


def test_a_token_that_costs_more_than_it_brings_is_left_out() -> None:
    """3 firings on a, 1 of 7 on b. With a alone F1 = 6/7 = .857; with b too 8 / (10+4) = .571; the pairs of b
    occur once and do not fire, but the one of the firing: with it 8 / (4+4) = 1."""
    rule = RuleJudge().explain([example("aaabcbdbebfbgbh", "xxx........x...")])
    assert rule == "fires on 'a', 'b' after 'f'"


def test_of_terms_that_are_as_good_the_token_is_taken() -> None:
    """a and 'a after c' both cover the firing."""
    assert RuleJudge().explain([example("cab", ".x.")]) == "fires on 'a'"
    assert RuleJudge().explain([example("dcba", "x.x.")]) == "fires on 'b', 'd'"


def test_a_rule_has_an_end() -> None:
    letters = "".join(map(chr, range(97, 97 + 26)))
    rule = RuleJudge().explain([example(letters, "x" * 26)])
    assert rule.count(",") == LARGEST - 1


def test_what_fires_nowhere() -> None:
    judge = RuleJudge()
    assert judge.explain([example("abc", "...")]) == NOTHING
    assert judge.detect(NOTHING, [window("abc")]) == [0.0]


def test_another_judges_words_do_not_matter_to_it_unless_they_name_tokens() -> None:
    assert RuleJudge().detect("it fires on letters after vowels", [window("after")]) == [0.0]


def test_the_first_token_of_a_window_is_behind_none() -> None:
    """That of a token without text is a name of its own."""
    judge = RuleJudge()
    silent = Window((7, 98), ("", "b"), 0)
    rule = judge.explain([Example(silent, (0.0, 1.0)), example("b", "."), example("b", ".")])
    assert rule == "fires on 'b' after token 7"
    assert judge.detect(rule, [silent, window("b")]) == [1.0, 0.0]


ODD = st.sampled_from(["'", '"', "\\", " after ", ", ", "\n", "'a' after 'b'", "token 3", "", "⏎", "\ud7ff"])


@given(st.lists(st.tuples(st.integers(0, 5), ODD | st.text(max_size=3)), min_size=1, max_size=12), st.data())
def test_a_sentence_says_the_rule_whatever_tokens_are_called(tokens: list, data: st.DataObject) -> None:
    """What is detected by the words is what the words were made of: the window itself."""
    ids, pieces = zip(*tokens, strict=True)
    at = data.draw(st.integers(0, len(tokens) - 1))
    activations = tuple(float(i == at) for i in range(len(tokens)))
    judge = RuleJudge()
    rule = judge.explain([Example(Window(ids, pieces, 0), activations)])
    assert "\n" not in rule
    assert judge.detect(rule, [Window(ids, pieces, 0)]) == [1.0]
    other = "another" + "".join(pieces)
    assert judge.detect(rule, [Window((9,), (other,), 0)]) == [0.0]


@pytest.mark.parametrize(
    ("token", "piece", "name"), [(5, " the", "' the'"), (5, "", "token 5"), (5, "'", '"\'"')]
)
def test_names(token: int, piece: str, name: str) -> None:
    assert name_of(token, piece) == name
