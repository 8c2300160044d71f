"""Benchmark ``existing-saes``: SAEs that other libraries trained and saved, taken over and quantized.

Each library trains a TopK SAE on the same hidden states and saves it with its own function. ``qsae import``
makes a coder of its files, ``qsae quantize`` rounds that, and ``qsae evaluate`` measures both in the language
model. What the library's own SAE makes of the held-out states stands beside what the imported one does, and
what SAELens itself computes with each rounded one, whose weights stay packed there.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import processes, texts
from benchmarks.contenders import SCRIPTS
from benchmarks.existing_commands import Calls, bytes_of, file_hashes
from benchmarks.existing_libraries import WIDTHS, Library, Width, libraries
from benchmarks.existing_served import FORM, served
from benchmarks.kept import digest, keep, sources
from benchmarks.peers.training import CHUNK_ROWS, Spec, arrays_file
from benchmarks.quality import held_out_states
from benchmarks.results import progress
from benchmarks.scores import fvu
from benchmarks.settings import Settings, Sizes
from benchmarks.sides import HUGE_PAGES
from benchmarks.vectors import harvest
from qsae_core.artifact import artifact

NAME = "existing-saes"
KIND, OTHER_KIND = "news", "code"
"""Of text: trained and measured on; measured on besides."""
SIZES = Sizes(batch_size=1024, n_latents=4096, k=32, steps=400, held_out=16_384)
QUICK = Sizes(batch_size=128, n_latents=256, k=8, steps=20, held_out=1024)
TOKENS = SIZES.steps * SIZES.batch_size
TIMEOUT = 3600


class Task(NamedTuple):
    """Vectors and texts of one call.

    Attributes:
        train: ``.npy`` file of float32 ``[steps * B, D]``.
        held_out: kind of text -> ``.npy`` file of float32 ``[N, D]``.
        both: ``.npy`` file of these, one behind the other.
    """

    sizes: Sizes
    train: pathlib.Path
    held_out: dict[str, pathlib.Path]
    both: pathlib.Path
    settings: Settings

    @property
    def folder(self) -> pathlib.Path:
        """Where commands are run."""
        return self.settings.folder / NAME


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, "model", "layer", "contenders": [{library, "original": ..., "widths": [...]}]}``."""
    task = make_task(settings)
    found = [of_library(library, task) for library in libraries(task.sizes) if library.slug in settings.peers]
    return {
        **task.sizes._asdict(),
        "d": int(np.load(task.train, mmap_mode="r").shape[1]),
        "model": pathlib.Path(str(settings.model)).name,
        "layer": settings.layer,
        "contenders": found,
    }


def make_task(settings: Settings) -> Task:
    """With the states of both kinds of text, read where they are not there."""
    if settings.model is None or settings.layer is None:
        raise SystemExit(f"{NAME} needs --model DIR and --layer N")
    sizes = QUICK if settings.quick else SIZES
    steps = settings.tokens // sizes.batch_size if settings.tokens else sizes.steps
    sizes = sizes._replace(n_latents=settings.n_latents or sizes.n_latents, steps=steps)
    model, layer, rows = settings.model, settings.layer, sizes.steps * sizes.batch_size
    stem = f"{pathlib.Path(model).name}-{layer}"
    text, _ = texts.files(settings.data / "texts", KIND)
    train = harvest(
        settings.data / f"{stem}-{KIND}-{rows}-seed{settings.seed}.npy",
        {"use": "lm", "model": model, "layer": layer, "dataset": str(text)},
        rows=rows,
        seed=settings.seed,
    )
    held_out = {
        kind: held_out_states(kind, model, layer, sizes.held_out, settings) for kind in (KIND, OTHER_KIND)
    }
    both = settings.data / f"{stem}-{KIND}-{OTHER_KIND}-test-{sizes.held_out}.npy"
    if not both.exists():
        np.save(both, np.concatenate([np.load(path) for path in held_out.values()]))
    task = Task(sizes, train, held_out, both, settings)
    Calls(task.folder, settings).place(texts=settings.data / "texts", states=train)
    return task


def of_library(library: Library, task: Task) -> dict[str, Any]:
    """Its SAE as it saved it, imported, and at every width."""
    trained = _trained(library, task)
    if "error" in trained:
        progress(f"{NAME}: {library.name}: {trained['error']}")
        return {"library": library.name, **trained}
    imported = _imported(library, task)
    record = {"library": library.name, "form": library.form, **trained, "imported": imported}
    record["original"] = _original(library, task, imported)
    progress(f"{NAME}: {library.name}: {record['original']['fvu']}, its own {trained['fvu']}")
    record["widths"] = []
    for width in WIDTHS:
        found = at_width(library, task, imported, width)
        record["widths"].append({**width._asdict(), **found})
        progress(f"{NAME}: {library.name}, {width.bits} bits: {found['bytes']:,} bytes, {found['fvu']}")
    return record


