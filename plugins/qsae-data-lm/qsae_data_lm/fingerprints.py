"""Whether a run goes on with the text and the model that it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from qsae_core.errors import DataError

ENTRIES = 16
"""How many entries of each parameter are looked at."""


def of_texts(texts: Iterable[str]) -> str:
    """A hash of texts in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def of_model(model: torch.nn.Module) -> str:
    """A hash of a few entries of each parameter; the same whether it was loaded in float32 or bfloat16."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        entries = parameter.detach().flatten()
        some = entries[:: max(1, entries.numel() // ENTRIES)].cpu().bfloat16().float()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(some.contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_same(recorded: Mapping[str, Any], now: Mapping[str, str], places: Mapping[str, str]) -> None:
    """Raise a DataError where one of the fingerprints is another one than when a run was interrupted.

    Args:
        recorded: what -> fingerprint, of the interrupted run.
        now: the same, of what is there now.
        places: what -> where it is, for the message.
    """
    for what, fingerprint in now.items():
        if recorded.get(what, fingerprint) != fingerprint:
            raise DataError(
                f"the {what} is another one than when the run was interrupted",
                where=places[what],
                allowed=f"the same {what}",
                next="bring it back, or start the run again with --overwrite",
            )


def check_size(recorded: Mapping[str, int], now: Mapping[str, int], place: str) -> None:
    """Raise a DataError where a text has more or less of something than when a run was interrupted: its
    documents come in another order then, so that some would come twice, and others not at all."""
    for what, number in now.items():
        if recorded.get(what) != number:
            raise DataError(
                f"there are {number} {what}, and there were {recorded.get(what, 'none of these')} when "
                "the run was interrupted",
                where=place,
                allowed=f"the same {what}",
                next="bring them back, or start the run again with --overwrite",
            )


def check_share(recorded: Sequence[int], now: Sequence[int]) -> None:
    """Raise a DataError where a state is not of this process among as many.

    Args:
        recorded: (rank, world) of the process that was interrupted.
        now: of this one. Each process reads documents of its own, so that none can go on for another.
    """
    if tuple(recorded) != tuple(now):
        raise DataError(
            f"the state is that of process {recorded[0]} of {recorded[1]}, not {now[0]} of {now[1]}",
            allowed=f"the state of process {now[0]} of {now[1]}",
            next="go on with as many processes as before, each from its own state",
        )
