"""What language models are asked, and how their answers are read. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from qsae_evaluation_autointerp.judge import Example, Window

OPEN, CLOSE = "⟦", "⟧"
STRONGEST = 10
"""How strong the strongest activation of all examples is called."""
EXPLAIN = f"""\
A feature of a language model fires on some tokens of a text and is silent on all others. You are shown \
texts in which it fires: the tokens on which it does are between {OPEN} and {CLOSE}, and below each they are \
listed with how strongly it fires on them, from 1 to {STRONGEST}.

Say in one short line what the feature is about: what these tokens, or what stands before them, have in \
common and other tokens have not. Answer with that line alone."""
DETECT = """\
A feature of a language model fires on some tokens of a text and is silent on all others. You are given a \
description of the feature, and numbered texts. Of each text, say whether the feature fires on at least one \
of its tokens.

Answer with a list of as many 0s and 1s as there are texts, in their order, such as [0, 1, 1]: 1 where it \
fires, 0 where it does not. Answer with that list alone."""
DETECT_ONE = """\
A feature of a language model fires on some tokens of a text and is silent on all others. Does a feature \
with this description fire in this text? Answer Yes or No."""
_LIST = re.compile(r"\[\s*[01](?:\s*,\s*[01])*\s*,?\s*\]")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")


class Prompt(NamedTuple):
    """A question to a language model."""

    system: str
    """What its task is."""
    user: str
    """What it is shown."""


def explain(examples: Sequence[Example]) -> Prompt:
    """What is a latent about that fires so?"""
    strongest = max(abs(a) for example in examples for a in example.activations)
    shown = [f"Text {n}:\n{_marked(e, strongest)}" for n, e in enumerate(examples, 1)]
    return Prompt(EXPLAIN, "\n\n".join(shown))


def _marked(example: Example, strongest: float) -> str:
    pairs = list(zip(example.window.pieces, example.activations, strict=True))
    text = "".join(f"{OPEN}{piece}{CLOSE}" if a else piece for piece, a in pairs)
    fires = [f"{piece!r} {_strength(a, strongest)}" for piece, a in pairs if a]
    return f"{text}\n({', '.join(fires)})"


def _strength(activation: float, strongest: float) -> int:
    return max(1, round(STRONGEST * abs(activation) / strongest))


def detect(explanation: str, windows: Sequence[Window]) -> Prompt:
    """In which of the windows does it fire?"""
    shown = [f"Text {n}:\n{''.join(w.pieces)}" for n, w in enumerate(windows, 1)]
    return Prompt(DETECT, "\n\n".join([f"Description: {explanation}", *shown]))


def detect_one(explanation: str, window: Window) -> Prompt:
    """Does it fire in this window?"""
    return Prompt(DETECT_ONE, f"Description: {explanation}\n\nText:\n{''.join(window.pieces)}")


def read_explanation(answer: str) -> str:
    """The answer, if it is a single line besides empty ones; else empty."""
    lines = [line.strip() for line in answer.split("\n") if line.strip()]
    return lines[0] if len(lines) == 1 else ""


def read_list(answer: str, n: int) -> list[float | None]:
    """The n 0s and 1s of the only list in brackets; None for each window where it is not so."""
    brackets = _BRACKETS.findall(answer)
    if len(brackets) == 1 and _LIST.fullmatch(brackets[0]):
        found: list[float | None] = [float(digit) for digit in re.findall("[01]", brackets[0])]
        if len(found) == n:
            return found
    return [None] * n
