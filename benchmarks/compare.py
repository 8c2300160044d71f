"""Trains every contender on the same vectors, and scores what each gives on the same held-out ones."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks import processes, qsae_training
from benchmarks.contenders import SCRIPTS, Contender
from benchmarks.kept import Kept
from benchmarks.peers.training import Spec, arrays_file
from benchmarks.results import progress
from benchmarks.scores import score
from benchmarks.settings import PEERS, Settings, Sizes
from benchmarks.sides import HUGE_PAGES
from benchmarks.vectors import Vectors

TIMEOUT = 4 * 3600
"""Seconds that all attempts of a contender may take together."""


def compare(
    name: str, vectors: Vectors, sizes: Sizes, contenders: Iterable[Contender], settings: Settings
) -> dict[str, Any]:
    """``{sizes, "source": ..., "contenders": [{library, kind, "attempts": [{label, lr, scores}]}]}``.

    Args:
        name: of the benchmark, and of the folder that takes what is written on the way.
    """
    held_out = np.load(vectors.held_out, mmap_mode="r")
    kept = Kept(settings.folder / "kept", *vectors.files)
    records = []
    for contender in contenders:
        peer = SCRIPTS[contender.library][1] if contender.library in SCRIPTS else None
        if peer in PEERS and peer not in settings.peers:
            continue
        records.append(_measure(contender, name, vectors, sizes, settings, kept))
        progress(f"{name}: {contender.library} {contender.kind}: {_short(records[-1])}")
    return {
        **sizes._asdict(),
        "d": held_out.shape[1],
        "held_out": len(held_out),
        "source": vectors.source,
        "arguments": vectors.arguments,
        "contenders": records,
    }


def _measure(
    contender: Contender, name: str, vectors: Vectors, sizes: Sizes, settings: Settings, kept: Kept
) -> dict[str, Any]:
    """A contender's record, which may be one that was kept."""
    folder = settings.folder / name
    spec = Spec(
        out=str(folder / "result.json"),
        train=str(vectors.train),
        held_out=str(vectors.held_out),
        batch_size=sizes.batch_size,
        n_latents=sizes.n_latents,
        k=sizes.k,
        seed=settings.seed,
        threads=settings.threads,
        attempts=list(contender.attempts),
        train_target=None if vectors.train_target is None else str(vectors.train_target),
    )

    def measure() -> dict[str, Any]:
        if contender.library == "qsae":
            trained = {"outcomes": qsae_training.train(spec, vectors, name, settings)}
        else:
            trained = _train_peer(contender, spec, name, settings)
        return _record(contender, spec, vectors, trained)

    return kept.record(contender, spec, measure)


def _record(contender: Contender, spec: Spec, vectors: Vectors, result: dict[str, Any]) -> dict[str, Any]:
    """What was trained, with its scores."""
    attempts = [
        attempt | outcome | _scored(spec, number, vectors, outcome)
        for number, (attempt, outcome) in enumerate(
            zip(contender.attempts, result.pop("outcomes"), strict=True)
        )
    ]
    own = {"library": contender.library, "kind": contender.kind, "plain": contender.plain}
    return {**own, **result, "attempts": attempts}


def _scored(spec: Spec, number: int, vectors: Vectors, outcome: dict[str, Any]) -> dict[str, Any]:
    """Scores of the arrays that an attempt left, which are deleted; or why it has none."""
    path = arrays_file(spec.out, number)
    if "error" in outcome:
        return {}
    dictionary = None if vectors.dictionary is None else np.load(vectors.dictionary)
    with np.load(path) as arrays:
        scores = score(np.load(vectors.wanted), arrays, dictionary)
    path.unlink()
    return scores if math.isfinite(scores["fvu"]) else {"error": "its reconstructions are not finite"}


def _train_peer(contender: Contender, spec: Spec, name: str, settings: Settings) -> dict[str, Any]:
    """All attempts in one process of the peer's environment."""
    script, peer = SCRIPTS[contender.library]
    title = f"{name} {contender.library} {contender.kind}"
    command = [settings.python(peer), script, json.dumps(spec._asdict())]
    if not pathlib.Path(command[0]).exists():
        result: dict[str, Any] = {"error": f"no environment {peer}: see benchmarks/README.md"}
    else:
        result = processes.run_script(
            command, pathlib.Path(spec.out), settings, title, HUGE_PAGES, timeout=TIMEOUT
        )
    if "error" in result:
        return {"outcomes": [result] * len(spec.attempts)}
    return {**result, "outcomes": [{"seconds": seconds} for seconds in result.pop("seconds")]}


def _short(record: dict[str, Any]) -> str:
    found = [
        a.get("error") or f"{a['label']}: {a['fvu']:.4f} at L0 {a['l0']:.1f}" for a in record["attempts"]
    ]
    return "; ".join(dict.fromkeys(found))


# --- reading a record


def working(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempts of a contender that have scores."""
    return [attempt for attempt in record["attempts"] if "error" not in attempt]


def best(record: dict[str, Any], by: str = "fvu") -> dict[str, Any] | None:
    """A contender's attempt of least FVU, or of largest ``by``; None without any."""
    sign = 1 if by == "fvu" else -1
    return min(working(record), key=lambda attempt: sign * attempt[by], default=None)
