"""Several trained coders in one folder, one for each layer: ``coders.json`` and an artifact a layer below it.

Each of these is an artifact of its own, which ``load`` reads; ``coders.json`` says which belong together, in
which order, and holds a checksum of each one's description, so that none can be exchanged alone.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsae_core.artifact import artifact
from qsae_core.artifact.places import (
    FORMAT,
    FORMAT_VERSION,
    MEMBERS,
    SET_FILES,
    artifact_folder,
    checksum,
    member_folders,
    set_folder,
)
from qsae_core.coders.coder_set import CoderSet
from qsae_core.errors import ArtifactError
from qsae_core.kernels import Kind
from qsae_core.kernels.packed_rows import Arithmetic
from qsae_core.plugins.addresses import local_path
from qsae_core.results.files import atomic_folder, write_json
from qsae_core.results.run import slug

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig
    from qsae_core.registry import Registry


def save_set(
    coders: CoderSet,
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    sources: Mapping[str, dict[str, Any]],
    *,
    masters: bool = False,
    fresh: bool = False,
) -> None:
    """Write the artifacts of all coders as one folder, all or nothing.

    Args:
        config, registry, masters, fresh: as ``artifact.save`` takes them.
        sources: layer -> what ``artifact.save`` takes as ``source``.
    """
    with atomic_folder(folder, fresh=fresh) as temporary:
        entries = []
        for name, coder in zip(coders.names, coders.by_layer(), strict=True):
            place = temporary / slug(name)
            artifact.save(coder, place, config, registry, sources[name], masters=masters)
            entries.append({"layer": name, "folder": place.name, "sha256": checksum(place)})
        record = {"format": FORMAT, "format_version": FORMAT_VERSION, "coders": entries}
        write_json(temporary / MEMBERS, record)


def load_set(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    screen: Kind = "none",
    arithmetic: Arithmetic = "exact",
    kernels: str = "auto",
    registry: Registry | None = None,
) -> CoderSet:
    """All coders of a run with one for each layer: ``coders["3"]`` is one of them, and the set itself reads
    ``[B, L, d_in]`` as one coder.

    Args:
        path: a run's folder, its ``checkpoints/final``, or any folder with ``coders.json``; or an address.
        device, screen, arithmetic, kernels: as ``load`` takes them.

    Raises:
        ArtifactError: if there are no several coders, or one cannot be read.
        PluginError, ConfigError: as ``load``.
    """
    place = local_path(path, SET_FILES, beside=SET_FILES)
    folder = set_folder(place)
    if folder is None:
        one = artifact_folder(place)  # says what is there, if that is no coder either
        raise ArtifactError(
            f"holds one coder, and no set of them (no {MEMBERS})",
            where=str(one),
            allowed="a run with a coder for each layer",
            next="qsae_core.load reads a single one",
        )
    served: dict[str, Any] = {"screen": screen, "arithmetic": arithmetic, "kernels": kernels}
    members = {
        name: artifact.load(place, device=device, registry=registry, **served)
        for name, place in member_folders(folder).items()
    }
    return CoderSet(members).eval()


def set_measurements(coders: CoderSet, folder: pathlib.Path) -> dict[str, Any]:
    """``artifact.measurements`` of all together: bytes in all, and bits per weight over all weights."""
    places = member_folders(folder)
    found = [artifact.measurements(coders[name], place) for name, place in places.items()]
    n_bytes = sum(m["bytes"] for m in found) + (folder / MEMBERS).stat().st_size
    float_bytes = sum(m["float_bytes"] for m in found)
    bits = {}
    for name in found[0]["bits_per_weight"]:
        sizes = [math.prod(coder.matrices()[name].shape) for coder in coders.by_layer()]
        of_each = [m["bits_per_weight"][name] for m in found]
        bits[name] = sum(b * n for b, n in zip(of_each, sizes, strict=True)) / sum(sizes)
    return {
        "bytes": n_bytes,
        "float_bytes": float_bytes,
        "times_smaller": float_bytes / n_bytes,
        "bits_per_weight": bits,
    }
