"""HeldOutPart: which of a source's vectors are kept for evaluation, and whether a run was trained on them."""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping
from typing import Any


class Overlap(enum.Enum):
    """What a run that was trained before has to do with a source's data."""

    NONE = "none"
    """It was trained on other data: all of this is new to it."""
    TRAINING = "training"
    """It was trained on this data, and what is held out here was held out there."""
    HELD_OUT = "held out"
    """It was trained on this data, held out otherwise: what is held out here was trained on, in part."""


class HeldOutPart(abc.ABC):
    """What ``DataSource.held_out`` and ``held_out_contexts`` give.

    Whether a vector is held out depends on the options, on the vector's own place or content, and on what
    stands before it, never on how much there is in all: what is held out stays so when data is appended.
    """

    component: str | None = None
    """Whose records these are, where they are another data source's: what keeps vectors of its text. None:
    the source's own."""

    is_endless: bool = False
    """Whether it is drawn anew, for ever, so that nothing of it can have been trained on."""

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """JSON values for a run's record, by which ``overlap`` knows this data again later.

        They stand for content, never for a path: data may be moved, and other data may come to its place.
        """

    @abc.abstractmethod
    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        """What this source has to do with a run whose source gave this record.

        Args:
            record: of a source of the same component; as it was read back from JSON.
        """

    @abc.abstractmethod
    def take_all(self) -> None:
        """Hold out everything, for data that nothing is trained on; the training stream is not used then."""

    @abc.abstractmethod
    def name(self) -> str:
        """What it is, for tables: ``the 3,000 held-out of the 60,000 rows of x.pt``"""

    def size(self) -> int | None:
        """Vectors in it; None where that is not known without reading them, and where there is no end."""
        return None
