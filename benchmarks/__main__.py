"""Measure qsae beside its peers and write docs/performance.md and the pages beside it.

python -m benchmarks                   everything; `make bench` does this
python -m benchmarks --only step       one benchmark (repeatable); the others' results stay as they are
python -m benchmarks --only quality-news --model DIR --layer N
                                       what no run without a model measures: quality on a kind of text
python -m benchmarks --render-only     write the pages again from the results that are there
python -m benchmarks --quick           small shapes and few repeats: does everything run?
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import (
    cross_layer_step,
    end_to_end,
    evaluation,
    existing_saes,
    fidelity,
    inference,
    install_peers,
    memory,
    quality,
    quality_transcoders,
    real_run,
    recovery,
    recovery_layers,
    results,
    scaling,
    startup,
    store,
    training_step,
    transcoder_step,
)
from benchmarks.pages import end_to_end as page_end_to_end
from benchmarks.pages import evaluation as page_evaluation
from benchmarks.pages import existing_saes as page_existing_saes
from benchmarks.pages import memory as page_memory
from benchmarks.pages import performance as page
from benchmarks.pages import quality as page_quality
from benchmarks.pages import real_run as page_real_run
from benchmarks.pages import recovery as page_recovery
from benchmarks.pages import store as page_store
from benchmarks.pages import transcoders as page_transcoders
from benchmarks.settings import PEERS, ROOT, Settings
from qsae_core.conformance.peers import ENVIRONMENTS, MADE_BY_BENCHMARKS

BENCHMARKS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    training_step.NAME: training_step.run,
    transcoder_step.NAME: transcoder_step.run,
    cross_layer_step.NAME: cross_layer_step.run,
    real_run.NAME: real_run.run,
    fidelity.NAME: fidelity.run,
    scaling.NAME: scaling.run,  # after the step, which says which screen is the fastest
    startup.NAME: startup.run,
    inference.NAME: inference.run,
    quality.NAME: quality.run,
    recovery.NAME: recovery.run,
    recovery_layers.NAME: recovery_layers.run,
    store.NAME: store.run,
    store.READING: store.read,
    end_to_end.NAME: end_to_end.run,
    evaluation.NAME: evaluation.run,
    existing_saes.NAME: existing_saes.run,
    memory.NAME: memory.run,
    **{name: functools.partial(quality.run_kind, kind) for kind, name in quality.NAMES.items()},
    **{
        name: functools.partial(quality_transcoders.run_kind, kind)
        for kind, name in quality_transcoders.NAMES.items()
    },
}
WITH_MODEL = (
    end_to_end.NAME,
    existing_saes.NAME,
    *quality.NAMES.values(),
    *quality_transcoders.NAMES.values(),
)
"""Benchmarks on a model that has to be given."""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    settings = _settings(options, arguments)
    if not options.render_only:
        install_peers.install(settings)
        for name in options.only or _all(settings):
            results.record(name, BENCHMARKS[name], settings)
    target = options.page or (settings.folder if options.quick else ROOT / "docs") / "performance.md"
    for path in (
        page.render(settings, target),
        page_real_run.render(settings, target.with_name("real-run.md")),
        page_quality.render(settings, target.with_name("quality.md")),
        page_recovery.render(settings, target.with_name("recovery.md")),
        page_store.render(settings, target.with_name("store.md")),
        page_transcoders.render(settings, target.with_name("quality-transcoders.md")),
        page_end_to_end.render(settings, target.with_name("end-to-end.md")),
        page_evaluation.render(settings, target.with_name("evaluation-speed.md")),
        page_existing_saes.render(settings, target.with_name("existing-saes.md")),
        page_memory.render(settings, target.with_name("memory.md")),
    ):
        if path is not None:
            results.progress(f"wrote {path}")
    return 0


def _all(settings: Settings) -> list[str]:
    """Without those that need a model, where none is given."""
    needs_model = () if settings.model else WITH_MODEL
    return [name for name in BENCHMARKS if name not in needs_model]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--only", action="append", choices=list(BENCHMARKS), help="this benchmark alone; repeatable")
    add("--peers", default="all", help=f"all, none, or names with commas: {', '.join(PEERS)}")
    add(
        "--environments",
        type=pathlib.Path,
        help=f"folder of the peers' environments; default: ${ENVIRONMENTS} or {MADE_BY_BENCHMARKS}",
    )
    add(
        "--quick",
        action="store_true",
        help="small shapes, few repeats; results and page in build/bench/quick",
    )
    add("--render-only", action="store_true", help="measure nothing")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=os.cpu_count(), help="CPU threads of every side; default: all")
    add("--out", type=pathlib.Path, help="folder of data, logs and results; default: build/bench")
    add("--page", type=pathlib.Path, help="default: docs/performance.md; the others are written beside it")
    kinds = ", ".join(WITH_MODEL)
    add("--model", help=f"directory of the model of {kinds}; its states are kept in build/bench/data")
    add("--layer", type=int, help="of that model; default: the middle one")
    add(
        "--n-latents",
        type=int,
        help=f"of the coders; default: 4096, in {end_to_end.NAME} {end_to_end.SIZES.n_latents}",
    )
    add(
        "--tokens",
        type=int,
        help=f"that {end_to_end.NAME} and {existing_saes.NAME} train on; "
        f"default: {end_to_end.TOKENS:,} and {existing_saes.TOKENS:,}",
    )
    return parser


def _settings(options: argparse.Namespace, arguments: Sequence[str]) -> Settings:
    build = ROOT / "build" / "bench"
    ready = os.environ.get(ENVIRONMENTS)
    chosen = {"all": PEERS, "none": ()}.get(options.peers, tuple(options.peers.split(",")))
    unknown = sorted(set(chosen) - set(PEERS))
    if unknown:
        raise SystemExit(f"--peers: {', '.join(unknown)} is unknown; all, none, or of {', '.join(PEERS)}")
    folder = options.out or (build / "quick" if options.quick else build)
    return Settings(
        folder=folder.resolve(),
        environments=(options.environments or (pathlib.Path(ready) if ready else build)).resolve(),
        peers=chosen,
        quick=options.quick,
        seed=options.seed,
        threads=options.threads,
        command=shlex.join(["python", "-m", "benchmarks", *arguments]),
        model=options.model,
        layer=options.layer,
        n_latents=options.n_latents,
        tokens=options.tokens,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