def _imported(library: Library, task: Task) -> dict[str, Any]:
    """The library's files as a coder; ``Calls.imported``."""
    calls, out = Calls(task.folder, task.settings), task.folder / "imported" / library.slug
    given = json.dumps([NAME, library, file_hashes(task.folder / library.slug), _own_sources()])

    def measure() -> dict[str, Any]:
        return calls.imported(library.slug, library.inner, library.form)

    return keep(task.settings.folder / "kept", given, measure, again=not out.exists())


def _original(library: Library, task: Task, imported: dict[str, Any]) -> dict[str, Any]:
    """What the imported coder does."""

    def measure() -> dict[str, Any]:
        calls, artifact = Calls(task.folder, task.settings), imported["artifact"]
        return {**_errors(calls.folder / artifact, task), **calls.evaluated(artifact, twin=False)}

    return _kept(library, task, imported, "original", measure)


def at_width(library: Library, task: Task, imported: dict[str, Any], width: Width) -> dict[str, Any]:
    """The imported coder rounded: commands, bytes, errors and evaluations."""
    calls, name = Calls(task.folder, task.settings), f"{library.slug}-{width.bits}bit"

    def rounded() -> dict[str, Any]:
        made = calls.quantized(imported["artifact"], name, width.arguments)
        folder = calls.folder / made["artifact"]
        packed = calls.packed(made["artifact"], FORM, name)
        x_hat = served(calls.folder / packed["folder"], task.both, task.settings)
        by_saelens = {**packed, "fvu": _by_kind(x_hat, task)}
        return {**made, "bytes": bytes_of(folder), **_errors(folder, task), "by_saelens": by_saelens}

    def measure() -> dict[str, Any]:
        gone = not (calls.folder / "results" / name).exists()
        found = _kept(library, task, imported, [width, "rounded"], rounded, again=gone)
        return {**found, **calls.evaluated(found["run"], twin=True)}

    return _kept(library, task, imported, width, measure)


def _kept(
    library: Library,
    task: Task,
    imported: dict[str, Any],
    what: object,
    measure: Callable[[], dict[str, Any]],
    *,
    again: bool = False,
) -> dict[str, Any]:
    """The record of an imported coder, found again by its files, the vectors and qsae's source."""
    key = [library, task.sizes, digest(task.train), digest(task.both), imported["sha256"]]
    given = json.dumps([NAME, key, what, _own_sources()])
    return keep(task.settings.folder / "kept", given, measure, again=again)


def _own_sources() -> list[str]:
    return [path.read_text() for path in sources("qsae")]


def _trained(library: Library, task: Task) -> dict[str, Any]:
    """What the library says of itself, and the FVU of its own SAE on each kind of text."""
    script, peer = SCRIPTS[library.name]
    saved = task.folder / library.slug
    spec = Spec(
        out=str(task.folder / f"{library.slug}.json"),
        train=str(task.train),
        held_out=str(task.both),
        save=str(saved),
        seed=task.settings.seed,
        threads=task.settings.threads,
        attempts=[library.attempt],
        **{name: getattr(task.sizes, name) for name in ("batch_size", "n_latents", "k")},
    )

    def measure() -> dict[str, Any]:
        shutil.rmtree(saved, ignore_errors=True)
        command = [task.settings.python(peer), script, json.dumps(spec._asdict())]
        if not pathlib.Path(command[0]).exists():
            return {"error": f"no environment {peer}: see benchmarks/README.md"}
        out, name = pathlib.Path(spec.out), f"{NAME} {library.name}"
        found = processes.run_script(command, out, task.settings, name, HUGE_PAGES, timeout=TIMEOUT)
        if "error" in found:
            return found
        with np.load(arrays_file(spec.out, 0)) as arrays:
            return {**found, "fvu": _by_kind(arrays["x_hat"], task)}

    texts_of = [path.read_text() for path in sources(library.name)]
    given = json.dumps([NAME, spec, digest(task.train), digest(task.both), texts_of])
    return keep(task.settings.folder / "kept", given, measure, again=not saved.exists())


def _errors(folder: pathlib.Path, task: Task) -> dict[str, Any]:
    """FVU of a stored coder on each kind of text."""
    coder, rows = artifact.load(folder), torch.from_numpy(np.load(task.both))
    x_hat = torch.cat([coder.reconstruct(part) for part in rows.split(CHUNK_ROWS)])
    return {"fvu": _by_kind(x_hat.numpy(), task)}


def _by_kind(x_hat: np.ndarray, task: Task) -> dict[str, float]:
    parts = np.split(x_hat, len(task.held_out))
    return {
        kind: fvu(np.load(path), part)
        for (kind, path), part in zip(task.held_out.items(), parts, strict=True)
    }
