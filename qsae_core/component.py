"""What a plugin registers: a ComponentSpec, whose options are a ComponentConfig. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pluggy
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticUndefined

from qsae_core.errors import OptionsError

hookimpl = pluggy.HookimplMarker("qsae")
"""Decorates the functions of a plugin's top module that implement hooks."""


class ComponentConfig(BaseModel):
    """Base of every component's options: unknown keys are errors and instances do not change.

    The class docstring is what ``qsae describe`` prints, and each field's description becomes the help
    of a command-line flag; so both are part of the contract.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        defer_build=True,  # validators are built at first use: a third of start-up with 50 plugins
    )


def option(
    default: Any = PydanticUndefined,
    description: str = "",
    *,
    aliases: Sequence[str] = (),
    allowed: str | None = None,
    **constraints: Any,
) -> Any:
    """Declare one option of a component (a pydantic ``Field`` with a description and flag aliases).

    Args:
        default: the value when neither YAML nor a flag gives one; leave it out for a required option.
        description: one sentence, with the unit; shown by ``qsae describe`` and ``--help``.
        aliases: other flag spellings that the field already uses, without dashes (``("top-k",)``).
        allowed: what an error says is allowed, where types and bounds do not tell (``sizes above 0``).
        constraints: what pydantic's ``Field`` takes: ``gt``, ``ge``, ``lt``, ``le``, ``default_factory``, ...
    """
    extra: dict[str, Any] = {"flags": list(aliases)} if aliases else {}
    if allowed is not None:
        extra["allowed"] = allowed
    return Field(default, description=description, json_schema_extra=extra or None, **constraints)


def name_of(part: object) -> str:
    """What a user calls a part: its component's name (``hqq``), or the class's where it is none."""
    return str(getattr(part, "component_name", type(part).__name__))


class CoderConfig(ComponentConfig):
    """Options that every SAE and transcoder has; a variant's config derives from this."""

    n_latents: int = option(
        4096, "size of the dictionary (latents)", aliases=("hidden-dim", "latent-size", "d-sae"), gt=0
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

    @model_validator(mode="after")
    def _check_groups(self) -> NestedConfig:
        shares = self.usual_groups
        if self.group_sizes is None and self.n_latents % sum(shares):
            equal = len(set(shares)) == 1
            groups = f"{len(shares)} groups" if equal else f"groups of {':'.join(map(str, shares))}"
            raise OptionsError(
                f"n_latents ({self.n_latents}) does not divide into {groups}; give group_sizes",
                allowed=f"a multiple of {sum(shares)}, or group_sizes that add up to n_latents "
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
        shares = self.usual_groups
        unit = self.n_latents // sum(shares)
        return tuple(itertools.accumulate(self.group_sizes or [unit * share for share in shares]))

    def first_groups(self, level: int) -> NestedConfig:
        """The first ``level`` groups, as they are."""
        prefixes = self.prefixes()
        starts = (0, *prefixes)
        sizes = tuple(end - start for start, end in zip(starts, prefixes, strict=False))[:level]
        return self.model_copy(update={"n_latents": prefixes[level - 1], "group_sizes": sizes})


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


@dataclass(frozen=True)
class ComponentSpec:
    """One pluggable thing.

    Attributes:
        kind: one of ``qsae_core.kinds.KINDS`` (``sae``, ``quantizer``, ...).
        name: what a user writes after ``--sae`` or ``use:``; lower-case letters, digits and dashes.
        config: the component's options.
        target: ``"package.module:Class"``, imported only when the component is used, so that listing
            and describing plugins needs no torch. The class is built as its kind's base class says.
        default_parts: for coders: slot -> block (``{"sparsity": {"use": "topk", "k": 32}}``), used where
            the user chooses nothing. ``None`` as a block says that the coder has no such slot's part.
        refuses: for coders: ``(kind, name)`` -> the reason why this coder cannot work with that part.
    """

    kind: str
    name: str
    config: type[ComponentConfig]
    target: str
    default_parts: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    refuses: Mapping[tuple[str, str], str] = field(default_factory=dict)
