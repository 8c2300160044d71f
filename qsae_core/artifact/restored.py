"""A coder from its two files: what one says is compared with the other before anything is made of them."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qsae_core.artifact.description import DESCRIPTION, check_sizes, components, description_text
from qsae_core.artifact.places import MASTERS, TENSORS
from qsae_core.artifact.tensor_files import load_part, load_tensors, tensor_reader
from qsae_core.coders.drawn_rows import blank_rows
from qsae_core.coders.export import Cut, Export, layout_at_level
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.nesting import check_level
from qsae_core.coders.serving import StoredMasters
from qsae_core.coders.stored_form import check_tensor
from qsae_core.compose.compose import compose_coder
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.quantizer import PackedTensor
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.reading import all_finite
from qsae_core.results.files import COPY

if TYPE_CHECKING:
    from qsae_core.registry import Registry

REASON = 400
"""Characters of what an error says of the reason."""
ENTRIES_AT_ONCE = 2**22
"""Of a tensor, looked at together."""


def restored(
    folder: pathlib.Path,
    description: dict[str, Any],
    level: int | None,
    registry: Registry,
    *,
    map_large: bool = False,
) -> MatrixCoder:
    """The coder that a description composes, with the tensors of the file beside it; ``map_large`` as
    ``load_tensors`` takes it.

    Raises:
        ArtifactError: if one is not of the other, or the file is damaged.
        ConfigError: if there is no such level.
    """
    export = _read_export(folder, description, level, map_large)
    file = folder / DESCRIPTION
    _check_finite(export.tensors, folder / TENSORS)
    check_sizes(description, sum(t.nbytes for t in export.tensors.values()), str(file))
    with _fitting(folder):
        with torch.device("meta"):  # it takes no memory before the sizes are known to be true
            outline = _composed(file, description, export.level, registry)
        outline.check_export(export)
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
        if not all(all_finite(part) for part in parts):
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


def part_name(level: int) -> str:
    """What a level is called in the header of the file of tensors."""
    return f"level {level}"


def _read_export(
    folder: pathlib.Path, description: dict[str, Any], level: int | None, map_large: bool
) -> Export:
    """The tensors and their layout; those of a level alone where one is asked for."""
    text = (folder / DESCRIPTION).read_text(encoding="utf-8")
    layout, count = description["layout"], description["levels"]["count"]
    if level is not None:
        check_level(level, count, str(folder))
    if level is None or level == count:
        return Export(load_tensors(folder / TENSORS, text, map_large=map_large), layout, _cuts(description))
    tensors = load_part(folder / TENSORS, part_name(level), ends_of(description, level), text)
    return Export(tensors, layout_at_level(layout, level), {}, level)


def _cuts(description: dict[str, Any]) -> dict[str, Cut]:
    return {name: Cut(dim, tuple(ends)) for name, (dim, ends) in description["levels"]["cuts"].items()}


def ends_of(description: dict[str, Any], level: int) -> dict[str, tuple[int, int]]:
    """Tensor -> dimension and entries of it that a level reads."""
    return {name: (cut.dim, cut.ends[level - 1]) for name, cut in _cuts(description).items()}
