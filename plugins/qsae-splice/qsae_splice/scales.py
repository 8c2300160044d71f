"""What the units of edits are worth: measured on held-out vectors, or given.

Shapes: B tokens, F latents, E edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import Batch, SparseCoder
from qsae_core.errors import ConfigError
from qsae_splice.edits import Edit


@dataclass(frozen=True)
class Scales:
    """How large activations and vectors are.

    Attributes:
        largest: latent -> its largest activation.
        sd: latent -> the standard deviation of its activation over tokens, zeros included.
        norm: mean norm of the vectors that are edited; None where it is not known.
        n_tokens: that were measured; 0 where the numbers were given.
    """

    largest: Mapping[int, float] = field(default_factory=dict)
    sd: Mapping[int, float] = field(default_factory=dict)
    norm: float | None = None
    n_tokens: int = 0

    def activation(self, edit: Edit, atom_norm: float) -> float:
        """An edit's value as an activation in the coder's own units.

        Args:
            atom_norm: of the latent's decoder row.

        Raises:
            ConfigError: if what the unit is measured by is not known, or is 0.
        """
        assert edit.value is not None
        if edit.unit in (None, "raw"):
            return edit.value
        unit = self._unit(edit, atom_norm)
        if not unit:
            raise ConfigError(
                self._why(edit, atom_norm, unit),
                where=str(edit),
                allowed="the unit raw" if edit.unit == "norm" else "the units raw and norm",
            )
        return edit.value * unit

    def know(self, edit: Edit) -> bool:
        """Whether its unit is known."""
        if edit.unit in (None, "raw"):
            return True
        return self.norm is not None if edit.unit == "norm" else edit.latent in self._measured(edit)

    def of(self, latents: Iterable[int]) -> Scales:
        """Of these latents alone."""
        kept = set(latents)
        largest, sd = ({j: x for j, x in d.items() if j in kept} for d in (self.largest, self.sd))
        return Scales(largest, sd, self.norm, self.n_tokens)

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``from_json`` reads."""
        return {
            "largest": {str(j): value for j, value in self.largest.items()},
            "sd": {str(j): value for j, value in self.sd.items()},
            "norm": self.norm,
            "n_tokens": self.n_tokens,
        }

    @classmethod
    def from_json(cls, found: Any, where: str) -> Scales:
        """What ``to_json`` gave.

        Raises:
            ConfigError: if it is something else.
        """
        try:
            largest, sd = ({int(j): float(v) for j, v in found[name].items()} for name in ("largest", "sd"))
            norm = None if found["norm"] is None else float(found["norm"])
            return cls(largest, sd, norm, int(found["n_tokens"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"no scales: {type(error).__name__} {error}",
                where=f"{where}: scales",
                allowed="largest, sd, norm and n_tokens, as --dump-spec writes them",
            ) from error

    def _unit(self, edit: Edit, atom_norm: float) -> float | None:
        if edit.unit == "norm":
            return None if self.norm is None or not atom_norm else self.norm / atom_norm
        return self._measured(edit).get(edit.latent)

    def _measured(self, edit: Edit) -> Mapping[int, float]:
        return self.largest if edit.unit == "max" else self.sd

    def _why(self, edit: Edit, atom_norm: float, unit: float | None) -> str:
        if edit.unit == "norm" and not atom_norm:
            return f"latent {edit.latent} writes nothing: its decoder row is zero"
        if unit is None:
            return f"the scale behind the unit {edit.unit} is not known"
        return f"latent {edit.latent} was never active in {self.n_tokens:,} held-out tokens"


def needs_scales(edits: Iterable[Edit]) -> bool:
    """Whether a unit of one of the edits is measured."""
    return any(edit.unit not in (None, "raw") for edit in edits)


@torch.no_grad()
def measure(coder: SparseCoder, batches: Iterable[Batch]) -> Scales:
    """The scales of all latents, from vectors that the coder reads and those that it reconstructs.

    The largest activation is the largest value; a signed code's most negative one does not count.
    """
    largest_F = torch.full((coder.n_latents,), -torch.inf, dtype=torch.float64)
    sums_2F, norms, n_tokens = torch.zeros(2, coder.n_latents, dtype=torch.float64), 0.0, 0
    for batch in batches:
        codes = coder.encode(batch.x.to(coder.device))
        index, values = codes.indices.long().cpu(), codes.values.double().cpu()
        largest_F.scatter_reduce_(0, index, values, "amax")
        sums_2F.index_add_(1, index, torch.stack([values, values * values]))
        norms += float(batch.y.double().norm(dim=-1).sum())
        n_tokens += len(batch)
    if not n_tokens:
        raise ConfigError("there are no held-out vectors to measure scales on", allowed="data with some")
    mean_F, square_F = sums_2F / n_tokens
    sd_F = (square_F - mean_F * mean_F).clamp_min(0).sqrt()
    return Scales(_column(largest_F), _column(sd_F), norms / n_tokens, n_tokens)


def _column(values_F: Tensor) -> dict[int, float]:
    """Latent -> value; 0 of a latent that had no entry."""
    return dict(enumerate(values_F.clamp_min(0).tolist()))
