"""Rules for metrics. Shapes: B tokens, D width, F latents.

A value that is defined over batches (a legacy definition kept for comparison) is named in the class
attribute ``batch_dependent``; the rule 'batch-size' then leaves it out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect, set_seed
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.metric import Metric, Observation

RULES = Rules()
TOKENS, WIDTH, N_LATENTS, VOCABULARY = 97, 6, 20, 5
SPLITS = ((97,), (1,) * 97, (50, 47), (3, 64, 30), (96, 1))
Values = dict[str, float | None]


def stream(perfect: bool = False, constant: bool = False) -> Observation:
    """A whole stream as one batch; ``split`` cuts it."""
    generator = torch.Generator().manual_seed(11)
    target = torch.randn(TOKENS, WIDTH, generator=generator) * 3 + 10
    if constant:
        target = target[:1].repeat(TOKENS, 1)
    noise = torch.randn(TOKENS, WIDTH, generator=generator)
    dense = (torch.randn(TOKENS, N_LATENTS, generator=generator) - 0.8).relu()
    dense[3] = 0
    codes = SparseCodes.from_dense(dense)
    norms = torch.rand(N_LATENTS, generator=generator) + 0.5
    ids = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    sines = torch.rand(N_LATENTS, generator=generator, dtype=torch.float64)
    errors = AtomErrors(sines, 2 * norms)
    reconstruction = target.clone() if perfect else target + 0.3 * noise
    return Observation(target, reconstruction, codes, norms, ids, _levels(codes), errors)


def _levels(codes: SparseCodes) -> Tensor:
    """uint8 ``[N]``: values in steps of 0.25, 0 where they are zero."""
    return (codes.values / 0.25).ceil().to(torch.uint8)


def split(whole: Observation, sizes: tuple[int, ...]) -> list[Observation]:
    """The stream as consecutive batches of these sizes."""
    parts, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        first, last = int(whole.codes.offsets[start]), int(whole.codes.offsets[start + size])
        codes = SparseCodes(
            whole.codes.indices[first:last],
            whole.codes.values[first:last],
            whole.codes.offsets[start : start + size + 1] - first,
            whole.codes.n_latents,
        )
        ids = None if whole.token_ids is None else whole.token_ids[rows]
        levels = None if whole.levels is None else whole.levels[first:last]
        parts.append(
            whole._replace(
                target=whole.target[rows],
                reconstruction=whole.reconstruction[rows],
                codes=codes,
                token_ids=ids,
                levels=levels,
            )
        )
        start += size
    return parts


def measured(metric: Metric, batches: list[Observation]) -> Values:
    """The metric's values over the batches."""
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def built(subject: Subject, case: Case) -> Metric:
    """A fresh metric."""
    metric: Metric = subject.build(case)
    return metric


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, subject.construct)


@RULES.each_case("values", "compute gives finite Python floats or None by name, the same when asked again.")
def _values(subject: Subject, case: Case) -> None:
    metric = built(subject, case)
    values = measured(metric, split(stream(), (50, 47)))
    expect(len(values) > 0, "compute returned nothing.")
    _expect_values(values, "an ordinary stream")
    _expect_close(metric.compute(), values, 0.0, "compute, asked twice")


def _expect_values(values: Values, what: str) -> None:
    for name, value in values.items():
        plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        expect(plain, f"{name} of {what} is a {type(value).__name__}, neither a float nor None.")
    _expect_finite(values, what)


def _expect_finite(values: Values, what: str) -> None:
    for name, value in values.items():
        finite = value is None or math.isfinite(value)
        expect(finite, f"{name} of {what} is {value}; what is not defined is None.")


@RULES.each_case(
    "undefined", "what is not defined is None: an empty stream, one token, a target without variance."
)
def _undefined(subject: Subject, case: Case) -> None:
    empty = built(subject, case).compute()
    _expect_finite(empty, "an empty stream")
    zero = stream()._replace(reconstruction=torch.zeros(TOKENS, WIDTH))
    silent = SparseCodes.from_dense(torch.zeros(TOKENS, N_LATENTS))
    for what, batches in {
        "one token": split(stream(), (1,)),
        "a target without variance": [stream(constant=True)],
        "a target without variance, met exactly": [stream(perfect=True, constant=True)],
        "a reconstruction of zeros": [zero],
        "a target of zeros": [zero._replace(target=zero.reconstruction)],
        "codes without an active latent": [stream()._replace(codes=silent, levels=_levels(silent))],
        "no token ids": [stream()._replace(token_ids=None)],
        "values that no quantizer serves": [stream()._replace(levels=None)],
        "atoms whose masters are not known": [stream()._replace(atom_errors=None)],
    }.items():
        values = measured(built(subject, case), batches)
        _expect_finite(values, what)
        expect(
            values.keys() == empty.keys(),
            f"the names of {what} differ from the empty stream's: {sorted(values)}.",
        )


@RULES.each_case(
    "empty-stream", "before any batch, and after a reset, every value that needs tokens is None."
)
def _empty_stream(subject: Subject, case: Case) -> None:
    defined = {
        n: v
        for n, v in built(subject, case).compute().items()
        if v is not None and v != 0 and math.isfinite(v)
    }
    expect(not defined, f"without any token there are values: {defined}.")


