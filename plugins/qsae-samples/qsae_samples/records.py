"""What is known of a latent, of one of its examples, and of a random window. Imports no torch.

Shapes: W tokens of a window, Q parts by rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Example(NamedTuple):
    """A firing of a latent, and the text around it."""

    group: int
    """0: one of the strongest; 1 to Q: of that part of the latent's firings by rank, 1 the strongest."""
    pieces: list[str]
    """The text of each token; joined, the text of the window. One may be empty: a token that begins a
    character which a later one ends."""
    activations: Floats
    """float32 ``[W]``: the latent's, at each token; 0 where it is silent, and at tokens that are left out."""
    token_ids: NDArray[np.uint32]
    peak: int
    """Which of the tokens the example is about."""
    context: int
    """Of the held-out data, counted from 0."""
    position: int
    """Of the token that the example is about, in its context."""
    document: int
    """Of the held-out data, counted from 0; -1 where that is not known."""

    @property
    def value(self) -> float:
        """The activation that the example is about."""
        return float(self.activations[self.peak])

    @property
    def token(self) -> str:
        """The text of the token that the example is about; of one that begins a character or goes on with it,
        that character, where the window has its end."""
        return next((piece for piece in self.pieces[self.peak :] if piece), "")

    @property
    def text(self) -> str:
        """The text of the window."""
        return "".join(self.pieces)


class Logit(NamedTuple):
    """A next token that an atom raises or lowers."""

    token_id: int
    text: str
    value: float
    """Its logit where the atom takes the place of the last layer's output, less that of zeros there."""
    raw: bytes | None = None
    """Of a token that is a part of a character: its bytes, where the tokenizer says them."""

    @property
    def literal(self) -> str:
        """What it is, as a Python literal: text, or bytes."""
        return repr(self.text if self.raw is None else self.raw)


class Latent(NamedTuple):
    """All that is known of one latent."""

    number: int
    firings: int
    """Tokens on which it fires."""
    density: float
    """Of all tokens, the share on which it fires."""
    mean: float | None
    """Of the magnitude of its activation where it fires; None where it never does."""
    largest: float
    """The largest magnitude of its activation; 0 where it never fires."""
    histogram: NDArray[np.uint32]
    """Firings by magnitude, the weakest first; the first bin holds all that is weaker, too."""
    edges: NDArray[np.float64]
    """Magnitudes between which the bins lie; one more than there are bins."""
    group_floors: Floats
    """float32 ``[Q]``: the least magnitude of each part by rank; NaN where it never fires."""
    examples: list[Example]
    """Ordered by group, and within it the strongest first."""
    cofiring: list[tuple[int, float]]
    """Latents that fire together with it, and, of the tokens on which one of the two fires, the share on
    which both do."""
    raises: list[Logit] | None
    """The tokens that what it writes speaks most for; None where that was not asked or cannot be."""
    lowers: list[Logit] | None
    """And most against."""
    logit_mean: float | None = None
    """Of the logits of all tokens, on the scale of ``raises``."""
    logit_histogram: NDArray[np.uint32] | None = None
    """Tokens by logit, the lowest first: in bins of equal width from the least logit, ``lowers[0]``, to the
    largest, ``raises[0]``. None where there is none, or samples are from before it was kept."""

    @property
    def top(self) -> list[Example]:
        """The strongest examples."""
        return [example for example in self.examples if example.group == 0]

    def part(self, group: int) -> list[Example]:
        """Examples of one part by rank, 1 (the strongest) to Q."""
        return [example for example in self.examples if example.group == group]


class RandomWindow(NamedTuple):
    """A window around a position that was drawn at random, with the codes of all its tokens."""

    pieces: list[str]
    token_ids: NDArray[np.uint32]
    at: NDArray[np.int64]
    """Of each entry of the codes: which of the tokens,"""
    latent: NDArray[np.uint32]
    """which latent,"""
    value: Floats
    """and its activation."""

    def activations(self, latent: int) -> Floats:
        """float32 ``[W]``: those of one latent."""
        found = np.zeros(len(self.pieces), dtype=np.float32)
        mine = self.latent == latent
        found[self.at[mine]] = self.value[mine]
        return found
