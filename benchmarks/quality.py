"""Benchmarks ``quality`` and ``quality-KIND``: every library's TopK SAE on hidden states of one kind of text.

All train on the states of the kind's training documents, and are measured on those of its test documents.
"""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import texts
from benchmarks.compare import best, compare
from benchmarks.contenders import Contender, other_seeds, topk_changes, topk_contenders
from benchmarks.settings import ROOT, Settings, Sizes
from benchmarks.vectors import Vectors, draw, harvest

NAME = "quality"
NAMES = {kind: f"quality-{kind}" for kind in texts.KINDS}
"""Kind of text -> the benchmark on a model that has to be given."""
BUILT_IN_KIND = "code"
"""Of text that the built-in language model was trained for."""
ROWS, TEST_ROWS = 300_000, 60_000
"""Hidden states of training and of test documents that are read from a model."""
COMPARED = Sizes(batch_size=1024, n_latents=4096, k=32, steps=200, held_out=TEST_ROWS)
"""Small, since SAELens and dictionary_learning multiply dense matrices."""
ALONE = Sizes(batch_size=2048, n_latents=8192, k=32, steps=400, held_out=TEST_ROWS)
"""Of qsae alone."""
SEEDS, PEER_SEEDS = (1, 2), (1,)
"""Beside the call's own one: of qsae at its own rate, and of the best peer at its best rate."""
QUICK = Sizes(batch_size=128, n_latents=256, k=8, steps=20, held_out=1024)
QUICK_ROWS = 8192


def run(settings: Settings) -> dict[str, Any]:
    """On the built-in language model's middle layer; with what single parts of qsae's recipe change."""
    title = "the built-in language model, middle layer"
    return _measure(NAME, BUILT_IN_KIND, "builtin", None, title, topk_changes(), settings)


def run_kind(kind: str, settings: Settings) -> dict[str, Any]:
    """On a given model and a kind of text."""
    if settings.model is None:
        raise SystemExit(f"{NAMES[kind]} needs --model DIR and --layer N")
    layer = "the middle layer" if settings.layer is None else f"layer {settings.layer}"
    title = f"{pathlib.Path(settings.model).name}, {layer}"
    return _measure(NAMES[kind], kind, settings.model, settings.layer, title, [], settings)


def sizes(settings: Settings) -> tuple[Sizes, Sizes]:
    """Of the comparison, and of qsae alone."""
    compared, alone = (QUICK, QUICK) if settings.quick else (COMPARED, ALONE)
    return compared._replace(n_latents=settings.n_latents or compared.n_latents), alone


def _measure(
    name: str,
    kind: str,
    model: str,
    layer: int | None,
    title: str,
    changes: list[Contender],
    settings: Settings,
) -> dict[str, Any]:
    """``compare``'s record with seeds, and ``alone``, that of qsae at larger sizes.

    Args:
        model: a directory, or ``builtin``.
        changes: what else is trained at the sizes of the comparison.
    """
    train, test = harvested(kind, model, layer, settings)
    compared, alone = sizes(settings)
    vectors = _drawn(name, train, test, compared, settings)
    contenders = [*topk_contenders(compared), *changes]
    result = compare(name, vectors, compared, contenders, settings)
    seeded = compare(name, vectors, compared, _seeds(contenders, result["contenders"]), settings)
    result["contenders"] += seeded["contenders"]
    own = [other_seeds(contenders[0], "auto", (settings.seed, *SEEDS))]
    vectors = _drawn(name, train, test, alone, settings)
    return {
        "title": title,
        "kind": kind,
        **result,
        "alone": compare(name, vectors, alone, own, settings),
    }


def _seeds(contenders: list[Contender], records: list[dict[str, Any]]) -> list[Contender]:
    """Other seeds of qsae at its own rate, and of the best attempt of all peers."""
    chosen = [other_seeds(contenders[0], "auto", SEEDS)]
    peers = [(r, attempt) for r in records if r["library"] != "qsae" and (attempt := best(r))]
    if peers:
        record, attempt = min(peers, key=lambda pair: pair[1]["fvu"])
        names = record["library"], record["kind"]
        contender = next(c for c in contenders if (c.library, c.kind) == names)
        chosen.append(other_seeds(contender, attempt["label"], PEER_SEEDS))
    return chosen


def _drawn(name: str, train: pathlib.Path, test: pathlib.Path, sizes: Sizes, settings: Settings) -> Vectors:
    shown = train.relative_to(ROOT) if train.is_relative_to(ROOT) else train
    return draw(
        {"use": "tensors", "path": str(shown)},
        settings.folder / name,
        steps=sizes.steps,
        batch_size=sizes.batch_size,
        held_out=[test],
        seed=settings.seed,
    )


def harvested(
    kind: str, model: str, layer: int | None, settings: Settings
) -> tuple[pathlib.Path, pathlib.Path]:
    """Files of the states of training and of test documents, read where they are not there."""
    rows, test_rows = (QUICK_ROWS, QUICK.held_out) if settings.quick else (ROWS, TEST_ROWS)
    train, _ = texts.files(settings.data / "texts", kind)
    return (
        harvest(
            settings.data / f"{_stem(kind, model, layer)}-{rows}-seed{settings.seed}.npy",
            {"use": "lm", "model": model, "layer": layer, "dataset": str(train)},
            rows=rows,
            seed=settings.seed,
        ),
        held_out_states(kind, model, layer, test_rows, settings),
    )


def held_out_states(kind: str, model: str, layer: int | None, rows: int, settings: Settings) -> pathlib.Path:
    """File of the states of test documents, read where it is not there."""
    _, test = texts.files(settings.data / "texts", kind)
    return harvest(
        settings.data / f"{_stem(kind, model, layer)}-test-{rows}.npy",
        {"use": "lm", "model": model, "layer": layer, "dataset": str(test)},
        rows=rows,
        seed=settings.seed,
        whole=True,
    )


def _stem(kind: str, model: str, layer: int | None) -> str:
    return f"{pathlib.Path(model).name}-{'middle' if layer is None else layer}-{kind}"
