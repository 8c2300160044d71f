"""What the units of edits are worth: measured on held-out vectors, or given.

Shapes: B tokens, F latents, L sites that a coder writes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import Batch, SparseCoder
from qsae_core.errors import ConfigError
from qsae_splice.edits import AnyEdit, DirectionEdit, Edit


@dataclass(frozen=True)
class Scales:
    """How large activations and vectors are.

    Attributes:
        largest: latent -> its largest activation.
        sd: latent -> the standard deviation of its activation over tokens, zeros included.
        norm: mean norm of the vectors that are edited, at each site that the coder writes to; None where it
            is not known. A single number may be given as such.
        n_tokens: that were measured; 0 where the numbers were given.
        largest_from: where ``largest`` is from, and on how many tokens, where that is something else.
    """

    largest: Mapping[int, float] = field(default_factory=dict)
    sd: Mapping[int, float] = field(default_factory=dict)
    norm: tuple[float, ...] | float | None = None
    n_tokens: int = 0
    largest_from: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.norm, int | float):
            object.__setattr__(self, "norm", (float(self.norm),))

    @property
    def norms(self) -> tuple[float, ...] | None:
        """``norm`` of each site."""
        assert not isinstance(self.norm, float)
        return self.norm

    def activation(self, edit: Edit, atom_norms: Sequence[float]) -> float:
        """An edit's value as an activation in the coder's own units; 0 where it has none.

        Of a latent that writes to several sites, 1 ``norm`` moves the vectors by their mean norm at the one
        where it moves them most, and by less elsewhere.

        Args:
            atom_norms: of the latent's decoder row, at each site.

        Raises:
            ConfigError: if what the unit is measured by is not known, or is 0.
        """
        if edit.value is None or edit.unit in (None, "raw"):
            return edit.value or 0.0
        unit = self._unit(edit, atom_norms)
        if not unit:
            raise ConfigError(
                self._why(edit, atom_norms, unit),
                where=str(edit),
                allowed="the unit raw" if edit.unit == "norm" else "the units raw and norm",
            )
        return edit.value * unit

    def distance(self, edit: DirectionEdit, norm: float, site: int) -> float:
        """How far an edit along a direction moves a vector; 0 where it has no value.

        Args:
            norm: of the direction as it was given.
            site: number of the site.

        Raises:
            ConfigError: if the mean norm is asked for and not known.
        """
        if edit.value is None or edit.unit != "norm":
            return (edit.value or 0.0) * norm
        if self.norms is None:
            raise ConfigError(
                "the scale behind the unit norm is not known", where=str(edit), allowed="the unit raw"
            )
        return edit.value * self.norms[site]

    def know(self, edit: AnyEdit) -> bool:
        """Whether its unit is known."""
        if edit.unit in (None, "raw"):
            return True
        if isinstance(edit, DirectionEdit) or edit.unit == "norm":
            return self.norm is not None
        return edit.latent in self._measured(edit)

    def with_largest(self, largest: Mapping[int, float], origin: str) -> Scales:
        """The same, with the largest activations that something else knows of."""
        return replace(self, largest=largest, largest_from=origin)

    def of(self, latents: Iterable[int]) -> Scales:
        """Of these latents alone."""
        kept = set(latents)
        largest, sd = ({j: x for j, x in d.items() if j in kept} for d in (self.largest, self.sd))
        return replace(self, largest=largest, sd=sd)

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``from_json`` reads."""
        return {
            "largest": {str(j): value for j, value in self.largest.items()},
            "sd": {str(j): value for j, value in self.sd.items()},
            "norm": None if self.norms is None else list(self.norms),
            "n_tokens": self.n_tokens,
            "largest_from": self.largest_from,
        }

    @classmethod
    def from_json(cls, found: Any, where: str) -> Scales:
        """What ``to_json`` gave.

        Raises:
            ConfigError: if it is something else.
        """
        try:
            largest, sd = ({int(j): float(v) for j, v in found[name].items()} for name in ("largest", "sd"))
            norm, origin = found["norm"], found.get("largest_from")  # a number, and none, in version 1
            if isinstance(norm, list):
                norm = tuple(float(of_site) for of_site in norm)
            return cls(
                largest,
                sd,
                norm if norm is None or isinstance(norm, tuple) else float(norm),
                int(found["n_tokens"]),
                None if origin is None else str(origin),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"no scales: {type(error).__name__} {error}",
                where=f"{where}: scales",
                allowed="largest, sd, norm and n_tokens, as --dump-spec writes them",
            ) from error

    def _unit(self, edit: Edit, atom_norms: Sequence[float]) -> float | None:
        if edit.unit != "norm":
            return self._measured(edit).get(edit.latent)
        if self.norms is None or not any(atom_norms):
            return None
        moves = [own / norm for own, norm in zip(atom_norms, self.norms, strict=True) if own]
        return 1 / max(moves)

    def _measured(self, edit: Edit) -> Mapping[int, float]:
        return self.largest if edit.unit == "max" else self.sd

    def _why(self, edit: Edit, atom_norms: Sequence[float], unit: float | None) -> str:
        if edit.unit == "norm" and not any(atom_norms):
            return f"latent {edit.latent} writes nothing: its decoder row is zero"
        if unit is None:
            return f"the scale behind the unit {edit.unit} is not known"
        known = edit.unit == "max" and self.largest_from
        return f"latent {edit.latent} was never active in {known or f'{self.n_tokens:,} held-out tokens'}"


@torch.no_grad()
def measure(coder: SparseCoder, batches: Iterable[Batch]) -> Scales:
    """The scales of all latents, from vectors that the coder reads and those that it reconstructs.

    The largest activation is the largest value; a signed code's most negative one does not count.
    """
    largest_F = torch.full((coder.n_latents,), -torch.inf, dtype=torch.float64)
    sums_2F, n_tokens = torch.zeros(2, coder.n_latents, dtype=torch.float64), 0
    norms_L = torch.zeros(coder.shape.layers_out, dtype=torch.float64)
    for batch in batches:
        codes = coder.encode(batch.x.to(coder.device))
        index, values = codes.indices.long().cpu(), codes.values.double().cpu()
        largest_F.scatter_reduce_(0, index, values, "amax")
        sums_2F.index_add_(1, index, torch.stack([values, values * values]))
        norms_L += batch.y.double().norm(dim=-1).sum(0).reshape(-1).cpu()
        n_tokens += len(batch)
    if not n_tokens:
        raise ConfigError("there are no held-out vectors to measure scales on", allowed="data with some")
    mean_F, square_F = sums_2F / n_tokens
    sd_F = (square_F - mean_F * mean_F).clamp_min(0).sqrt()
    return Scales(_column(largest_F), _column(sd_F), tuple((norms_L / n_tokens).tolist()), n_tokens)


def _column(values_F: Tensor) -> dict[int, float]:
    """Latent -> value; 0 of a latent that had no entry."""
    return dict(enumerate(values_F.clamp_min(0).tolist()))
