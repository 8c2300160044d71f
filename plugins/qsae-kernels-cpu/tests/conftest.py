"""Instruction sets to test at: each is a limit set by ``QSAE_KERNELS_ISA``, as users set it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qsae_kernels_cpu import library


def _at_level(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(library.ISA_VARIABLE, name)
    _forget()
    loaded = library.load()
    if isinstance(loaded, str):
        pytest.skip(loaded)
    if loaded.isa != name:
        pytest.skip(f"this machine has no {name}")
    yield name
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    library.load.cache_clear()
    library.compiled.cache_clear()


@pytest.fixture(params=library.LEVELS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every instruction set that this machine has."""
    yield from _at_level(request.param, monkeypatch)


@pytest.fixture(params=["avx2", "avx512"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The instruction sets of the float32 operations; what is above them changes none of these."""
    yield from _at_level(request.param, monkeypatch)


@pytest.fixture(params=["vnni", "amx"])
def screening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The instruction sets that have a screen."""
    yield from _at_level(request.param, monkeypatch)
