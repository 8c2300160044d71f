"""Trained coders on disk: ``coder.safetensors`` (packed weights) and ``coder.json`` (how to read them).

The JSON holds the run's whole configuration, and for each component the distribution and version that it
came from; the header of the safetensors file holds a sha256 over the tensors and that JSON, so that neither
can be changed alone. Nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qsae_core.artifact.description import (
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    check_sizes,
    components,
    description_text,
    distributions,
    read_description,
    usable_description,
)
from qsae_core.artifact.places import CODER_FILES, MASTERS, TENSORS, artifact_folder
from qsae_core.artifact.tensor_files import load_part, load_tensors, part_bytes, save_tensors, tensor_reader
from qsae_core.coders.drawn_rows import blank_rows
from qsae_core.coders.export import Cut, Export, layout_at_level
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.nesting import check_level
from qsae_core.coders.serving import StoredMasters, check_choices
from qsae_core.coders.stored_form import check_export, check_tensor
from qsae_core.compose.compose import compose_coder
from qsae_core.compose.kernels import activate_kernels
from qsae_core.compose.setup import usable_device
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.quantizer import Packed, PackedTensor
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.kernels import Kind
from qsae_core.kernels.packed_rows import Arithmetic
from qsae_core.plugins.addresses import local_path
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import COPY, atomic_folder

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig
    from qsae_core.registry import Registry

REASON = 400
"""Characters of what an error says of the reason."""
ENTRIES_AT_ONCE = 2**22
"""Of a tensor, looked at together."""


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
    parts = {_part(i): export.at_level(i).tensors for i in range(1, coder.levels)}
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
    coder = _restored(folder, usable_description(folder, registry), level, registry)
    serve_with(coder, screen, arithmetic, where=str(folder))
    return coder.to(place).eval()


def _restored(
    folder: pathlib.Path, description: dict[str, Any], level: int | None, registry: Registry
) -> MatrixCoder:
    """The coder that a description composes, with the tensors of the file beside it."""
    export = _read_export(folder, description, level)
    file = folder / DESCRIPTION
    _check_finite(export.tensors, folder / TENSORS)
    check_sizes(description, sum(t.nbytes for t in export.tensors.values()), str(file))
    with _fitting(folder):
        with torch.device("meta"):  # it takes no memory before the sizes are known to be true
            outline = _composed(file, description, export.level, registry)
        check_export(outline, export)
        masters = {name: PackedTensor(t.dtype, tuple(t.shape)) for name, t in outline.state_dict().items()}
    with _fitting(folder):
        coder = _composed(file, description, export.level, registry)
        coder.restore(export)
        coder.check_stored()
        _check_levels(coder, description, export.level)
    coder.masters = _masters(folder, masters, export.level)
    return coder


@contextmanager
def _fitting(folder: pathlib.Path) -> Iterator[None]:
    """What does not go together is a fault of the files."""
    try:
        yield
    except (ArithmeticError, ConfigError, LookupError, RuntimeError, TypeError, ValueError) as error:
        kind = "" if type(error) in (ConfigError, ValueError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise ArtifactError(
            f"does not fit the coder that it describes ({reason:.{REASON}})",
            where=str(folder),
            allowed=f"{TENSORS} with the tensors that {DESCRIPTION} lists; {MASTERS} is another file",
            next=COPY,
        ) from error


def _check_levels(coder: MatrixCoder, description: dict[str, Any], level: int | None) -> None:
    """Refuse another number of levels than the coder has.

    Raises:
        ValueError: with both.
    """
    count = description["levels"]["count"]
    if level is None and count != coder.levels:
        raise ValueError(f"it says {count} levels, and the coder has {coder.levels}")


def _check_finite(tensors: Mapping[str, Tensor], file: pathlib.Path) -> None:
    """Refuse values that no trained coder has, some at a time: with them it would compute anything."""
    for name, tensor in tensors.items():
        parts = tensor.flatten().split(ENTRIES_AT_ONCE) if tensor.is_floating_point() else ()
        if not all(bool(part.isfinite().all()) for part in parts):
            raise ArtifactError(
                f"{name} has NaN or infinite values",
                where=str(file),
                allowed="numbers",
                next=COPY,
            )


def _masters(folder: pathlib.Path, expected: Mapping[str, PackedTensor], level: int | None) -> StoredMasters:
    """The file of float masters beside an artifact; it is read, and checked, when a master is asked for.

    Args:
        expected: of a coder of that level, whose tensors have fewer rows than those in the file.
    """
    kept = (folder / MASTERS).exists()
    read = functools.partial(_read_master, folder, expected, level) if kept else None
    return StoredMasters(str(folder), read)


def _read_master(
    folder: pathlib.Path, expected: Mapping[str, PackedTensor], level: int | None, name: str
) -> Tensor:
    tensor = tensor_reader(folder / MASTERS, description_text(folder))(name)
    wanted = expected[name]
    if level is not None and wanted.shape:
        wanted = wanted._replace(shape=(None, *wanted.shape[1:]))
    try:
        check_tensor(name, tensor, wanted)
    except ValueError as error:
        raise ArtifactError(str(error), where=str(folder / MASTERS), next=COPY) from error
    _check_finite({name: tensor}, folder / MASTERS)
    return tensor


def _composed(
    file: pathlib.Path, description: dict[str, Any], level: int | None, registry: Registry
) -> MatrixCoder:
    """The coder as described, with initial weights; what does not go together is a fault of the file."""
    shape, place = CoderShape(**description["shape"]), str(file)
    try:
        with blank_rows():  # restore fills them
            return compose_coder(components(description), registry, shape, place=place, level=level)
    except ConfigError as error:
        where = error.where if error.where and error.where.startswith(place) else place
        raise ArtifactError(error.what, where=where, allowed=error.allowed, next=COPY) from error


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
