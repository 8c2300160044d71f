"""Which tokens of a rendered conversation lie in the text that counts. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsae_data_lm.packing import Tokens

Encoded = tuple[Tokens, NDArray[np.bool_] | None]
"""Tokens, and of each whether it counts; None: all."""
Spans = Sequence[tuple[int, int]]
"""Where characters stand that count, ascending: from, and up to before."""


def encode_spans(tokenizer: Any, texts: Iterable[tuple[str, Spans]]) -> list[Encoded]:
    """Tokens of whole texts, special tokens that they spell included, and which lie in the spans.

    A token counts if it is made of characters of spans alone: one that joins the template's last character
    with a message's first does not.

    Args:
        tokenizer: of transformers, a fast one.
    """
    from tokenizers import processors

    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = False
    before = backend.post_processor
    # with special tokens off, this one alone moves offsets: it would leave out a token's first space
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    try:
        pairs = list(texts)
        found = backend.encode_batch([text for text, _ in pairs], add_special_tokens=False)
    finally:
        backend.post_processor = before
    return [
        (np.array(encoding.ids, dtype=np.int32), inside(encoding.offsets, len(text), spans))
        for encoding, (text, spans) in zip(found, pairs, strict=True)
    ]


def inside(offsets: Sequence[tuple[int, int]], n_characters: int, spans: Spans) -> NDArray[np.bool_]:
    """Of each token, whether all of its characters, of which there is one at least, are in spans.

    Args:
        offsets: (first character, the one behind the last) of each token.
        n_characters: of the text.
    """
    counts = np.zeros(n_characters + 1, dtype=np.int64)
    for start, end in spans:
        counts[start + 1 : end + 1] = 1
    counts = counts.cumsum()  # counts[i]: of the first i characters, how many are in spans
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    return (ends > starts) & (counts[ends] - counts[starts] == ends - starts)
