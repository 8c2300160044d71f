"""Rules for SAEs and transcoders: seeds, checkpoints, artifacts, levels. Shapes: B tokens, F latents."""

from __future__ import annotations

import json
import pickle

import torch

from qsae_core.coders.export import Export
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder import FEW, trained
from qsae_core.conformance.coder_samples import (
    BATCH,
    STEPS,
    Variant,
    bare,
    buildable,
    built,
    construct,
    data_of,
    train,
)
from qsae_core.conformance.sparsity import expect_well_formed
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    CheckFailure,
    copy_of_state,
    expect,
    expect_equal,
    expect_same_state,
)
from qsae_core.contracts.coder import Budget
from qsae_core.errors import QsaeError

RULES = Rules()


@RULES.each_case("deterministic", "coders of one seed are equal when built, and still after a few steps.")
def _deterministic(subject: Subject, case: Case) -> None:
    first, second = (built(subject, Variant(case, {})) for _ in range(2))
    expect_same_state(copy_of_state(second), copy_of_state(first), "built twice from one seed")
    data = data_of(subject, case)
    batches = [data.next_batch(BATCH) for _ in range(FEW)]
    for coder in (first, second):
        train(coder, batches)
    expect_same_state(copy_of_state(second), copy_of_state(first), f"trained {FEW} steps from one seed")


@RULES.each_case(
    "state", "a coder that takes the state_dict of another trains on as that one does, bit for bit."
)
def _state(subject: Subject, case: Case) -> None:
    original = built(subject, Variant(case, {}))
    data = data_of(subject, case)
    train(original, [data.next_batch(BATCH) for _ in range(FEW)])
    resumed = bare(subject, Variant(case, {}), seed=1)
    resumed.load_state_dict(copy_of_state(original))
    resumed.begin_training(Budget(STEPS, STEPS * BATCH, BATCH))
    resumed.train()
    expect_same_state(copy_of_state(resumed), copy_of_state(original), "the state after loading")
    batches = [data.next_batch(BATCH) for _ in range(FEW)]
    for coder in (original, resumed):
        train(coder, batches, first=FEW + 1)
    expect_same_state(
        copy_of_state(resumed), copy_of_state(original), f"{FEW} steps after loading, against the original"
    )


@RULES.each_case(
    "export", "a fresh coder restored from export() encodes and decodes bit for bit as the original."
)
def _export(subject: Subject, case: Case) -> None:
    for variant, coder in buildable(subject, case):
        coder, batch = trained(subject, case, coder)
        stored = _stored(coder.export())
        fresh = bare(subject, variant, seed=1)
        fresh.restore(stored)
        expect(not fresh.training, "restore leaves the coder in training mode.")
        again = _stored(fresh.export())
        with torch.no_grad():
            expected, actual = coder.encode(batch.x), fresh.encode(batch.x)
            expect_equal(actual.to_dense(), expected.to_dense(), f"codes after restore {variant.label}")
            expect_equal(fresh(batch.x), coder(batch.x), f"reconstruction after restore {variant.label}")
        expect(again.layout == stored.layout, f"{variant.label} the restored coder exports another layout.")
        expect_same_state(again.tensors, stored.tensors, f"exported again after restore {variant.label}")


@RULES.each_case(
    "outline",
    "made on the device meta, which has no values, it has the tensors that it has elsewhere: a file is "
    "compared with that before anything is made.",
)
def _outline(subject: Subject, case: Case) -> None:
    for variant, coder in buildable(subject, case):
        try:
            with torch.device("meta"):
                outline = construct(subject, variant, 0)
        except (NotImplementedError, RuntimeError) as error:
            raise CheckFailure(
                f"{variant.label} its constructor reads a value that it made on the way ({error}); make what "
                'it reads with device="cpu".'
            ) from error
        for name, tensor in coder.state_dict().items():
            found = outline.state_dict().get(name)
            expect(found is not None, f"{variant.label} on meta it has no tensor {name!r}.")
            same = found is not None and (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
            expect(same, f"{variant.label} on meta {name!r} is of another type or shape.")


@RULES.each_case("pickle", "a pickled coder, as another process gets it, is the same bit for bit.")
def _pickle(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    try:
        copied: MatrixCoder = pickle.loads(pickle.dumps(coder))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise CheckFailure(f"it cannot be pickled: {error}.") from error
    with torch.no_grad():
        expected, actual = coder.encode(batch.x), copied.encode(batch.x)
        expect_equal(actual.to_dense(), expected.to_dense(), "codes of the copy")
        expect_equal(copied(batch.x), coder(batch.x), "reconstruction of the copy")


def _stored(export: Export) -> Export:
    """The export as it comes back from a file: copies, and a layout that went through JSON."""
    for name, tensor in export.tensors.items():
        expect(not tensor.requires_grad, f"the exported tensor {name!r} carries a gradient.")
        expect(tensor.is_contiguous(), f"the exported tensor {name!r} is not contiguous.")
    layout = json.loads(json.dumps(export.layout))
    expect(layout == export.layout, "the exported layout changes when it goes through JSON.")
    return Export({name: t.clone() for name, t in export.tensors.items()}, layout)


@RULES.each_case("levels", "each level from 1 to `levels` is a coder that works; others are refused.")
def _levels(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    expect(
        isinstance(coder.levels, int) and coder.levels >= 1, f"levels is {coder.levels!r}; it counts from 1."
    )
    with torch.no_grad():
        for level in range(1, coder.levels):
            part = coder.at_level(level)
            expect(isinstance(part, MatrixCoder), f"at_level({level}) is a {type(part).__name__}.")
            codes = part.encode(batch.x)
            expect_well_formed(codes, len(batch.x), part.n_latents, f"codes of level {level}")
            expect_equal(part.decode(codes), part(batch.x), f"decode(encode(x)) at level {level}")
            shape = part(batch.x).shape
            expect(shape == coder.target(batch).shape, f"level {level} gives {list(shape)}.")
        whole = coder.at_level(coder.levels)
        expect_equal(whole(batch.x), coder(batch.x), "the last level's reconstruction against the whole one")
    for level in (0, coder.levels + 1):
        try:
            coder.at_level(level)
        except QsaeError:
            continue
        raise CheckFailure(f"at_level({level}) was accepted, but there are {coder.levels} levels.")
