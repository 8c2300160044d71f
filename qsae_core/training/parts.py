"""What can be trained in parts (``train.latent_parallel``), each process with some of the latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from qsae_core.coder_options import CoderConfig
from qsae_core.coders.splitting import refusal_to_share
from qsae_core.compose.compose import coder_class, that_split
from qsae_core.config.run import RunConfig
from qsae_core.errors import ConfigError
from qsae_core.kinds import SLOTS
from qsae_core.launched import command
from qsae_core.training.on_the_way import cadences
from qsae_core.training.setup import Member
from qsae_core.training.team import Team

if TYPE_CHECKING:
    from qsae_core.registry import Registry

WHERE = "train.latent_parallel"


def check_parts(config: RunConfig, team: Team, registry: Registry) -> None:
    """Refuse a number of parts that does not divide the processes, and a coder that cannot be divided.

    Raises:
        ConfigError: which says which.
    """
    parts = config.train.latent_parallel
    if team.world % parts:
        processes = "1 process" if team.world == 1 else f"{team.world} processes"
        raise ConfigError(
            f"the dictionary is to be divided over {parts} processes, and {processes} cannot be grouped so",
            where=WHERE,
            allowed="a number of processes that is a multiple of it, or --latent-parallel 1",
            next=command("train ...", parts),
        )
    variant = coder_class(config, registry)
    reason = None if parts == 1 else variant.refusal_to_split()
    if reason is not None:
        kind = SLOTS[config.coder_slot].kind
        raise _refused(
            f"{config.coder_slot} '{config.coder.use}'", reason, ", ".join(that_split(kind, registry))
        )


def check_cadences(config: RunConfig) -> None:
    """Refuse evaluations while a dictionary is divided: they ask whole coders.

    Raises:
        ConfigError: which names one.
    """
    named = next(iter(cadences(config)), None)
    if named is not None and config.train.latent_parallel > 1:
        raise ConfigError(
            f"'{named}' cannot run while each process has a part of the latents",
            where=f"evaluate.{named}.every",
            allowed="0 (only at the end, when the coder is whole again), or --latent-parallel 1",
            next=f"leave --{named}-every out",
        )


def check_latents(config: RunConfig, parts: int) -> None:
    """Refuse a dictionary of which each process would not have as many latents as the others.

    Raises:
        ConfigError: with the next smaller number of latents that divides; where a run is taken up again,
            whose latents are what they are, with that of parts.
    """
    n_latents = cast(CoderConfig, config.coder.options).n_latents
    if n_latents % parts:
        fewer = next(number for number in range(parts, 0, -1) if n_latents % number == 0)
        smaller = max(parts, n_latents - n_latents % parts)
        raise ConfigError(
            f"{n_latents} latents do not divide into {parts} equal parts",
            where=WHERE,
            allowed=f"a multiple of {parts} latents",
            next=f"--latent-parallel {fewer}" if config.run.resume else f"--n-latents {smaller}",
        )


def check_members(members: Sequence[Member], team: Team) -> None:
    """Refuse coders that are made of something that cannot be divided, or that needs whole batches.

    Raises:
        ConfigError: which says what.
    """
    for member in members if team.processes.world > 1 else ():
        reason = refusal_to_share(member.coder)
        if reason is not None:
            raise ConfigError(
                f"{team.processes.world} parts of a batch cannot train "
                f"{member.config.coder_slot} '{member.config.coder.use}': {reason}",
                where="quantizer",
                allowed="a process alone, processes that are all partners, or quantizers whose gradient "
                "is linear in that of w_hat (ste, lsq, ...)",
                next=f"--latent-parallel {team.world}: each has a part of the dictionary then, and every "
                "batch whole",
            )
    for member in members if team.partners.world > 1 else ():
        reason = member.coder.refusal_of_parts()
        if reason is not None:
            title = f"{member.config.coder_slot} '{member.config.coder.use}'"
            raise _refused(
                title,
                reason,
                "sparsity rules that keep the largest or treat each latent alone; quantizers with scales of "
                "each row",
            )


def _refused(title: str, reason: str, allowed: str) -> ConfigError:
    return ConfigError(
        f"{title} cannot be trained in parts: {reason}",
        where=WHERE,
        allowed=allowed,
        next="leave --latent-parallel out: each process has all latents then, and its part of each batch",
    )
