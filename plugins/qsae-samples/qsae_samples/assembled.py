"""From what both passes found to the arrays of the file. Shapes: F latents, E examples, T tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsae_core.contracts import LanguageModel
from qsae_samples.choice import AT_ONCE, group_floors
from qsae_samples.files import FULL, packed, spelled
from qsae_samples.kept import POSITION_BITS
from qsae_samples.logits import logit_arrays
from qsae_samples.magnitudes import BINS
from qsae_samples.text import BROKEN

if TYPE_CHECKING:
    from qsae_samples.firings import Firings
    from qsae_samples.windows import Part, Surroundings, Windows

SHOWN_BINS = 48
"""Bins of a histogram: the one that the largest activation is in, and those below it."""
Array = NDArray[Any]


def arrays_of(found: Surroundings) -> dict[str, Array]:
    """Every array of the file; see the README."""
    parts = sorted(found.parts, key=lambda part: part.first_place)
    sizes = torch.tensor([0, *(len(part.ids) for part in parts)]).cumsum(0).tolist()
    offsets = sizes[:-1]
    partners, shares = found.pairs.strongest(found.config.cofiring)
    return {
        **_of_latents(found.firings),
        **_of_examples(found, parts, offsets),
        **_of_text(parts, cast(LanguageModel, found.firings.context.data.language_model())),
        **_of_stretches(parts, offsets),
        **_of_random(found, parts, offsets),
        "cofiring_latent": partners.numpy(),
        "cofiring_share": shares.numpy(),
        **logit_arrays(found.firings.context, found.one_context, found.config.logits, found.pieces),
    }


def _of_latents(firings: Firings) -> dict[str, Array]:
    rows = firings.histogram.split(AT_ONCE)
    top = torch.cat([(some > 0).to(torch.int64).mul(torch.arange(BINS)).amax(1) for some in rows])
    place = top[:, None] - torch.arange(SHOWN_BINS)
    counts = firings.histogram.gather(1, place.clamp_min(0)).where(place >= 0, 0)
    # what is weaker than all of these bins is in the last one
    counts[:, -1] += (firings.count - counts.sum(1)).to(counts.dtype)
    return {
        "count": firings.count.numpy(),
        "mean": (firings.total / firings.count).to(torch.float32).numpy(),
        "largest": firings.largest.numpy(),
        "histogram": counts.numpy().astype(np.uint32),
        "histogram_top": top.numpy().astype(np.int16),
        "group_floor": group_floors(firings.histogram, firings.config.groups).numpy(),
    }


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors)) if tensors else torch.zeros(0, dtype=torch.int64)


def _in_order(windows: Sequence[Windows], offsets: Sequence[int], n: int) -> list[Tensor]:
    """Start, length and peak of windows number 0 to n - 1."""
    number = _joined([w.number for w in windows])
    assert len(number) == n  # the second pass goes over the same contexts
    order = number.argsort()
    start = _joined([w.start + offset for w, offset in zip(windows, offsets, strict=True)])
    return [start[order], *(_joined([w[field] for w in windows])[order] for field in (2, 3))]


def _of_examples(found: Surroundings, parts: Sequence[Part], offsets: Sequence[int]) -> dict[str, Array]:
    chosen = found.chosen
    windows = [part.examples for part in parts]
    start, length, peak = _in_order(windows, offsets, len(chosen.place))
    number = _joined([w.number for w in windows])
    n_active = _joined([part.n_active for part in parts])
    order = number.repeat_interleave(n_active).argsort(stable=True)
    at, value = (_joined([getattr(p, name) for p in parts])[order] for name in ("active_at", "active_value"))
    n_active = n_active[number.argsort()]
    per_latent = torch.bincount(chosen.latent, minlength=found.firings.n_latents).cumsum(0)
    latent = chosen.latent.repeat_interleave(n_active)
    return {
        "example_offsets": np.concatenate([[0], per_latent.numpy()]),
        "example_group": chosen.group.numpy().astype(np.uint8),
        "example_start": start.numpy().astype(np.uint32),
        "example_length": length.numpy().astype(np.uint8),
        "example_peak": peak.numpy().astype(np.uint8),
        "example_active": n_active.numpy().astype(np.uint8),
        "active_at": at.numpy().astype(np.uint8),
        "active_value": _scaled(value, found.firings.largest[latent]),
    }


def _scaled(value: Tensor, largest: Tensor) -> Array:
    """A value in units of ``largest / FULL``; one that is not zero stays so."""
    units = (value.double() / largest.double() * FULL).round()
    return units.where(units != 0, value.double().sign()).numpy().astype(np.int16)


def _of_text(parts: Sequence[Part], model: LanguageModel) -> dict[str, Array]:
    ids = _joined([part.ids for part in parts]).tolist()
    tokens = list(zip(ids, (piece for part in parts for piece in part.pieces), strict=True))
    known = {token: number for number, token in enumerate(sorted(set(tokens)))}
    narrow = np.uint16 if len(known) <= np.iinfo(np.uint16).max else np.uint32
    return {
        "tokens": np.array([known[token] for token in tokens], dtype=narrow),
        "vocabulary_ids": np.array([token_id for token_id, _ in known], dtype=np.uint32),
        "vocabulary_text": packed([piece for _, piece in known]),
        "vocabulary_bytes": packed(
            [
                spelled(model.partial_bytes(token_id) if not piece or BROKEN in piece else None)
                for token_id, piece in known
            ]
        ),
    }


def _of_stretches(parts: Sequence[Part], offsets: Sequence[int]) -> dict[str, Array]:
    place = _joined([part.stretch_place for part in parts])
    start = _joined([part.stretch_start + offset for part, offset in zip(parts, offsets, strict=True)])
    return {
        "stretch_start": start.numpy().astype(np.uint32),
        "stretch_context": (place >> POSITION_BITS).numpy().astype(np.uint32),
        "stretch_position": (place & ((1 << POSITION_BITS) - 1)).numpy().astype(np.uint32),
        "stretch_document": _joined([part.stretch_document for part in parts]).numpy().astype(np.int32),
    }


def _of_random(found: Surroundings, parts: Sequence[Part], offsets: Sequence[int]) -> dict[str, Array]:
    start, length, _ = _in_order([part.random for part in parts], offsets, len(found.random.place))
    order = start.argsort()
    token = _joined([part.code_token + offset for part, offset in zip(parts, offsets, strict=True)])
    latent, value = (_joined([getattr(p, n) for p in parts]) for n in ("code_latent", "code_value"))
    by_token = (token * found.firings.n_latents + latent).argsort()
    token, latent, value = token[by_token], latent[by_token], value[by_token]
    return {
        "random_start": start[order].numpy().astype(np.uint32),
        "random_length": length[order].numpy().astype(np.uint8),
        "code_token": token.numpy().astype(np.uint32),
        "code_latent": latent.numpy().astype(np.uint32),
        "code_value": _scaled(value, found.firings.largest[latent]),
    }
