"""A float coder of another seed beside the twin: what any retraining does. Shapes: B tokens, F latents.

Its latents have other numbers, so they are matched with the twin's; and so that both stand under one rule,
the quantized coder's are matched alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import EvaluationContext, Observation, SparseCoder, SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.measuring import mean, standard_error
from qsae_core.runs import load_other_float
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.pairs import (
    GROUPS,
    Active,
    PairSums,
    active,
    another,
    one_group,
    shared,
    writes,
)
from qsae_evaluation_quantization_error.partners import cosines_by_chance, partners
from qsae_evaluation_quantization_error.positions import TopPositions, overlap
from qsae_evaluation_quantization_error.predictors import Values
from qsae_evaluation_quantization_error.reconstructions import Reconstructions
from qsae_evaluation_quantization_error.survival import CLASSES, Survival, standard_errors, survival

OPTION = "evaluate: quantization-error.other_seed"
NOT_GIVEN = (
    "no float coder of another seed is given (option other_seed); qsae evaluate RUN --baseline other-seed "
    "trains one, in RUN/baselines/other-seed"
)
MATCHED, OTHER_SEED = "matched", "other_seed"
"""The quantized coder, and the float coder of another seed: what their values begin with."""
ROWS = {MATCHED: "the coder, matched", OTHER_SEED: "another seed, matched"}
"""What the table of controls calls them."""
OF_PAIRS = ("r_mean", "r_median", "r_union_mean", *(f"{name}_share" for name in CLASSES), "jaccard")


def load_other_seed(config: QuantizationErrorConfig, context: EvaluationContext) -> SparseCoder | None:
    """The coder that the option names; None where it names none.

    Raises:
        ArtifactError, ConfigError: if there is no sound float coder with as many latents, or it is the twin.
    """
    if config.other_seed is None:
        return None
    twin = context.twin
    assert twin is not None  # as the evaluation observes it
    other = load_other_float(config.other_seed, context.coder, context.data, OPTION)
    if other.n_latents != twin.n_latents:
        raise ConfigError(
            f"the coder at {config.other_seed} has {other.n_latents} latents, the twin {twin.n_latents}",
            where=OPTION,
            allowed="a coder that was trained like the twin, but for its seed",
        )
    if torch.equal(other.atoms(), twin.atoms()):
        raise ConfigError(
            f"the coder at {config.other_seed} is the twin itself",
            where=OPTION,
            allowed="a coder that was trained like the twin, but for its seed",
            next="qsae evaluate RUN --baseline other-seed trains one, in RUN/baselines/other-seed",
        )
    return other


class Matched:
    """Sums over tokens of the twin and a coder whose latents are matched with its."""

    def __init__(self, config: QuantizationErrorConfig, twin: SparseCoder, coder: SparseCoder) -> None:
        n, device = twin.n_latents, twin.device
        self.partners = partners(twin, coder)
        self.pairs, self.by_chance = PairSums(n, GROUPS, device), PairSums(n, device=device)
        self.top = TopPositions(n, config.top, device)
        self.other_latent = another(n).to(device)
        self.writes = writes(coder)

    def add(self, a: Active, codes: SparseCodes, group_B: Tensor, first: int) -> None:
        """Take the codes of the same tokens, which are numbered from ``first`` on."""
        own = active(codes, self.writes)
        b = own._replace(latents=self.partners.numbers[own.latents])
        self.pairs.add(a, b, shared(a, b), group_B)
        mispaired = b._replace(latents=self.other_latent[b.latents])
        self.by_chance.add(a, mispaired, shared(a, mispaired), one_group(len(group_B), a))
        self.top.add(b, first)

    def merge(self, other: Matched) -> None:
        """Add what another one has seen."""
        self.pairs.merge(other.pairs)
        self.by_chance.merge(other.by_chance)
        self.top.merge(other.top)


class OtherSeed:
    """The quantized coder and a float coder of another seed, matched with the twin."""

    def __init__(
        self, config: QuantizationErrorConfig, context: EvaluationContext, coder: SparseCoder
    ) -> None:
        assert context.twin is not None  # as the evaluation observes it
        self.config, self.twin, self.coder = config, context.twin, coder
        coders = {MATCHED: context.coder, OTHER_SEED: coder}
        self.matched = {name: Matched(config, self.twin, each) for name, each in coders.items()}
        self.top = TopPositions(self.twin.n_latents, config.top, context.device)
        self.reconstructions = Reconstructions(context.device)
        self.writes = writes(self.twin)

    @torch.no_grad()
    def add(self, observation: Observation, group_B: Tensor, first: int) -> None:
        """Take the first tokens of a batch, as many as have a group; they are numbered from ``first`` on."""
        n = len(group_B)
        assert observation.twin_codes is not None  # as the evaluation observes them
        assert observation.inputs is not None  # core gives what was encoded
        codes_a, codes = observation.twin_codes.first(n), self.coder.encode(observation.inputs[:n])
        a = active(codes_a, self.writes)
        self.matched[MATCHED].add(a, observation.codes.first(n), group_B, first)
        self.matched[OTHER_SEED].add(a, codes, group_B, first)
        self.top.add(a, first)
        decoded = self.twin.decode(codes_a), self.coder.decode(codes)
        self.reconstructions.add(observation.target[:n], *decoded)

    def merge(self, other: OtherSeed) -> None:
        """Add what another one has seen."""
        for name, matched in self.matched.items():
            matched.merge(other.matched[name])
        self.top.merge(other.top)
        self.reconstructions.merge(other.reconstructions)

    def found(self) -> dict[str, Compared]:
        """What each of the two comes to, by ``MATCHED`` and ``OTHER_SEED``."""
        by_chance = cosines_by_chance(self.twin)
        found = {name: compared(self.config, m, self.top, by_chance) for name, m in self.matched.items()}
        pairs = found[OTHER_SEED].survival.pairs
        gap = float(pairs.firings_b.sum() - pairs.firings_a.sum())
        found[OTHER_SEED].values["l0_gap"] = gap / float(pairs.tokens) if pairs.tokens else None
        found[OTHER_SEED].values["fvu_gap"] = self.reconstructions.fvu_gap()
        return found


class Compared(NamedTuple):
    """A coder beside the twin, under the names of the numbers."""

    survival: Survival
    values: Values
    chance: Values
    uncertainty: Values
    columns: dict[str, Tensor]
    note: str
    """How it was matched."""


def compared(
    config: QuantizationErrorConfig, matched: Matched, top_of_twin: TopPositions, cosines_by_chance_F: Tensor
) -> Compared:
    """Numbers of pairs of latents, and of the cosines by which they were found."""
    found, cosines = survival(matched.pairs, config), matched.partners.cosines
    chance = survival(matched.by_chance, config, found.mask)
    errors = standard_errors(matched.pairs, found.mask, config)
    tops = matched.top, matched.top.renumbered(matched.other_latent)
    of_top, top_by_chance = (mean(overlap(top_of_twin, top).where(found.mask, torch.nan)) for top in tops)
    returned, returned_by_chance = (
        (c > config.returned_above).double().where(~c.isnan(), torch.nan)
        for c in (cosines, cosines_by_chance_F)
    )
    return Compared(
        survival=found,
        values={name: found.values[name] for name in OF_PAIRS}
        | {"top_overlap": of_top, "cosine": mean(cosines), "returned_share": mean(returned)},
        chance={name: chance.values[name] for name in OF_PAIRS}
        | {
            "top_overlap": top_by_chance,
            "cosine": mean(cosines_by_chance_F),
            "returned_share": mean(returned_by_chance),
        },
        uncertainty={name: errors[name] for name in OF_PAIRS}
        | {"cosine": standard_error(cosines), "returned_share": standard_error(returned)},
        columns={
            "latent": matched.partners.latents.double().cpu(),
            "cosine": cosines,
            "r": found.r.cpu(),
        },
        note=f"latents matched one to one by cosine ({matched.partners.how})",
    )
