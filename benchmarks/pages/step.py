"""The page's part about the training step: ratios, targets, and every side in detail."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from benchmarks.pages.tables import count, gigabytes, ratio, table
from benchmarks.sides import COMPILED, QSAE
from benchmarks.training_step import (
    best_qsae,
    error,
    peak_bytes,
    products,
    seconds,
    tokens_per_second,
    working,
)

Record = dict[str, Any]
LIBRARIES = ("SAELens", "dictionary_learning", "sparsify")
KERNELS = {"none": "torch operators", COMPILED: "compiled kernels"}


class Target(NamedTuple):
    """What qsae's fastest side is to reach at the reference shape."""

    kernels: str
    library: str | None
    """Times this peer's tokens per second, at least; None: times an encoder product, at most."""
    value: float
    stretch: bool = False
    """Beyond what is promised."""

    @property
    def text(self) -> str:
        """For the table."""
        goal = f"a step in at most {self.value:g} of one fp32 product"
        if self.library:
            goal = f"at least {self.value:g} times {self.library}"
        return f"{KERNELS[self.kernels]}: {goal}" + (" (stretch)" if self.stretch else "")


TARGETS = (
    Target("none", "SAELens", 9),
    Target("none", "dictionary_learning", 9),
    Target("none", "sparsify", 2.8),
    Target("none", None, 0.75),
    Target(COMPILED, "SAELens", 18),
    Target(COMPILED, "dictionary_learning", 18),
    Target(COMPILED, "sparsify", 5.5),
    Target(COMPILED, None, 0.4),
    Target(COMPILED, "SAELens", 25, stretch=True),
    Target(COMPILED, "dictionary_learning", 25, stretch=True),
    Target(COMPILED, "sparsify", 7.5, stretch=True),
    Target(COMPILED, None, 0.28, stretch=True),
)
NOTES = """\
Every side does the whole step on the same activations as its own trainer does it: loss, backward, Adam,
unit-norm decoder rows (SAELens rescales codes by the rows' norms instead), counting of dead latents. Masters
and Adam's moments are float32 on every side. A peer is measured as it comes and with *memory kept*: huge
pages where they can be had (`THP_MEM_ALLOC_ENABLE=1`), and glibc keeps what is freed (`MALLOC_MMAP_MAX_=0`,
`MALLOC_TRIM_THRESHOLD_`); **x PEER** is against the faster of the two. SAELens also has sparse codes
(`use_sparse_activations`), which are not its default, and whose backward runs on a CPU only without the
rescaling by the decoder's norms, so that nothing maintains these: a line of its own, and the last column of
the targets. bf16 autocast computes a peer's products in bf16, which is another computation: a line of its own
too. qsae's screens find candidates in low precision, and compute what they keep again in float32;
qsae is measured with memory kept, which the `qsae` command sees to by itself.

**x product** is the time of a step over that of one fp32 encoder product `x W^T`, which each process times
just after its steps. Where that product runs near the processor's peak, the parts of a step that wait for
memory (Adam alone moves 0.9 GB) are a larger share of it. Peak memory is the largest resident set of the
process, imports included. Latents that count as dead add an auxiliary loss; in so few steps no side has any:
[real-run.md](real-run.md) has steps with them.
"""


def section(result: dict[str, Any]) -> str:
    """Ratios of the first shape, targets, notes; then the other shapes, and all sides."""
    first, *others = result["shapes"]
    parts = ["## Training step\n", f"{_sizes(first)}.\n", ratio_table(first), "", targets(first), "", NOTES]
    for shape in others:
        parts += [f"### {_sizes(shape)}\n", ratio_table(shape), ""]
    parts += ["### All sides\n", "Seconds of a step: least, median and most of all rounds.\n"]
    for shape in result["shapes"]:
        parts += [f"{_sizes(shape)}:\n", all_sides(shape), ""]
    return "\n".join(parts)


