"""What a stored coder's float twin, in the folder beside it, says of it. Shapes: F latents, L layers."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qsae_core.artifact import artifact, places
from qsae_core.artifact.coder_sets import load_set
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.serving import squared_sines
from qsae_core.compose.compose import compose_evaluations
from qsae_core.config.run import RunConfig
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.dense import ROWS_AT_ONCE
from qsae_core.results.run import FLOAT_TWIN, Run

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def stored_twin(
    folder: pathlib.Path, config: RunConfig, registry: Registry, device: str
) -> SparseCoder | None:
    """The float twin beside an artifact, where an evaluation observes it."""
    twin = twin_folder(folder)
    wanted = any("twin" in e.observes for e in compose_evaluations(config, registry).values())
    if not wanted or twin is None:
        return None
    if (twin / places.MEMBERS).is_file():
        return load_set(twin, device=device, registry=registry)
    return artifact.load(twin, device=device, registry=registry, map_large=True)


def twin_folder(folder: pathlib.Path) -> pathlib.Path | None:
    """Where the float twin of a stored coder, or of several, is: beside it, or, of one that ``qsae quantize``
    made, the float coder that it was made from, if that is still the one that it was; None where there is
    none."""
    of_set = (folder.parent / places.MEMBERS).is_file()
    twin = folder.parent.parent / FLOAT_TWIN / folder.name if of_set else folder.parent / FLOAT_TWIN
    if places.is_stored(twin) and twin != folder:
        return twin
    source = _quantized_from(folder.parent if of_set else folder)
    if source is None or not of_set:
        return source
    return next(
        (place for place in places.member_folders(source).values() if place.name == folder.name), None
    )


def _quantized_from(folder: pathlib.Path) -> pathlib.Path | None:
    """The float coder, or coders, of which a run's were made without training; of 32 or 16 bits, as no
    others are quantized. Where these were the float masters of a quantized one, it is not they."""
    run = Run(folder.parent.parent)
    made = run.quantized_from if folder == run.final else None
    if made is None or made["sha256"] is None or made["of_masters"] is not False:
        return None
    source = pathlib.Path(made["path"])
    if not places.is_stored(source) or places.identity(source) != made["sha256"]:
        return None
    return source


@torch.no_grad()
def atom_errors_of(
    coder: MatrixCoder, folder: pathlib.Path, registry: Registry
) -> tuple[AtomErrors | None, str | None]:
    """``SparseCoder.atom_errors``, or the same against the float twin's atoms; and which of the two."""
    errors = coder.atom_errors()
    if errors is not None:
        return errors, "masters"
    twin = twin_folder(folder)
    if not coder.decoders() or twin is None:
        return None, None
    other = artifact.load(twin, device=str(coder.device), registry=registry, map_large=True)
    n = coder.n_latents
    sines = squared_sines(_equal_layers(other, n), _equal_layers(coder, n))
    return AtomErrors(sines, other.atom_norms()[:n]), "float twin"


def _equal_layers(coder: MatrixCoder, n: int) -> Iterator[Tensor]:
    """float32 ``[R, L d_out]``, blocks of ``ROWS_AT_ONCE`` of its first n atoms: over the scale of each
    layer's data, not rotated."""
    norm, decoders = coder.norm_out, list(coder.decoders().values())
    if len(decoders) > 1 or not coder.places_rows:
        yield from (coder.atoms()[:n] / norm.scale).flatten(1).split(ROWS_AT_ONCE)
        return
    for rows in decoders[0].blocks():
        atoms = norm.inverse_direction(coder.placed([rows[:n]])) / norm.scale
        if len(atoms):
            yield atoms.flatten(1)
        n -= len(atoms)
