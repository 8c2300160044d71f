"""Benchmark ``recovery-layers``: a known dictionary in several layers, for SAEs that read several at once.

Shapes: A true features, F latents, L layers, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import contenders, qsae_training, recovery
from benchmarks.results import progress
from benchmarks.scores import Array
from benchmarks.scores import recovery as recovered
from benchmarks.settings import Settings
from benchmarks.vectors import describe
from qsae_core.artifact import artifact

NAME = "recovery-layers"
LAYERS = 2
QUICK_KINDS = ("crosscoder", "route")


def run(settings: Settings) -> dict[str, Any]:
    """``{sizes, layers, source, contenders: [{kind, n_latents, attempts: [{label, lr, scores}]}]}``."""
    common = recovery.QUICK if settings.quick else recovery.FULL
    data = {"use": "synthetic", "layers": LAYERS}
    source, dictionary_ALD = describe(data, settings.seed)
    kinds = [kind for kind in contenders.several_layers() if not settings.quick or kind in QUICK_KINDS]
    records = []
    for kind in kinds:
        sizes = common._replace(n_latents=common.n_latents * (LAYERS if contenders.is_routed(kind) else 1))
        contender = contenders.variant(kind, source["mean_l0"], sizes.n_latents)
        arguments = ["--data", "synthetic", "--data.layers", str(LAYERS)]
        attempts = [
            attempt
            | _measured(
                qsae_training.arguments_of(attempt, sizes, arguments, settings.seed),
                sizes.held_out,
                f"{kind} {attempt['label']}",
                dictionary_ALD,
                settings,
            )
            for attempt in contender.attempts[: 1 if settings.quick else None]
        ]
        records.append({"library": "qsae", "kind": kind, "n_latents": sizes.n_latents, "attempts": attempts})
        progress(f"{NAME}: {kind}: {[attempt.get('error') or attempt['mcc'] for attempt in attempts]}")
    shape = {"d": dictionary_ALD.shape[2], "layers": LAYERS}
    return {**common._asdict(), **shape, "source": source, "contenders": records}


def _measured(
    arguments: list[str], n_held_out: int, title: str, dictionary_ALD: Array, settings: Settings
) -> dict[str, Any]:
    """Scores of one run, with ``chance``: the MCC of as many random directions."""
    outcome = qsae_training.run(arguments, n_held_out, NAME, title, settings)
    if outcome.folder is None:
        return outcome.shown
    coder = artifact.load(outcome.folder)
    atoms, truth = paired(qsae_training.atoms(coder).numpy(), dictionary_ALD)
    random = np.random.default_rng(settings.seed).normal(size=atoms.shape)
    own = {"fvu": outcome.values["fvu"], "l0": outcome.values["l0"], "dead": outcome.values["dead_fraction"]}
    return {**outcome.shown, **own, **recovered(atoms, truth), "chance": recovered(random, truth)["mcc"]}


def paired(atoms: Array, dictionary_ALD: Array) -> tuple[Array, Array]:
    """The atoms ``[F, ...]`` and the true directions ``[.., ...]`` that they should be.

    An atom with a direction in every layer ``[F, L, D]`` is compared with a feature's directions in all of
    them at once, an atom with one ``[F, D]`` with every feature in every layer.
    """
    features, _, d = dictionary_ALD.shape
    if atoms.ndim == 3:
        return atoms.reshape(len(atoms), -1), dictionary_ALD.reshape(features, -1)
    return atoms, dictionary_ALD.reshape(-1, d)
