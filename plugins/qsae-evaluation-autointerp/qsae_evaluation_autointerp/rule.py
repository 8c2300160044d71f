"""The judge ``rule``: tokens, and tokens behind certain others, on which a latent fires.

Imports no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from qsae_evaluation_autointerp.judge import Example, Judge, Window

LARGEST = 20
"""Tokens and pairs in a rule at most."""
NOTHING = "fires on no token more often than not"
NAME = r"""token \d+|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
PART = re.compile(rf"(?P<token>{NAME})(?: after (?P<before>{NAME}))?")
Term = tuple[str | None, str]
"""The name of the token before, None for whichever one it is; and the token's own name."""


class RuleJudge(Judge):
    """The set of tokens and of (previous, current) pairs of largest F1 over the tokens of the examples.

    Built greedily: the term is added that raises F1 most, until none does or there are ``LARGEST``. Of terms
    that raise it alike, the one that covers more firings, then a token before a pair, then by name.
    """

    name = "rule"

    def explain(self, examples: Sequence[Example]) -> str:
        """``fires on ' the', ' a', 'b' after 'a'``: what comes first says most."""
        seen: Counter[Term] = Counter()  # (previous, current) -> how often; each token is in one of them
        fires: Counter[Term] = Counter()
        for window, activations in examples:
            for term, activation in zip(_terms(window), activations, strict=True):
                seen[term] += 1
                fires[term] += activation != 0
        found = [name if before is None else f"{name} after {before}" for before, name in _best(seen, fires)]
        return f"fires on {', '.join(found)}" if found else NOTHING

    def detect(self, explanation: str, windows: Sequence[Window]) -> list[float | None]:
        """1 where a window has one of the tokens or pairs, else 0."""
        rule: set[Term] = {(part["before"], part["token"]) for part in PART.finditer(explanation)}
        return [
            float(any((None, name) in rule or (before, name) in rule for before, name in _terms(window)))
            for window in windows
        ]


def name_of(token: int, piece: str) -> str:
    """A token's name in a rule: its text as a Python literal; by its number where it has none."""
    return repr(piece) if piece else f"token {token}"


def _terms(window: Window) -> Iterator[Term]:
    """Of each token: the name of the one before (empty for the first, as no token is called), and its own."""
    before = ""
    for token, piece in zip(window.ids, window.pieces, strict=True):
        name = name_of(token, piece)
        yield before, name
        before = name


def _best(seen: Counter[Term], fires: Counter[Term]) -> list[Term]:
    """The terms of the rule, in the order in which they were chosen.

    Args:
        seen, fires: of each pair how often it occurs, and how often the latent fires there.
    """
    total = sum(fires.values())
    left: dict[Term, tuple[int, int]] = {}
    """What each term would add: firings, occurrences."""
    pairs_of: dict[str, list[Term]] = {}
    for (before, name), count in seen.items():
        hits = fires[before, name]
        added = left.get((None, name), (0, 0))
        left[None, name] = added[0] + hits, added[1] + count
        if before:
            left[before, name] = hits, count
        pairs_of.setdefault(name, []).append((before, name))
    chosen: list[Term] = []
    hits = size = 0
    while len(chosen) < LARGEST:
        # the F1 of hits firings covered by size occurrences is 2 hits / (size + total)
        candidates = [term for term in left if left[term][0]]
        if not candidates:
            break
        best = min(candidates, key=lambda t: (-_f1(t, left, hits, size, total), -left[t][0], _order(t)))
        if _f1(best, left, hits, size, total) <= 2 * hits / max(size + total, 1):
            break
        chosen.append(best)
        hits, size = hits + left[best][0], size + left[best][1]
        _take(best, left, pairs_of)
    return chosen


def _f1(term: Term, left: dict[Term, tuple[int, int]], hits: int, size: int, total: int) -> float:
    more_hits, more = left[term]
    return 2 * (hits + more_hits) / (size + more + total)


def _order(term: Term) -> tuple[bool, str, str]:
    before, name = term
    return before is not None, name, before or ""


def _take(term: Term, left: dict[Term, tuple[int, int]], pairs_of: dict[str, list[Term]]) -> None:
    """What the term covers is added by no other one any more."""
    before, name = term
    if before is None:
        for pair in pairs_of[name]:
            left.pop(pair, None)
    else:
        whole = left[None, name]
        left[None, name] = whole[0] - left[term][0], whole[1] - left[term][1]
    del left[term]