@RULES.each_case("optimum", "a perfect reconstruction gives the values that `optimum` declares.")
def _optimum(subject: Subject, case: Case) -> None:
    declared = subject.declares("optimum", {})
    if not declared:
        raise NotApplicable("the metric declares no optimum")
    values = measured(built(subject, case), split(stream(perfect=True), (50, 47)))
    for name, best in declared.items():
        expect(name in values, f"`optimum` declares {name!r}, which compute does not return.")
        value = values[name]
        expect(
            value is not None and abs(value - best) <= 1e-9,
            f"a perfect reconstruction gives {name} = {value}, but `optimum` declares {best}.",
        )


@RULES.each_case(
    "batch-size", "values do not depend on how the stream is cut into batches (to 1e-12, in float64)."
)
def _batch_size(subject: Subject, case: Case) -> None:
    left_out = set(subject.declares("batch_dependent", ()))
    results = [measured(built(subject, case), split(stream(), sizes)) for sizes in SPLITS]
    reference = {n: v for n, v in results[0].items() if n not in left_out}
    for sizes, values in zip(SPLITS, results, strict=True):
        batches = f"{len(sizes)} batches of {max(sizes)} tokens or fewer against one of {TOKENS}"
        _expect_close({n: v for n, v in values.items() if n not in left_out}, reference, 1e-12, batches)


@RULES.each_case("merge", "metrics that saw a part of the stream each merge into one of the whole.")
def _merge(subject: Subject, case: Case) -> None:
    left_out = set(subject.declares("batch_dependent", ()))
    expected = measured(built(subject, case), split(stream(), (50, 47)))
    merged, other = built(subject, case), built(subject, case)
    merged.merge(other)  # of nothing
    for metric, batch, first in zip((merged, other), split(stream(), (50, 47)), (0, 50), strict=True):
        metric.update(batch._replace(first=first))
    merged.merge(other)
    values = {n: v for n, v in merged.compute().items() if n not in left_out}
    wanted = {n: v for n, v in expected.items() if n not in left_out}
    _expect_close(values, wanted, 1e-6, "two merged")  # digits are 'batch-size's business


@RULES.each_case("padding", "entries of value 0 are not active, and the order of a token's entries is free.")
def _padding(subject: Subject, case: Case) -> None:
    left_out = set(subject.declares("batch_dependent", ()))
    expected = measured(built(subject, case), [stream()])
    codes = _every_latent(stream().codes)
    padded = stream()._replace(codes=codes, levels=_levels(codes))
    values = measured(built(subject, case), [padded])
    for defined in (expected, values):
        for name in left_out:
            defined.pop(name, None)
    _expect_close(values, expected, 1e-12, "with an entry for every latent, most of them 0")


def _every_latent(codes: SparseCodes) -> SparseCodes:
    """The same codes with all F entries for each token, last latent first."""
    dense = codes.to_dense().flip(1)
    indices = torch.arange(codes.n_latents - 1, -1, -1).repeat(codes.batch_size, 1)
    return SparseCodes.from_top_k(indices, dense, codes.n_latents)


@RULES.each_case("reset", "after reset a metric measures as a fresh one does.")
def _reset(subject: Subject, case: Case) -> None:
    metric = built(subject, case)
    measured(metric, [stream(constant=True)])
    metric.reset()
    expected = measured(built(subject, case), [stream()])
    _expect_close(measured(metric, [stream()]), expected, 0.0, "after reset, against a fresh metric")


@RULES.each_case("deterministic", "the same stream gives the same values, whatever the global seed.")
def _deterministic(subject: Subject, case: Case) -> None:
    values = []
    for seed in range(2):
        set_seed(seed)
        values.append(measured(built(subject, case), [stream()]))
    _expect_close(values[1], values[0], 0.0, "under two seeds")


@RULES.each_case("leaves-input", "update changes none of the tensors it is given.")
def _leaves_input(subject: Subject, case: Case) -> None:
    whole, untouched = stream(), stream()
    measured(built(subject, case), [whole])
    pairs: list[tuple[str, Tensor, Tensor]] = [
        ("the target", whole.target, untouched.target),
        ("the reconstruction", whole.reconstruction, untouched.reconstruction),
        ("the codes' values", whole.codes.values, untouched.codes.values),
        ("the atom norms", whole.atom_norms, untouched.atom_norms),
    ]
    for what, now, before in pairs:
        expect(torch.equal(now, before), f"update changed {what}.")


def _expect_close(actual: Values, expected: Values, tolerance: float, what: str) -> None:
    expect(actual.keys() == expected.keys(), f"{what}: names {sorted(actual)} against {sorted(expected)}.")
    for name, value in expected.items():
        other = actual[name]
        if value is None or other is None:
            expect(value is other, f"{what}: {name} is {other} against {value}.")
            continue
        expect(
            abs(other - value) <= tolerance * max(abs(value), 1.0),
            f"{what}: {name} is {other!r} against {value!r}.",
        )