def ratio_table(shape: dict[str, Any]) -> str:
    """qsae's sides, and of each peer the fastest fp32 side and those of other settings, with the ratios."""
    base = {library: as_configured(shape, library)[:1] for library in LIBRARIES}
    shown = [r for r in shape["sides"] if r["library"] == QSAE]
    for library in LIBRARIES:
        others = [r for r in working(shape, library, "fp32") if r["options"]]
        shown += base[library] + others + working(shape, library, "bf16")[:1]
        own = [r for r in shape["sides"] if r["library"] == library]
        shown += [] if base[library] else own[:1]
    taking_part = {r["library"] for r in shown}
    rows = []
    for record in shown:
        who = f"{record['library']}, {record['what']}"
        if (reason := error(record)) is not None:
            rows.append([who, f"failed: {reason}", *["-"] * 5])
            continue
        speed = tokens_per_second(record, shape["batch_size"])
        to_peers = [_over(speed, base[library], shape) for library in LIBRARIES]
        rows.append([who, count(speed), *to_peers, ratio(products(record)), gigabytes(peak_bytes(record))])
    rows += [[lib, "not part of this run", *["-"] * 5] for lib in LIBRARIES if lib not in taking_part]
    columns = ["who", "tokens/s", *(f"x {library}" for library in LIBRARIES), "x product", "peak memory"]
    return table(columns, rows)


def targets(shape: dict[str, Any]) -> str:
    """A table of the targets, and whether this run reached them."""
    rows = []
    for target in TARGETS:
        value = _measured(target, shape)
        if value is None:
            rows.append([target.text, "-", "not measured", "-"])
            continue
        good = value >= target.value if target.library else value <= target.value
        any_setting = ratio(_measured(target, shape, any_setting=True)) if target.library else "-"
        rows.append([target.text, ratio(value), "yes" if good else "no", any_setting])
    rows += [memory for kernels in KERNELS if (memory := _memory_target(shape, kernels))]
    columns = [
        "target, for the fastest side",
        "measured",
        "reached",
        "against the peer's fastest fp32 setting",
    ]
    return table(columns, rows)


def all_sides(shape: dict[str, Any]) -> str:
    """Every side, with its spread, the product beside it, and its version or the reason of its failure."""
    rows = []
    for record in shape["sides"]:
        who = f"{record['library']}, {record['what']}"
        if (reason := error(record)) is not None:
            rows.append([who, f"failed: {reason}", *["-"] * 6])
            continue
        times = seconds(record)
        product = median(s for r in record["rounds"] for s in r["product_seconds"])
        rows.append(
            [
                who,
                record["rounds"][0]["version"],
                *(f"{of(times):.3f}" for of in (min, median, max)),
                str(len(times)),
                f"{product:.3f}",
                gigabytes(peak_bytes(record)),
            ]
        )
    columns = ["side", "version", "least", "median", "most", "steps", "product", "peak memory"]
    return table(columns, rows, texts=2)


def _over(speed: float, base: list[Record], shape: dict[str, Any]) -> str:
    return ratio(speed / tokens_per_second(base[0], shape["batch_size"]) if base else None)


def _memory_target(shape: dict[str, Any], kernels: str) -> list[str] | None:
    """Whether qsae's fastest side needs less memory than every side of every peer."""
    own = best_qsae(shape, kernels)
    peers = [peak_bytes(r) for library in LIBRARIES for r in working(shape, library)]
    if own is None or not peers:
        return None
    text = f"{KERNELS[kernels]}: peak memory below every peer's ({gigabytes(min(peers))})"
    return [text, gigabytes(peak_bytes(own)), "yes" if peak_bytes(own) < min(peers) else "no", "-"]


def as_configured(shape: dict[str, Any], library: str) -> list[Record]:
    """A library's fp32 records with its own options as they are, in any environment; the fastest first."""
    return [r for r in working(shape, library, "fp32") if not r["options"]]


def _measured(target: Target, shape: dict[str, Any], *, any_setting: bool = False) -> float | None:
    """The target's number; against the peer's fastest fp32 side as configured, or with any setting."""
    own = best_qsae(shape, target.kernels)
    if own is None:
        return None
    if target.library is None:
        return products(own)
    peer = working(shape, target.library, "fp32") if any_setting else as_configured(shape, target.library)
    return median(seconds(peer[0])) / median(seconds(own)) if peer else None


def _sizes(shape: dict[str, Any]) -> str:
    names = {"batch_size": "B", "d": "d", "n_latents": "F", "k": "k"}
    return ", ".join(f"{short}={shape[name]}" for name, short in names.items())
