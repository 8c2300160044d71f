"""Which documents training never sees, and how a text is known again. Nothing here needs torch.

A hash of a document's key decides, so that a document is on the same side in every text that holds it. Of few
documents a hash could hold out none or all; so of a user's text the first document is held out whatever its
hash is, and the next one that is not the same is not. Both stay where they are when text is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qsae_core.contracts import HeldOutPart, Overlap
from qsae_data_lm.corpus import hash_of, is_held_out

MARKS = 64
"""Documents of a training text that its record names: a text that holds a tenth of it holds one of these,
but for one time in a thousand."""


class Split:
    """The sides of documents, by their keys.

    Args:
        share: of the documents that are held out.
        first: keys in order, as many as it takes to find two different ones; empty: hashes decide alone.

    Attributes:
        always: key of a document that is held out whatever its hash is, or None.
        never: key of one that is not.
    """

    def __init__(self, share: float, first: Iterable[str] = ()) -> None:
        self.share, self.everything = share, False
        self.always: str | None = None
        self.never: str | None = None
        for key in first:
            if self.always is None:
                self.always = key
            elif key != self.always:
                self.never = key
                break

    def holds_out(self, key: str) -> bool:
        """Whether the document with this key is held out."""
        if self.everything or key == self.always:
            return True
        return key != self.never and is_held_out(key, self.share)

    def record(self) -> dict[str, Any]:
        """JSON values from which ``within`` compares."""
        return {"share": self.share, "always": _mark(self.always), "never": _mark(self.never)}

    def within(self, record: Mapping[str, Any]) -> bool:
        """Whether all that is held out here was held out by the split with this record."""
        always, never = _mark(self.always), _mark(self.never)
        kept = self.always is None or record["always"] == always or is_held_out(self.always, record["share"])
        return self.share <= record["share"] and kept and record["never"] in (None, never)


class HeldOutDocuments(HeldOutPart):
    """The held-out documents of a text.

    Args:
        split: which they are.
        marks: gives marks (``mark``) of documents that are trained on, at most ``MARKS``.
        known: gives those of the documents there are.
        place: what the text is called.
        counts: gives how many documents are held out of how many; None where they are not counted.
    """

    def __init__(
        self,
        split: Split,
        marks: Callable[[], list[str]],
        known: Callable[[], set[str]],
        place: str,
        counts: Callable[[], tuple[int, int]] | None,
    ) -> None:
        self._split, self._marks, self._known = split, marks, known
        self._place, self._counts = place, counts

    def record(self) -> dict[str, Any]:
        """The split, and marks of documents that are trained on."""
        return {"split": self._split.record(), "documents": self._marks()}

    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        """A text in which any of those documents is has been trained on, by whatever model it is read."""
        if self._known().isdisjoint(record["documents"]):
            return Overlap.NONE
        return Overlap.TRAINING if self._split.within(record["split"]) else Overlap.HELD_OUT

    def take_all(self) -> None:
        """Hold out all documents."""
        self._split.everything = True

    def name(self) -> str:
        """How many documents of how many, and where they are from."""
        if self._counts is None:
            return f"{'all' if self._split.everything else 'the held-out'} documents of {self._place}"
        held, number = self._counts()
        return (
            f"all {number:,} documents of {self._place}"
            if held == number
            else f"the {held:,} held-out of the {number:,} documents of {self._place}"
        )


def mark(key: str) -> str:
    """What stands for a document in a record."""
    return f"{int(hash_of(key) * 2**48):012x}"


def _mark(key: str | None) -> str | None:
    return None if key is None else mark(key)
