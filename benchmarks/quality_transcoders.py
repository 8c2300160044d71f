"""Benchmarks ``quality-transcoder-KIND``: transcoders of one MLP of a given model, beside sparsify's.

All train on what the MLP reads and gives on the kind's training documents, and are measured on that of its
test documents.
"""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import texts
from benchmarks.compare import best, compare
from benchmarks.contenders import Contender, other_seeds, topk_rate
from benchmarks.settings import ROOT, Settings, Sizes
from benchmarks.vectors import Vectors, draw, harvest

NAMES = {kind: f"quality-transcoder-{kind}" for kind in texts.KINDS}
"""Kind of text -> the benchmark on a model that has to be given."""
SIDES = ("mlp_in", "mlp_out")
ROWS, TEST_ROWS = 300_000, 60_000
"""Pairs of training and of test documents that are read from a model."""
COMPARED = Sizes(batch_size=1024, n_latents=4096, k=32, steps=300, held_out=TEST_ROWS)
SEEDS, PEER_SEEDS = (1,), (1,)
"""Beside the call's own one: of qsae's transcoders at their own rate, and of sparsify's at its best one."""
MULTIPLES = (20, 40, 80)
"""Of sparsify's own learning rate, which is meant for long runs."""
QUICK = Sizes(batch_size=128, n_latents=256, k=8, steps=20, held_out=1024)
QUICK_ROWS = 8192
FALLING = "rates and schedule of sparsify"
SKIP = ", skip"
"""Ends the kind of a transcoder with a skip connection."""


def run_kind(kind: str, settings: Settings) -> dict[str, Any]:
    """``compare``'s record, other seeds of the best included."""
    if settings.model is None:
        raise SystemExit(f"{NAMES[kind]} needs --model DIR and --layer N")
    name, model = NAMES[kind], pathlib.Path(settings.model).name
    sizes = QUICK if settings.quick else COMPARED
    sizes = sizes._replace(n_latents=settings.n_latents or sizes.n_latents)
    vectors = _drawn(name, kind, sizes, settings)
    found = contenders(sizes)
    result = compare(name, vectors, sizes, found, settings)
    again = [seeds for skip in (False, True) for seeds in _seeds(found, result["contenders"], skip)]
    result["contenders"] += compare(name, vectors, sizes, again, settings)["contenders"]
    layer = "the middle layer" if settings.layer is None else f"layer {settings.layer}"
    return {"title": f"{model}, {layer}, {' to '.join(SIDES)}", "kind": kind, **result}


def contenders(sizes: Sizes) -> list[Contender]:
    """qsae's transcoders at their own rate, sparsify's at several; without and with a skip connection."""
    found = []
    for skip in (False, True):
        end = SKIP if skip else ""
        for name in ("transcoder", "matryoshka-transcoder"):
            arguments = ["--transcoder", name, *(["--skip"] if skip else [])]
            attempt = {"label": "auto", "lr": "auto", "arguments": arguments}
            found.append(Contender("qsae", name + end, (attempt,)))
        flags = ["--transcoder", "transcoder", *(["--skip"] if skip else []), "--decay", "0.95"]
        rates = ({"label": f"x{m}", "lr": topk_rate(sizes.n_latents) * m} for m in MULTIPLES[1:])
        attempts = tuple(rate | {"arguments": flags} for rate in rates)
        found.append(Contender("qsae", f"transcoder{end}, {FALLING}", attempts, plain=False))
        rate, own = topk_rate(sizes.n_latents), {"optimizer": "adam", "transcode": True, "skip": skip}
        attempts = tuple({"label": f"x{m}", "lr": rate * m, **own} for m in MULTIPLES)
        found.append(Contender("sparsify", f"transcoder, Adam{end}", attempts))
    return found


def with_skip(kind: str) -> bool:
    """Whether a contender of this kind has a skip connection."""
    return SKIP in kind


def _seeds(contenders: list[Contender], records: list[dict[str, Any]], skip: bool) -> list[Contender]:
    """Other seeds of qsae's ``transcoder`` and of sparsify's best attempt."""
    plain = [c for c in contenders if with_skip(c.kind) == skip]
    chosen = [other_seeds(plain[0], "auto", SEEDS)]
    kinds = {c.kind: c for c in plain if c.library != "qsae"}
    peers = [(r, attempt) for r in records if r["kind"] in kinds and (attempt := best(r))]
    if peers:
        record, attempt = min(peers, key=lambda pair: pair[1]["fvu"])
        chosen.append(other_seeds(kinds[record["kind"]], attempt["label"], PEER_SEEDS))
    return chosen


def _drawn(name: str, kind: str, sizes: Sizes, settings: Settings) -> Vectors:
    (x, y), test = harvested(kind, settings)
    x, y = (file.relative_to(ROOT) if file.is_relative_to(ROOT) else file for file in (x, y))
    return draw(
        {"use": "tensors", "path": str(x), "target_path": str(y)},
        settings.folder / name,
        steps=sizes.steps,
        batch_size=sizes.batch_size,
        held_out=test,
        seed=settings.seed,
    )


def harvested(kind: str, settings: Settings) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Files of the pairs of training and of test documents, read where they are not there."""
    assert settings.model is not None
    rows, test_rows = (QUICK_ROWS, QUICK.held_out) if settings.quick else (ROWS, TEST_ROWS)
    layer = "middle" if settings.layer is None else settings.layer
    stem = f"{pathlib.Path(settings.model).name}-{layer}"
    texts_of = texts.files(settings.data / "texts", kind)
    data = {"use": "lm", "model": settings.model, "source_layer": settings.layer}
    data |= {"source_site": SIDES[0], "target_site": SIDES[1]}
    found = []
    for text, n, end in zip(
        texts_of, (rows, test_rows), (f"{rows}-seed{settings.seed}", f"test-{test_rows}"), strict=True
    ):
        files = [settings.data / f"{stem}-{side}-{kind}-{end}.npy" for side in SIDES]
        harvest(
            files[0],
            data | {"dataset": str(text)},
            rows=n,
            seed=settings.seed,
            whole=text is texts_of[1],
            target=files[1],
        )
        found.append(files)
    return found[0], found[1]
