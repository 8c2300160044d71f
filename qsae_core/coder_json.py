"""``coder.json``: what a stored coder is made of, and whether it can be made again here. Imports no torch."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from qsae_core.errors import ArtifactError, PluginError
from qsae_core.files import COPY, read_json
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry
    from qsae_core.run_config import RunConfig

FORMAT = "qsae-coder"
FORMAT_VERSION = 2
DESCRIPTION = "coder.json"


def read_description(folder: pathlib.Path) -> dict[str, Any]:
    """``coder.json`` of an artifact, checked for its format."""
    description = read_json(folder / DESCRIPTION)
    where = str(folder / DESCRIPTION)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ArtifactError(
            "does not describe a qsae coder", where=where, allowed=f"a {DESCRIPTION} of qsae", next=COPY
        )
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        older = isinstance(version, int) and version < FORMAT_VERSION
        raise ArtifactError(
            f"has format version {version}; this qsae reads {FORMAT_VERSION}",
            where=where,
            allowed=f"format version {FORMAT_VERSION}",
            next="train it again, or load it with the qsae that wrote it (coder.json: config.versions)"
            if older
            else "pip install --upgrade qsae",
        )
    return description


def usable_description(folder: pathlib.Path, registry: Registry) -> dict[str, Any]:
    """``read_description`` of a coder whose components are all installed, as its versions ask for.

    Raises:
        PluginError: if one is not; it names the distribution that brings it.
    """
    description = read_description(folder)
    _check_installed(description, registry, str(folder / DESCRIPTION))
    return description


def distributions(config: RunConfig, registry: Registry) -> dict[str, dict[str, str]]:
    """Slot -> name and version of the distribution that provides the component."""
    found = {}
    for slot, block in config.coder_dict().items():
        name, version = registry.provider(SLOTS[slot].kind, block["use"])
        found[slot] = {"name": name, "version": version}
    return found


def _check_installed(description: dict[str, Any], registry: Registry, where: str) -> None:
    for slot, block in components(description).items():
        source = description["distributions"][slot]
        kind = SLOTS[slot].kind
        if block["use"] not in registry.names(kind):
            raise PluginError(
                f"was made with {kind} '{block['use']}' of {source['name']} {source['version']}, "
                "which is not installed or does not work here",
                where=where,
                allowed=_versions_that_read(source),
                next=f"pip install {source['name']}=={source['version']}, then qsae list-plugins",
            )
        name, version = registry.provider(kind, block["use"])
        if name != source["name"] or _series(version) != _series(source["version"]):
            raise PluginError(
                f"was made with {kind} '{block['use']}' of {source['name']} {source['version']}, and here it "
                f"is that of {name} {version}",
                where=where,
                allowed=_versions_that_read(source),
                next=f"pip install {source['name']}=={source['version']}",
            )


def _versions_that_read(source: dict[str, str]) -> str:
    return f"{source['name']} {'.'.join(_series(source['version']))}.x"


def _series(version: str) -> tuple[str, ...]:
    """The part of a version within which artifacts can be read: 2 of 2.1.0, 0.3 of 0.3.1."""
    parts = version.split(".")
    return tuple(parts[:1] if parts[0] != "0" else parts[:2])


def components(description: dict[str, Any]) -> dict[str, Any]:
    """Slot -> block of the coder and its parts, from ``coder.json``."""
    slots = (*CODER_SLOTS, *PART_SLOTS)
    return {slot: block for slot, block in description["config"].items() if slot in slots}
