"""The sides of the training-step comparison: qsae's own, and each peer in each environment worth trying."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.settings import Settings

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""torch then asks for transparent huge pages for large tensors: fewer page faults for fresh ones."""
MEMORY_KEPT = {**HUGE_PAGES, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}
"""Besides, glibc keeps what is freed, as qsae tells it to while it trains."""
QSAE = "qsae"
COMPILED = "cpu"
"""The kernel set of qsae-kernels-cpu."""


class Side(NamedTuple):
    """One way to do the training step."""

    library: str
    what: str
    """What sets it apart from the library's other sides."""
    script: str
    """A file that the peer's interpreter runs, or a module for the repository's own."""
    precision: str
    """``fp32``: every product that reaches the result; ``bf16``: autocast."""
    peer: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    environment: dict[str, str] = {}  # noqa: RUF012 (never changed)

    @property
    def name(self) -> str:
        """Library and what, unique."""
        return f"{self.library}, {self.what}"


def qsae_side(screen: str, kernels: str) -> Side:
    """qsae's step with a screen (``none``, ``bf16``, ``int8``) and a kernel set (``none``, ``COMPILED``)."""
    how = "torch operators" if kernels == "none" else "compiled kernels"
    what = f"{how}, " + ("no screen" if screen == "none" else f"{screen} screen")
    options = {"screen": screen, "kernels": kernels}
    # the qsae command asks torch for huge pages by itself
    return Side(QSAE, what, "benchmarks.qsae_step", "fp32", options=options, environment=HUGE_PAGES)


def qsae_sides() -> list[Side]:
    """Every screen, with torch's operators alone and with the compiled ones."""
    return [
        qsae_side(screen, kernels) for kernels in ("none", COMPILED) for screen in ("none", "bf16", "int8")
    ]


def peer_sides() -> list[Side]:
    """Each peer as it comes, and in every environment that may be better for it."""
    return [*_sae_lens(), *_others()]


def sides(settings: Settings) -> list[Side]:
    """Those that take part."""
    return qsae_sides() + [side for side in peer_sides() if side.peer in settings.peers]


def _variants(library: str, script: str, peer: str) -> Iterator[Side]:
    yield Side(library, "fp32", script, "fp32", peer)
    yield Side(library, "fp32, memory kept", script, "fp32", peer, {}, MEMORY_KEPT)
    yield Side(library, "bf16 autocast, memory kept", script, "bf16", peer, {"autocast": True}, MEMORY_KEPT)


def _sae_lens() -> Iterator[Side]:
    library, script, peer = "SAELens", "benchmarks/peers/sae_lens_step.py", "sae-lens"
    yield from _variants(library, script, peer)
    sparse = {"sparse": True}
    yield Side(library, "fp32, sparse codes, memory kept", script, "fp32", peer, sparse, MEMORY_KEPT)


def _others() -> Iterator[Side]:
    yield from _variants(
        "dictionary_learning", "benchmarks/peers/dictionary_learning_step.py", "dictionary-learning"
    )
    yield from _variants("sparsify", "benchmarks/peers/sparsify_step.py", "eai-sparsify")
