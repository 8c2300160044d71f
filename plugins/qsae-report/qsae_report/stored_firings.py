"""What is stored of a run on how often, and how strongly, its latents fire. Imports no torch."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from qsae_samples import FILE, Samples

from qsae_core.errors import ArtifactError
from qsae_core.runs import read_json

SAMPLES, EVALUATIONS, LAYERS, SPARSITY = "samples", "evaluations", "layers", "sparsity"
Density = tuple[NDArray[Any], int | None]
"""float ``[F]``, and over how many tokens, where that is known."""


@dataclass(frozen=True)
class Firings:
    """Of each coder of a run.

    Attributes:
        densities: coder -> densities; the coder is ``""``, or ``layer 3``.
        samples: coder -> where its latents fire.
        notes: what is there and cannot be read.
    """

    densities: dict[str, Density] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def stored_firings(run: pathlib.Path) -> Firings:
    """From a run's samples and from its evaluation ``sparsity``, whose densities count where both are."""
    found = Firings()
    for coder, folder in _coders(run / SAMPLES, FILE):
        try:
            samples = Samples.load(folder / FILE)
        except ArtifactError as error:
            found.notes.append(f"its samples cannot be read ({error.what})")
            continue
        found.samples[coder] = samples
        found.densities[coder] = samples.densities, samples.n_tokens
    for coder, folder in _coders(run / EVALUATIONS, f"{SPARSITY}/result.json"):
        try:
            found.densities[coder] = _evaluated(folder / SPARSITY)
        except ArtifactError as error:
            found.notes.append(f"its evaluation {SPARSITY} cannot be read ({error.what})")
    return found


def _coders(folder: pathlib.Path, file: str) -> list[tuple[str, pathlib.Path]]:
    """Coder -> where its file is: one for each layer, or that of the only one."""
    layers = sorted((folder / LAYERS).glob(f"*/{file}"))
    depth = len(pathlib.PurePath(file).parts)
    if layers:
        return [(f"layer {place.parents[depth - 1].name}", place.parents[depth - 1]) for place in layers]
    return [("", folder)] if (folder / file).is_file() else []


def _evaluated(folder: pathlib.Path) -> Density:
    """Densities of a stored evaluation, and its number of tokens.

    Raises:
        ArtifactError: if it was damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    record = read_json(folder / "result.json")
    try:
        densities = load_file(folder / "latents.safetensors")["density"]
        n_tokens = record["values"].get("n_tokens")
        return densities, None if n_tokens is None else int(n_tokens)
    except (KeyError, OSError, SafetensorError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{type(error).__name__}: {error}", where=str(folder)) from error
