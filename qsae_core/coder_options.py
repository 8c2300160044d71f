"""Options that coders share: what a variant's config derives from. Imports no torch."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from qsae_core.component import ComponentConfig, option
from qsae_core.errors import OptionsError


class CoderConfig(ComponentConfig):
    """Options that every SAE and transcoder has; a variant's config derives from this."""

    n_latents: int = option(
        4096,
        "size of the dictionary (latents)",
        aliases=("hidden-dim", "latent-size", "d-sae"),
        gt=0,
        le=2**31 - 1,  # codes hold their indices as int32
    )
    expansion: float | None = option(
        None,
        "size of the dictionary in widths of the vectors that are encoded, instead of n_latents",
        aliases=("expansion-factor",),
        instead_of="n_latents",
        gt=0,
    )
    normalize: Literal["none", "center", "scale"] = option(
        "scale",
        "input normalisation from the data's statistics: none, center (subtract the mean) or scale "
        "(subtract the mean, divide by the RMS)",
    )
    rotate: bool | Literal["auto"] = option(
        "auto",
        "rotate inputs by a structured orthogonal matrix, so that outlier dimensions do not spoil the "
        "quantizers' grids; auto: where anything is quantized",
    )
    dead_after_tokens: int | Literal["auto"] = option(
        "auto",
        "a latent that has not fired for so many tokens counts as dead; auto: 10M, or an eighth of a shorter "
        "run",
    )

    def for_width(self, d_in: int) -> CoderConfig:
        """These options where vectors of such a width are encoded: ``n_latents`` is a number, and checked.

        Until then validators of a config whose ``expansion`` is not None leave ``n_latents`` alone.

        Raises:
            pydantic.ValidationError: if that number does not fit the other options.
        """
        if self.expansion is None:
            return self
        n_latents = max(1, round(self.expansion * d_in))
        return type(self).model_validate({**dict(self), "n_latents": n_latents, "expansion": None})

    def rule_latents(self, layers_in: int) -> int:
        """Among how many latents a sparsity rule chooses, in a coder that reads so many layers: all of them,
        unless a variant gives each layer or level a rule of its own."""
        return self.n_latents

    def prefixes(self) -> tuple[int, ...] | None:
        """Of a nested coder: how many of the first latents each level has, ascending, the last one all of
        them; None where latents are not nested."""
        return None

    def first_groups(self, level: int) -> CoderConfig:
        """The configuration of a nested coder's level alone; variants with more than ``n_latents`` to cut
        override it."""
        prefixes = self.prefixes()
        assert prefixes is not None
        return self.model_copy(update={"n_latents": prefixes[level - 1]})


class OffsetConfig(CoderConfig):
    """Options of an SAE that subtracts its decoder's bias from what it encodes, or does not."""

    subtract_b_dec: bool = option(
        True,
        "subtract the decoder's bias from what is encoded; other libraries' SAEs do, or do not",
        aliases=("apply-b-dec-to-input",),
    )


class TranscoderConfig(CoderConfig):
    """Options of a transcoder; one with nested groups or an auxiliary loss derives from their config too."""

    skip: bool = option(
        False,
        "add a skip connection: a matrix from the input straight to the output, beside the latents "
        "(Paulo et al., 2025)",
    )


class AuxKConfig(CoderConfig):
    """Options of a coder with the auxiliary loss over dead latents (Gao et al., 2024)."""

    auxk_coefficient: float = option(
        1 / 32, "weight of the auxiliary loss over dead latents beside the normalised error; 0: off", ge=0
    )
    k_aux: int | None = option(
        None, "dead latents per token in the auxiliary loss; none: half the output's width", gt=0
    )


class RestartConfig(AuxKConfig):
    """Options of a coder whose silent latents can also begin anew."""

    restart: bool = option(
        True,
        "give latents that are silent for a quarter of dead_after_tokens a new direction: that of the error "
        "of a badly reconstructed token",
    )


GroupSizes = tuple[Annotated[int, Field(gt=0)], ...]
"""Latents of each nested group."""


class NestedConfig(RestartConfig):
    """Options of a coder whose dictionary is nested in groups of latents (Bussmann et al., 2025)."""

    usual_groups: ClassVar[tuple[int, ...]] = (1,) * 8
    """How large the groups are beside each other where ``group_sizes`` is none."""

    group_sizes: GroupSizes | None = option(
        None,
        "latents of each nested group, in order; none: eight groups of equal size",
        allowed="a list of sizes of 1 or more that add up to n_latents, such as [16,48]; or none",
        min_length=1,
    )
    group_ratio: tuple[Annotated[int, Field(gt=0)], ...] | None = option(
        None,
        "sizes of the nested groups beside each other, instead of group_sizes: [1,2,4,9] for groups of "
        "1/16, 2/16, 4/16 and 9/16 of the latents",
        allowed="a list of whole numbers above 0 whose sum divides n_latents, such as [1,2,4,9]; or none",
        instead_of="group_sizes",
        min_length=1,
    )

    @model_validator(mode="after")
    def _check_groups(self) -> NestedConfig:
        if self.expansion is not None:
            return self
        ratio = self._ratio()
        if self.group_sizes is None and self.n_latents % sum(ratio):
            equal = len(set(ratio)) == 1
            groups = f"{len(ratio)} groups" if equal else f"groups of {':'.join(map(str, ratio))}"
            raise OptionsError(
                f"n_latents ({self.n_latents}) does not divide into {groups}; give group_sizes",
                allowed=f"a multiple of {sum(ratio)}, or group_sizes that add up to n_latents "
                "(--set 'sae.group_sizes=[...]', or transcoder.group_sizes)",
            )
        if self.group_sizes is not None and sum(self.group_sizes) != self.n_latents:
            raise OptionsError(
                f"group_sizes add up to {sum(self.group_sizes)}, and n_latents is {self.n_latents}",
                allowed=f"group sizes whose sum is {self.n_latents}, or --n-latents {sum(self.group_sizes)}",
            )
        return self

    def prefixes(self) -> tuple[int, ...]:
        """Latents of the first 1, 2, ... groups."""
        ratio = self._ratio()
        unit = self.n_latents // sum(ratio)
        return tuple(itertools.accumulate(self.group_sizes or [unit * share for share in ratio]))

    def _ratio(self) -> tuple[int, ...]:
        return self.group_ratio or self.usual_groups

    def first_groups(self, level: int) -> NestedConfig:
        """The first ``level`` groups, as they are."""
        prefixes = self.prefixes()
        starts = (0, *prefixes)
        sizes = tuple(end - start for start, end in zip(starts, prefixes, strict=False))[:level]
        cut = {"n_latents": prefixes[level - 1], "group_sizes": sizes, "group_ratio": None}
        return self.model_copy(update=cut)


class RoutedConfig(RestartConfig):
    """Options of a coder that reads several layers and chooses one of them, or a mixture, per token."""

    routing: Literal["hard", "soft"] = option(
        "hard", "hard: the vector of the layer with the largest weight; soft: the weighted mean over layers"
    )
    aggre: Literal["sum", "mean"] = option(
        "mean", "what the router reads: the sum or the mean of the token's vectors over layers"
    )
    balance: float = option(
        0.01, "weight of the term that keeps layers equally used: L sum_l share_l mean p_l", ge=0
    )
    layer_norm: bool = option(
        False,
        "bring every vector to mean 0 and variance 1 over its dimensions first; the target is then such a "
        "vector too",
    )
