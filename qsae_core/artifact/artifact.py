"""Trained coders on disk: ``coder.safetensors`` (packed weights) and ``coder.json`` (how to read them).

The JSON holds the run's whole configuration, and for each component the distribution and version that it
came from; the header of the safetensors file holds a sha256 over the tensors and that JSON, so that neither
can be changed alone. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import TYPE_CHECKING, Any

from qsae_core.artifact.description import (
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    distributions,
    read_description,
    usable_description,
)
from qsae_core.artifact.places import CODER_FILES, MASTERS, TENSORS, artifact_folder
from qsae_core.artifact.restored import ends_of, part_name, restored
from qsae_core.artifact.tensor_files import part_bytes, save_tensors
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.serving import check_choices
from qsae_core.compose.kernels import activate_kernels
from qsae_core.compose.setup import usable_device
from qsae_core.contracts.quantizer import Packed
from qsae_core.errors import ConfigError
from qsae_core.kernels import Kind
from qsae_core.kernels.packed_rows import Arithmetic
from qsae_core.plugins.addresses import local_path
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import atomic_folder

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig
    from qsae_core.registry import Registry


def save(
    coder: MatrixCoder,
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    source: dict[str, Any],
    *,
    masters: bool = False,
    fresh: bool = False,
) -> None:
    """Write a coder's packed artifact as a folder, all or nothing.

    Args:
        config: the run whose coder this is: ``load`` builds its components again, ``qsae evaluate`` its data.
        registry: knows which distribution provides each of them.
        source: JSON values about the training data (model, site, tokens), for whoever loads it.
        masters: also write ``masters.safetensors``: every float32 master and buffer, as trained.
        fresh: refuse, with a ConfigError, to take the place of what another process wrote there.
    """
    export = coder.export()
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config.to_dict(),
        "distributions": distributions(config, registry),
        "shape": coder.shape._asdict(),
        "layout": export.layout,
        "levels": {"count": coder.levels, "cuts": {name: list(cut) for name, cut in export.cuts.items()}},
        "source": source,
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    parts = {part_name(i): export.at_level(i).tensors for i in range(1, coder.levels)}
    with atomic_folder(folder, fresh=fresh) as temporary:
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
    map_large: bool = False,
) -> MatrixCoder:
    """A trained coder in evaluation mode, weights frozen, ready for ``encode``, ``decode`` and ``forward``.

    A quantized decoder is read from its packed codes, a few rows at a time, and never becomes a float matrix.
    As loaded by default, reconstructions equal those of the trained model in evaluation mode bit for bit (on
    the same machine and device). Gradients reach the vectors that are encoded or decoded, and no parameter;
    ``coder.requires_grad_(True)`` is for training on.

    Args:
        path: a run's folder, its ``checkpoints/final``, or any folder with ``coder.json``; or the address of
            one (``hf://user/repo/path``), of which a plugin fetches the two files that are read.
        level: 1 to the coder's ``levels``: its first groups of latents, or the first bit planes of its
            decoder; only the bytes of that level are read. None: the whole coder.
        screen: ``int8`` or ``bf16``: encode through a low-precision product that names twice as many
            candidates as the code keeps, and compute these again exactly; less than one entry of the codes
            in a thousand differs, and no float encoder is kept. ``none``: the exact product.
        arithmetic: ``exact``, or ``fast``: where no compiled kernel reads the packed codes, decode from one
            byte a weight with float32 sums whose rounding differs (relative error below 1e-6).
        kernels: compiled operations: ``auto``, ``none`` or a set's name; they hold for the whole process.
        map_large: for a pass over large matrices (of ``qsae_core.reading.LARGE`` entries and more) in little
            memory: tensors of that size stay in the file, which is to stay as it is, are read as they are
            used, and memory of those that are stored in 16 bits is given back as they have been. No float
            copy of a packed matrix is kept, so an encoder without a screen is unpacked for every batch: a
            coder that serves token after token is loaded without it.

    Raises:
        ArtifactError: if nothing is there, a file is truncated or altered, or was made by a later format.
        PluginError: if a component's plugin is not installed; the message names the distribution. Or that of
            the address.
        ConfigError: if there is no such level, device, screen, arithmetic, or kernel set for it.
    """
    folder = artifact_folder(local_path(path, CODER_FILES, beside=CODER_FILES))
    place = usable_device(device)
    registry = registry or load_plugins().registry
    activate_kernels(kernels, registry)
    coder = restored(folder, usable_description(folder, registry), level, registry, map_large=map_large)
    serve_with(coder, screen, arithmetic, where=str(folder))
    for matrix in coder.matrices().values():
        matrix.keeps_floats = not map_large
    return coder.to(place).eval()


def level_bytes(folder: pathlib.Path) -> list[int]:
    """Bytes of tensors that each level reads, the whole coder last; none of them is read for it."""
    description = read_description(folder)
    levels = range(1, description["levels"]["count"] + 1)
    return [part_bytes(folder / TENSORS, ends_of(description, level)) for level in levels]


def serve_with(coder: MatrixCoder, screen: Kind, arithmetic: Arithmetic, *, where: str) -> None:
    """Set how a restored coder searches and decodes; see ``load``.

    Raises:
        ConfigError: for a choice that there is not, or not for this coder; ``where`` says which one it is.
    """
    check_choices(screen, arithmetic, where=where)
    refusal = coder.refusal_to_screen() if screen != "none" else None
    if refusal:
        raise ConfigError(f"cannot be screened: {refusal}", where=where, allowed="screen: none")
    coder.screen = screen
    for matrix in coder.matrices().values():
        matrix.arithmetic = arithmetic


def measurements(coder: MatrixCoder, folder: pathlib.Path) -> dict[str, Any]:
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
        "bits_per_weight": bits_per_weight(coder),
    }


def bits_per_weight(coder: MatrixCoder) -> dict[str, float]:
    """Of each matrix, by its name; where several have one name and a number (``W_dec.0``, ...), under that
    name also of all of them."""
    found = {name: matrix.pack() for name, matrix in coder.matrices().items()}
    groups: dict[str, list[Packed]] = {}
    for name, packed in found.items():
        groups.setdefault(name.partition(".")[0], []).append(packed)
    weights = {name: sum(math.prod(p.shape) for p in group) for name, group in groups.items()}
    together = {
        name: sum(p.bits_per_weight * math.prod(p.shape) for p in group) / weights[name]
        for name, group in groups.items()
    }
    return {name: packed.bits_per_weight for name, packed in found.items()} | together
