"""``cfg.json``, the library's ``SparseCoderConfig``: what it says, checked, and what it should say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qsae_core.contracts import DenseForm
from qsae_core.errors import ArtifactError

DEFAULTS: dict[str, Any] = {
    "activation": "topk",
    "expansion_factor": 32,
    "normalize_decoder": True,
    "num_latents": 0,
    "k": 32,
    "multi_topk": False,
    "skip_connection": False,
    "transcode": False,
}
"""The fields of version 1.3.3, in their order; ``d_in`` stands behind them."""
EARLIER = {"signed": False}
"""Fields that earlier versions had, with the value that 1.3.3 computes."""
ROWS_AT_ONCE = 4096
UNIT = 1e-3
"""By which the norm of an atom may differ from 1 where the library keeps it there."""


class Configuration(NamedTuple):
    """What of it decides what is computed."""

    d_in: int
    n_latents: int
    k: int
    skips: bool
    transcodes: bool


def configuration(cfg: Mapping[str, Any], where: str) -> Configuration:
    """Values checked for type and range.

    Raises:
        ArtifactError: if one is none, or is of a variant that is not read.
    """
    _check_variant(cfg, where)
    for name in ("normalize_decoder", "multi_topk"):  # of training
        _switch(cfg, name, where)
    d_in = _count(cfg, "d_in", where, least=1)
    n_latents = _count(cfg, "num_latents", where) or d_in * _count(cfg, "expansion_factor", where, least=1)
    k = _count(cfg, "k", where, least=1)
    if k > n_latents:
        raise ArtifactError(f"k is {k}, with {n_latents} latents", where=where)
    skips, transcodes = (_switch(cfg, name, where) for name in ("skip_connection", "transcode"))
    return Configuration(d_in, n_latents, k, skips, transcodes)


def written(cfg: Mapping[str, Any], dense: DenseForm, *, transcodes: bool) -> dict[str, Any]:
    """What ``cfg.json`` says of a coder: as before, where that still holds.

    Args:
        cfg: what the file said that it was read from; empty for one of another origin.
    """
    d_in, n_latents = dense.W_enc.shape[1], dense.n_latents
    said = dict(cfg) or {
        **DEFAULTS,
        "expansion_factor": max(1, n_latents // d_in),
        "normalize_decoder": _has_unit_norms(dense),
        "num_latents": n_latents,
    }
    now = {**DEFAULTS, "d_in": d_in, **said}
    own = {"k": dense.k, "skip_connection": dense.W_skip is not None, "transcode": transcodes, "d_in": d_in}
    if (now["num_latents"] or d_in * now["expansion_factor"]) != n_latents:
        own["num_latents"] = n_latents
    return said | {name: value for name, value in own.items() if name == "d_in" or now[name] != value}


def _check_variant(cfg: Mapping[str, Any], where: str) -> None:
    activation = cfg.get("activation", DEFAULTS["activation"])
    if activation == "groupmax":
        raise ArtifactError(
            "its activation is groupmax: the largest latent of each of k groups, whatever the others are",
            where=where,
            allowed="topk",
        )
    if activation != "topk":
        raise ArtifactError(
            f"its activation is {activation!r}, which is not read here", where=where, allowed="topk"
        )
    if cfg.get("signed", False) is not False:
        raise ArtifactError(
            "it is signed: the latents that are largest without their sign, of which today's sparsify takes "
            "those above 0 alone",
            where=where,
            allowed="latents of 0 and above",
        )
    # a fork of the library trains other coders in files of the same names
    unknown = [
        name for name, value in cfg.items() if name not in {*DEFAULTS, *EARLIER, "d_in"} and _says(value)
    ]
    if unknown:
        name = unknown[0]
        raise ArtifactError(
            f"cfg.json says {name} = {cfg[name]!r}, which sparsify 1.3.3 does not know and leaves out",
            where=where,
            allowed=", ".join((*DEFAULTS, *EARLIER, "d_in")),
            next=f"take {name} out of cfg.json, if what is computed does not hang on it",
        )


def _says(value: Any) -> bool:
    return bool(value) and value != "none"


def _count(cfg: Mapping[str, Any], name: str, where: str, *, least: int = 0) -> int:
    found = cfg.get(name, DEFAULTS.get(name))
    if isinstance(found, bool) or not isinstance(found, int) or found < least:
        raise ArtifactError(f"{name} is {found!r}", where=where, allowed=f"a whole number of {least} or more")
    return found


def _switch(cfg: Mapping[str, Any], name: str, where: str) -> bool:
    found = cfg.get(name, DEFAULTS[name])
    if not isinstance(found, bool):
        raise ArtifactError(f"{name} is {found!r}", where=where, allowed="true or false")
    return found


def _has_unit_norms(dense: DenseForm) -> bool:
    parts = dense.W_dec.split(ROWS_AT_ONCE)
    return all(bool((rows.float().norm(dim=1) - 1).abs().max() <= UNIT) for rows in parts)
