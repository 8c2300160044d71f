"""config.json of Gemma Scope 2: what it may say, and what it says of a coder that is written."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from qsae_core.contracts import Checkpoint
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, json_settings
from qsae_format_gemma_scope.hooks import hook_of, told_by_folders

CONFIG = "config.json"
ARCHITECTURE = "jump_relu"
Type = Literal["sae", "transcoder", "crosscoder", "clt"]
WORDS = {"hf_hook_point_in": str, "hf_hook_point_out": str, "model_name": str, "affine_connection": bool}
KEYS = (*WORDS, "width", "architecture", "l0", "type")


class Found(NamedTuple):
    """What the tensors say of a coder."""

    n_latents: int
    """Of all layers together."""
    affine: bool
    """Whether there is a skip connection."""


def config_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """config.json, where there is one."""
    return (file_in(folder, CONFIG),) if is_file_in(folder, CONFIG) else ()


def settings_in(folder: pathlib.Path) -> dict[str, Any]:
    """config.json; where there is none, what the names of folders say, in its words.

    Raises:
        ArtifactError: if it is damaged.
    """
    files = config_files(folder)
    return json_settings(files[0]) if files else told_by_folders(folder)


def type_of(settings: Mapping[str, Any], found: Found, where: str) -> Type | None:
    """What the settings say that it is; None where they do not.

    Raises:
        ArtifactError: if they say anything that is not so, or that is not known.
    """
    unknown = [key for key in settings if key not in KEYS]
    if unknown:
        raise ArtifactError(
            f"has the setting {unknown[0]!r}, which is not known",
            where=where,
            allowed=", ".join(KEYS),
            next=f"take it out of {CONFIG}, if it changes nothing of what the coder computes",
        )
    for key, kind in WORDS.items():
        if not isinstance(settings.get(key, kind()), kind):
            raise ArtifactError(f"{key} is {settings[key]!r}", where=where, allowed=f"a {kind.__name__}")
    for key, allowed in (("architecture", (ARCHITECTURE,)), ("type", get_args(Type))):
        if settings.get(key, allowed[0]) not in allowed:
            raise ArtifactError(f"{key} is {settings[key]!r}", where=where, allowed=", ".join(allowed))
    width = settings.get("width", found.n_latents)
    if type(width) is not int or width != found.n_latents:
        raise ArtifactError(f"width is {width!r}, and there are {found.n_latents} latents", where=where)
    if settings.get("affine_connection", found.affine) != found.affine:
        there = "one" if found.affine else "none"
        raise ArtifactError(
            f"affine_connection is {settings['affine_connection']}, and there is {there}", where=where
        )
    said: Type | None = settings.get("type")
    return said


def completed(settings: Mapping[str, Any], kind: Type, found: Found) -> dict[str, Any]:
    """Settings with what the coder itself says in them."""
    return {**settings, **_said_by(kind, found)}


def settings_for(checkpoint: Checkpoint, kind: Type, found: Found) -> dict[str, Any]:
    """Those that a coder was read with, but for what is otherwise now; or what is known of it."""
    if checkpoint.settings:
        now = _said_by(kind, found)
        return {key: now.get(key, value) for key, value in checkpoint.settings.items()}
    provenance = checkpoint.provenance
    sides = {"in": provenance.sources, "out": provenance.targets}
    hooks = {f"hf_hook_point_{side}": hook_of(provenance, places) for side, places in sides.items()}
    known: dict[str, Any] = {} if None in hooks.values() else dict(hooks)
    known["model_name"] = provenance.model or ""  # SAELens reads it, whatever it is
    return completed(known, kind, found)


def _said_by(kind: Type, found: Found) -> dict[str, Any]:
    return {
        "width": found.n_latents,
        "architecture": ARCHITECTURE,
        "affine_connection": found.affine,
        "type": kind,
    }
