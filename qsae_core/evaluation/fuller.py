"""Whether what is stored of an evaluation stays where the same is asked again. Imports no torch.

A result of more tokens is worth more than one of fewer, and one that came to its end more than one that did
not. So neither is replaced by the lesser one unless the user says so.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from qsae_core.errors import ConfigError

RESULT = "result.json"
LAYERS = "layers"


class Stays(NamedTuple):
    """A stored result in whose place no new one comes."""

    place: pathlib.Path
    """Its folder."""
    n_tokens: int
    """That it was measured on then, or was to be."""
    failed: bool
    """Whether it stays since the new one failed."""

    @property
    def evaluation(self) -> str:
        """Its name."""
        return self.place.name


def older_stays(place: pathlib.Path, n_tokens: int, *, failed: bool = False) -> Stays | None:
    """What stays in an evaluation's folder; None where a new result is to take its place.

    Args:
        n_tokens: that are asked for now.
        failed: whether the new one did not come to its end.
    """
    older = _record(place)
    if older is None or older.get("failed"):
        return None
    before = _used(older)
    return Stays(place, before, failed) if failed or before > n_tokens else None


def fuller_ones(folder: pathlib.Path, evaluations: Sequence[str], n_tokens: int) -> list[Stays]:
    """Of these evaluations, what stays below a folder, of layers too, before anything is measured."""
    places = [folder, *sorted(folder.glob(f"{LAYERS}/*"))]
    found = (older_stays(place / name, n_tokens) for name in evaluations for place in places)
    return [stays for stays in found if stays is not None]


def check_same_subject(
    folder: pathlib.Path, about: Mapping[str, Any], replaced: Collection[str] = ()
) -> None:
    """Refuse to put results beside those of another coder, or of other data.

    Args:
        replaced: evaluations whose results give way, of whatever they are: where nothing else is there.
        about: ``coder_sha256``, ``level``, ``model``, ``layer`` and ``measured`` of what is evaluated now.

    Raises:
        ConfigError: with what is there.
    """
    gives_way = bool(replaced) and {path.name for path in folder.glob("*")} <= set(replaced)
    for place in sorted(file.parent for file in folder.glob(f"*/{RESULT}")):
        older = _record(place)
        if older is None or gives_way:
            continue
        coder = older.get("coder_sha256")
        same_coder = coder in (None, about["coder_sha256"]) and older.get("level") == about["level"]
        data = older.get("model"), older.get("layer"), (older.get("measured") or {}).get("what")
        if not same_coder or data != (about["model"], about["layer"], about["measured"]["what"]):
            whose = f"on {data[2]}" if same_coder else f"of the coder {older.get('coder')}"
            raise ConfigError(
                f"has results {whose}: {place.name}",
                where=str(folder),
                allowed="another --out; or --overwrite, where it replaces all that is there",
                next="choose another folder for each coder and each data",
            )


def _used(record: Mapping[str, Any]) -> int:
    """Tokens that were asked for, as far as the evaluation uses so many: an option ``tokens`` is its most."""
    asked, most = int(record.get("n_tokens") or 0), (record.get("options") or {}).get("tokens")
    return min(asked, most) if isinstance(most, int) else asked


def _record(place: pathlib.Path) -> dict[str, Any] | None:
    """What is said of a stored result; None where there is none that can be read."""
    try:
        found = json.loads((place / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
