"""Matrices that the quantizer rules try, and fresh quantizers for them. Shapes: F rows, D columns."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, set_seed
from qsae_core.contracts.quantizer import Quantizer
from qsae_core.errors import QsaeError

SHAPES = ((24, 16), (7, 13), (5, 1), (1, 9))
"""Ordinary; divisible by neither 8 nor 5; one column; one row."""
MAGNITUDES = (1e-6, 1.0, 1e4)


def matrices(shape: tuple[int, int]) -> dict[str, Tensor]:
    """Name -> float32 matrix: ordinary rows, tiny, huge, with rows of zeros, with one outlier column."""
    generator = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    weight = torch.randn(shape, generator=generator).clamp(-3, 3)
    some_zero = weight.clone()
    some_zero[::2] = 0
    outlier = weight.clone()
    outlier[:, 0] *= 50
    named = {f"entries of size {m:g}": weight * m for m in MAGNITUDES}
    return named | {
        "rows of zeros": some_zero,
        "zeros alone": torch.zeros(shape),
        "an outlier column": outlier,
    }


def built(subject: Subject, case: Case, weight: Tensor, train: bool = False) -> Quantizer:
    """A quantizer initialised with a matrix, in evaluation mode unless ``train``."""
    set_seed(0)
    quantizer: Quantizer = subject.build(case, (weight.shape[0], weight.shape[1]))
    quantizer.initialize(weight)
    return quantizer.train(train)


def samples(subject: Subject, case: Case) -> list[tuple[str, Tensor]]:
    """(description, matrix) of every shape that the options admit; every sort of entries for the first."""
    found = []
    for shape in SHAPES:
        if admits(subject, case, shape):
            named = matrices(shape)
            chosen = named if shape == SHAPES[0] else ("entries of size 1", "rows of zeros")
            found += [(f"a {list(shape)} matrix with {name}", named[name]) for name in chosen]
    return found


def admits(subject: Subject, case: Case, shape: tuple[int, int]) -> bool:
    """Options may refuse a shape with a QsaeError (a group that does not divide it); defaults may not."""
    try:
        subject.construct(case, shape)
    except QsaeError:
        return subject.config(case) == subject.config(subject.cases[0])
    except Exception as error:
        raise NotApplicable(f"it does not construct ({error}); see 'constructs'") from error
    return True
