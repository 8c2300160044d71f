"""``coder.json``: what a stored coder is made of, and whether it can be made again here. Imports no torch."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from pydantic_core import ErrorDetails

from qsae_core.errors import ArtifactError, ConfigError, PluginError
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, SLOTS
from qsae_core.results.files import COPY, read_json

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig
    from qsae_core.registry import Registry

FORMAT = "qsae-coder"
FORMAT_VERSION = 2
DESCRIPTION = "coder.json"
NO_DATA = "no_data"
"""Key of ``source``, true of a coder that was imported without data: its ``config`` then has no data of its
own."""
TRAINED_ON = "trained_on"
"""Key of ``source``: for each data source that went into a coder, its component and its
``HeldOutPart.record``; absent where that is not known."""
Origins = Sequence[Mapping[str, Any]]
"""What is there."""


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)


class _Block(_Entry):
    use: str


class _Train(_Entry):
    batch_size: PositiveInt
    eval_tokens: PositiveInt


class _Run(_Entry):
    seed: int
    device: str


class _Config(_Entry):
    """What evaluation reads of the run; the options of components are for their own schemas."""

    data: _Block
    metrics: list[_Block]
    evaluate: list[_Block]
    train: _Train
    run: _Run


class _Distribution(_Entry):
    name: str
    version: str


class _Shape(_Entry):
    model_config = ConfigDict(strict=True, extra="forbid")

    d_in: PositiveInt
    d_out: PositiveInt
    layers_in: PositiveInt = 1
    layers_out: PositiveInt = 1


class _Matrix(_Entry):
    shape: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    layout: dict[str, Any]
    parts: list[str]
    level_rows: list[NonNegativeInt] = []


class _Levels(_Entry):
    count: PositiveInt
    cuts: dict[str, Annotated[tuple[NonNegativeInt, list[NonNegativeInt]], Field(strict=False)]]


class _Description(_Entry):
    """``coder.json`` as ``artifact.save`` writes it, below its format and version."""

    config: _Config
    distributions: dict[str, _Distribution]
    shape: _Shape
    layout: dict[str, _Matrix]
    levels: _Levels
    source: dict[str, Any]


def read_description(folder: pathlib.Path) -> dict[str, Any]:
    """``coder.json`` of an artifact, checked for its format and for having every entry that is read.

    Raises:
        ArtifactError: if it is damaged, or of another format or version; whether it was altered is seen where
            the tensors, whose checksum includes it, are read.
    """
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
            f"has format version {version!r}; this qsae reads {FORMAT_VERSION}",
            where=where,
            allowed=f"format version {FORMAT_VERSION}",
            next="train it again, or load it with the qsae that wrote it (coder.json: config.versions)"
            if older
            else "pip install --upgrade qsae",
        )
    fault = next(_faults(description), None)
    if fault is not None:
        raise ArtifactError(
            f"is damaged: {fault}", where=where, allowed=f"{DESCRIPTION} as qsae wrote it", next=COPY
        )
    return description


def check_sizes(description: dict[str, Any], n_bytes: int, where: str) -> None:
    """Refuse widths, layers, latents or rows of which there are more than bytes of tensors: a coder stores a
    byte at least for each. So nothing that is made from a description is larger than its file.

    Raises:
        ArtifactError: with the first one.
    """
    sizes = {f"shape.{key}": size for key, size in description["shape"].items()}
    for name, entry in description["layout"].items():
        sizes |= {f"layout.{name}.shape.{i}": size for i, size in enumerate(entry["shape"])}
    for slot, block in components(description).items():
        sizes |= {f"config.{slot}.{key}": block.get(key) for key in ("n_latents",)}
    for key, size in sizes.items():
        if isinstance(size, int) and size > n_bytes:
            raise ArtifactError(
                f"{key} is {size}, and the tensors of the coder have {n_bytes} bytes in all",
                where=where,
                allowed=f"{DESCRIPTION} as qsae wrote it, and the file of tensors beside it",
                next=COPY,
            )


def description_text(folder: pathlib.Path) -> str:
    """``coder.json`` as the checksums of the files beside it take it in; raises as ``read_description``."""
    read_description(folder)
    return (folder / DESCRIPTION).read_text(encoding="utf-8")


def _faults(description: dict[str, Any]) -> Iterator[str]:
    """What is missing or of another type; then, which entries do not go with each other."""
    try:
        _Description.model_validate(description)
    except ValidationError as error:
        yield from map(_complaint, error.errors(include_url=False))
        return
    blocks = components(description)
    if sum(slot in blocks for slot in CODER_SLOTS) != 1:
        yield f"config has not exactly one of {' and '.join(CODER_SLOTS)}"
    for slot in sorted(blocks.keys() ^ description["distributions"].keys()):
        yield f"{slot} is not in both config and distributions"
    for slot, block in blocks.items():
        if not isinstance(block, dict) or not isinstance(block.get("use"), str):
            yield f"config.{slot} names no component under 'use'"
    count, cuts = description["levels"]["count"], description["levels"]["cuts"]
    numbers = {f"levels.cuts.{name}": ends for name, (_, ends) in cuts.items()}
    rows = {
        f"layout.{name}.level_rows": entry.get("level_rows") for name, entry in description["layout"].items()
    }
    for key, values in (numbers | rows).items():
        if values is not None and len(values) != count:
            yield f"{key} has {len(values)} entries for {count} levels"


def _complaint(error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"it has no {key}"
    if error["type"] == "extra_forbidden":
        return f"{key} is not known"
    is_mapping = error["type"] in ("model_type", "dict_type")
    return (
        f"{key}: {'Input should be a mapping' if is_mapping else error['msg']} (got {error['input']!r:.80})"
    )


def usable_description(folder: pathlib.Path, registry: Registry) -> dict[str, Any]:
    """``read_description`` of a coder whose components are all installed, as its versions ask for.

    Raises:
        PluginError: if one is not; it names the distribution that brings it.
    """
    description = read_description(folder)
    _check_installed(description, registry, str(folder / DESCRIPTION))
    return description


def check_data_known(description: Mapping[str, Any], chosen: bool, where: str) -> None:
    """Refuse to measure a coder that was imported without data on what happens to be the default.

    Args:
        chosen: whether data was chosen now.

    Raises:
        ConfigError: with what to choose.
    """
    if description["source"].get(NO_DATA) and not chosen:
        raise ConfigError(
            "it was imported, and what vectors it is for is not recorded",
            where=where,
            allowed="data that is chosen now",
            next="--model NAME --layer N --site SITE, or --data-path FILE; qsae import keeps what it gets",
        )


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
