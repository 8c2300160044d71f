"""Trained coders on disk: ``coder.safetensors`` (packed weights) and ``coder.json`` (how to read them).

The JSON holds the run's whole configuration, and for each component the distribution and version that it
came from; the header of the safetensors file holds a sha256 over the tensors and that JSON, so that neither
can be changed alone. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from qsae_core.active_kernels import activate_kernels
from qsae_core.coder import CoderShape, SparseCoder
from qsae_core.compose import compose_coder
from qsae_core.errors import ArtifactError, ConfigError, PluginError
from qsae_core.export import Cut, Export, layout_at_level
from qsae_core.files import atomic_folder, read_json
from qsae_core.kernels import Kind
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, SLOTS
from qsae_core.nesting import check_level
from qsae_core.packed_rows import Arithmetic
from qsae_core.plugins import load_plugins
from qsae_core.tensor_files import COPY, load_part, load_tensors, part_bytes, save_tensors

if TYPE_CHECKING:
    from qsae_core.registry import Registry
    from qsae_core.run_config import RunConfig

FORMAT = "qsae-coder"
FORMAT_VERSION = 2
TENSORS, DESCRIPTION, MASTERS = "coder.safetensors", "coder.json", "masters.safetensors"


def save(
    coder: SparseCoder,
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    source: dict[str, Any],
    *,
    masters: bool = False,
) -> None:
    """Write a coder's packed artifact as a folder, all or nothing.

    Args:
        config: the run whose coder this is: ``load`` builds its components again, ``qsae evaluate`` its data.
        registry: knows which distribution provides each of them.
        source: JSON values about the training data (model, site, tokens), for whoever loads it.
        masters: also write ``masters.safetensors``: every float32 master and buffer, as trained.
    """
    export = coder.export()
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config.to_dict(),
        "distributions": _distributions(config, registry),
        "shape": coder.shape._asdict(),
        "layout": export.layout,
        "levels": {"count": coder.levels, "cuts": {name: list(cut) for name, cut in export.cuts.items()}},
        "source": source,
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    parts = {_part(i): export.at_level(i).tensors for i in range(1, coder.levels)}
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / TENSORS, export.tensors, text, parts)
        (temporary / DESCRIPTION).write_text(text, encoding="utf-8")
        if masters:
            save_tensors(temporary / MASTERS, coder.state_dict(), text)


def load(
    path: str | os.PathLike[str],
    *,
    level: int | None = None,
    device: str = "cpu",
    screen: Kind = "none",
    arithmetic: Arithmetic = "exact",
    kernels: str = "auto",
    registry: Registry | None = None,
) -> SparseCoder:
    """A trained coder in evaluation mode, ready for ``encode``, ``decode`` and ``forward``.

    A quantized decoder is read from its packed codes, a few rows at a time, and never becomes a float matrix.
    As loaded by default the coder's reconstructions equal those of the model that was trained, in evaluation
    mode, bit for bit (on the same machine and device).

    Args:
        path: a run's folder, its ``checkpoints/final``, or any folder with ``coder.json``.
        level: 1 to the coder's ``levels``: its first groups of latents, or the first bit planes of its
            decoder; only the bytes of that level are read. None: the whole coder.
        device: where to put it.
        screen: ``int8`` or ``bf16``: encode through a low-precision product that names twice as many
            candidates as the code keeps, and compute these again exactly; the codes are the same but for
            less than one entry in a thousand, and no float encoder is kept. ``none``: the exact product.
        arithmetic: ``exact``, or ``fast``: where no compiled kernel reads the packed codes, decode from one
            byte a weight with float32 sums whose rounding differs (relative error below 1e-6).
        kernels: compiled operations: ``auto``, ``none`` or a set's name; they hold for the whole process.
        registry: the installed components; found by themselves when left out.

    Raises:
        ArtifactError: if nothing is there, a file is truncated or altered, or was made by a later format.
        PluginError: if a component's plugin is not installed; the message names the distribution.
        ConfigError: if there is no such level, the coder cannot be screened, or a named kernel set cannot be
            used.
    """
    folder = artifact_folder(pathlib.Path(path))
    registry = registry or load_plugins().registry
    description = usable_description(folder, registry)
    export = _read_export(folder, description, level)
    activate_kernels(kernels, registry)
    shape = CoderShape(**description["shape"])
    place = str(folder / DESCRIPTION)
    coder = compose_coder(components(description), registry, shape, place=place, level=export.level)
    try:
        coder.restore(export)
    except (ConfigError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"does not fit the coder that it describes ({error})",
            where=str(folder),
            allowed=f"{TENSORS} with the tensors that {DESCRIPTION} lists; {MASTERS} is another file",
            next=COPY,
        ) from error
    serve_with(coder, screen, arithmetic, where=str(folder))
    coder.masters_file = folder / MASTERS
    return coder.to(device).eval()


def _part(level: int) -> str:
    """What a level is called in the header of the file of tensors."""
    return f"level {level}"


def _read_export(folder: pathlib.Path, description: dict[str, Any], level: int | None) -> Export:
    """The tensors and their layout; those of a level alone where one is asked for."""
    text = (folder / DESCRIPTION).read_text(encoding="utf-8")
    layout, count = description["layout"], description["levels"]["count"]
    if level is not None:
        check_level(level, count, str(folder))
    if level is None or level == count:
        return Export(load_tensors(folder / TENSORS, text), layout, _cuts(description))
    tensors = load_part(folder / TENSORS, _part(level), _ends(description, level), text)
    return Export(tensors, layout_at_level(layout, level), {}, level)


def _cuts(description: dict[str, Any]) -> dict[str, Cut]:
    return {name: Cut(dim, tuple(ends)) for name, (dim, ends) in description["levels"]["cuts"].items()}


def _ends(description: dict[str, Any], level: int) -> dict[str, tuple[int, int]]:
    """Tensor -> dimension and entries of it that a level reads."""
    return {name: (cut.dim, cut.ends[level - 1]) for name, cut in _cuts(description).items()}


def level_bytes(folder: pathlib.Path) -> list[int]:
    """Bytes of tensors that each level reads, the whole coder last; none of them is read for it."""
    description = read_description(folder)
    levels = range(1, description["levels"]["count"] + 1)
    return [part_bytes(folder / TENSORS, _ends(description, level)) for level in levels]


def serve_with(coder: SparseCoder, screen: Kind, arithmetic: Arithmetic, *, where: str) -> None:
    """Set how a restored coder searches and decodes; see ``load``.

    Raises:
        ConfigError: if it cannot be screened; ``where`` says which coder.
    """
    refusal = coder.refusal_to_screen() if screen != "none" else None
    if refusal:
        raise ConfigError(f"cannot be screened: {refusal}", where=where, allowed="screen: none")
    coder.screen = screen
    for matrix in coder.matrices().values():
        matrix.arithmetic = arithmetic


def artifact_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder with ``coder.json`` that a user means by a run, a checkpoint or a file.

    Raises:
        ArtifactError: if there is none.
    """
    asked = "a run's folder, its checkpoints/final, or a folder that qsae wrote"
    if not path.exists():
        raise ArtifactError(
            "there is no such file or folder", where=str(path), allowed=asked, next="qsae runs"
        )
    if path.name == MASTERS:
        raise ArtifactError(
            "holds the float weights that were trained, not the packed coder that is served",
            where=str(path),
            allowed=f"{path.parent}, and dictionary(quantized=False) for float atoms",
            next=f"qsae evaluate {path.parent}",
        )
    candidates = [path.parent] if path.is_file() else [path, path / "checkpoints" / "final", path / "final"]
    for candidate in candidates:
        if (candidate / DESCRIPTION).is_file():
            return candidate
    raise ArtifactError(
        f"holds no trained coder (no {DESCRIPTION})",
        where=str(path),
        allowed=asked,
        next="qsae runs",
    )


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


def _distributions(config: RunConfig, registry: Registry) -> dict[str, dict[str, str]]:
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


def measurements(coder: SparseCoder, folder: pathlib.Path) -> dict[str, Any]:
    """What an artifact costs: bytes of its two files, bytes of the same coder in float32, bits per weight.

    ``float_bytes`` counts every matrix at 4 bytes a weight and every other tensor as it is stored.
    """
    export = coder.export()
    packed = {f"{name}.{part}" for name, entry in export.layout.items() for part in entry["parts"]}
    matrices = sum(4 * entry["shape"][0] * entry["shape"][1] for entry in export.layout.values())
    rest = sum(t.numel() * t.element_size() for n, t in export.tensors.items() if n not in packed)
    n_bytes = sum((folder / name).stat().st_size for name in (TENSORS, DESCRIPTION))
    return {
        "bytes": n_bytes,
        "float_bytes": matrices + rest,
        "times_smaller": (matrices + rest) / n_bytes,
        "bits_per_weight": {name: matrix.pack().bits_per_weight for name, matrix in coder.matrices().items()},
    }
