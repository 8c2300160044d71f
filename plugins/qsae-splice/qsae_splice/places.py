"""Stored coders, and where each is in the language model that they share."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_core import load, load_set
from qsae_core.contracts import DataSource, Site, SparseCoder
from qsae_core.errors import ConfigError
from qsae_core.runs import Registry, artifact_folder, set_folder, slug, stored_description
from qsae_splice.core_models import read_site

SINGLE = ""
"""What a single coder is called in a spec."""
MODEL = "model"
"""Key of ``source`` of a stored coder."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A coder, and where it is in the model.

    Attributes:
        folder: where it is stored.
        sources, targets: the sites that it reads and writes to, in its own order.
        number: of its layer among those that the data gives at once; None: the data's vectors are its own.
        own_data: whether the data that is open gives its vectors; else they are read at its sites.
    """

    coder: SparseCoder
    folder: pathlib.Path
    sources: tuple[Site, ...]
    targets: tuple[Site, ...]
    number: int | None = None
    own_data: bool = True

    @property
    def source(self) -> Site:
        """What a coder of one site reads.

        Raises:
            ConfigError: if it reads several.
        """
        return _only(self.sources, self)

    @property
    def target(self) -> Site:
        """What a coder of one site writes to.

        Raises:
            ConfigError: if it writes to several.
        """
        return _only(self.targets, self)

    @property
    def names(self) -> set[str]:
        """What an edit may call it by: its sites, and their layers."""
        return {name for site in self.targets for name in (str(site), str(site.layer))}


Members = Mapping[str, tuple[SparseCoder, pathlib.Path]]
"""Layer (``SINGLE``) -> a coder and where it is stored."""


def main_places(path: pathlib.Path, members: Members, data: DataSource) -> dict[str, Place]:
    """The coder at a path, or one for each layer, at the sites of the data: layer (``SINGLE``) -> place.

    Args:
        members: ``loaded(path)``.

    Raises:
        ConfigError: if the data is of other widths or sites than the coder.
    """
    sources, targets, several = data.source_sites, data.target_sites, SINGLE not in members
    shape = next(iter(members.values()))[0].shape
    wanted = (len(members), len(members)) if several else (shape.layers_in, shape.layers_out)
    if (len(sources), len(targets)) != wanted or (shape.d_in, shape.d_out) != (data.d_in, data.d_out):
        layers = f"{wanted[0]} layer(s)" if wanted[0] == wanted[1] else f"{wanted[0]} and {wanted[1]} layers"
        raise ConfigError(
            f"the coder is of {layers} of width {shape.d_in} -> {shape.d_out}, "
            f"and the vectors are of {len(sources)} of width {data.d_in} -> {data.d_out}",
            where=str(path),
            allowed="the model and the sites that it was trained on",
        )
    if not several:
        coder, folder = members[SINGLE]
        return {SINGLE: Place(coder, folder, sources, targets)}
    return {
        name: Place(coder, folder, sources[i : i + 1], targets[i : i + 1], i)
        for i, (name, (coder, folder)) in enumerate(members.items())
    }


def other_places(path: pathlib.Path, model_name: str, registry: Registry, device: str) -> list[Place]:
    """More coders of the same language model, at the sites that they were trained on.

    Args:
        model_name: of the vectors that the first coder was trained on.

    Raises:
        ConfigError: if one was trained on another model, or its sites are not recorded.
    """
    found = []
    for coder, folder in loaded(path, registry, device).values():
        source = stored_description(folder)["source"]
        sources, targets = (_sites(source, side) for side in ("source_sites", "target_sites"))
        fault = None if sources and targets else "at which sites it was trained is not recorded"
        if (model := source.get(MODEL)) != model_name:
            fault = f"it was trained on vectors of {model or 'a model that is not recorded'}, "
            fault += f"the first coder on {model_name}'s"
        if fault is not None:
            raise ConfigError(fault, where=f"--also {path}", allowed="coders of one language model")
        found.append(Place(coder, folder, sources, targets, own_data=False))
    return found


def trained_on(path: pathlib.Path) -> str:
    """The name of the model whose vectors a stored coder was trained on.

    Raises:
        ConfigError: if that is not recorded, as of a checkpoint of a library that does not say it.
    """
    model = stored_description(set_folder(path) or artifact_folder(path))["source"].get(MODEL)
    if model is None:
        raise ConfigError(
            "on which model's vectors it was trained is not recorded",
            where=str(path),
            allowed="with --also, coders whose language model is known",
            next="leave --also out",
        )
    return str(model)


def together(first: dict[str, Place], more: Sequence[Place]) -> dict[str, Place]:
    """All of them by name: that of the first as it was, where it is alone; else each by its sites.

    Raises:
        ConfigError: if two write to one site.
    """
    if not more:
        return first
    found: dict[str, Place] = {}
    taken: dict[Site, Place] = {}
    for place in [*first.values(), *more]:
        for site in place.targets:
            if site in taken:
                raise ConfigError(
                    f"{taken[site].folder} and {place.folder} both write to {site}",
                    where="--also",
                    allowed="one coder a site; in Python stack=True puts one behind the other",
                )
            taken[site] = place
        found["+".join(map(str, place.targets))] = place
    return found


def loaded(path: pathlib.Path, registry: Registry, device: str) -> Members:
    """The coder at a path, or those of a set."""
    folder = set_folder(path)
    if folder is None:
        return {SINGLE: (load(path, device=device, registry=registry), artifact_folder(path))}
    coders = load_set(path, device=device, registry=registry)
    pairs = zip(coders.names, coders.by_layer(), strict=True)
    return {name: (coder, folder / slug(name)) for name, coder in pairs}


def _only(sites: tuple[Site, ...], place: Place) -> Site:
    if len(sites) > 1:
        raise ConfigError(
            f"{type(place.coder).__name__} is of several sites at once: {', '.join(map(str, sites))}",
            where=str(place.folder),
            allowed="a coder of one",
        )
    return sites[0]


def _sites(source: Mapping[str, Any], side: str) -> tuple[Site, ...]:
    return tuple(read_site(name) for name in source.get(side) or ())
