"""Rules for data sources: batches, seeds, resuming, held-out vectors. Shapes: B tokens, L layers, D width."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    NotApplicable,
    expect,
    expect_close,
    expect_equal,
    expect_finite,
    set_seed,
)
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.held_out_part import Overlap
from qsae_core.contracts.language_model import Site
from qsae_core.contracts.shards import RankSlices, shard

RULES = Rules()
HELD_OUT = 200
MOST_SEEN = 4096
"""Training vectors that are compared with the held-out ones."""
BEHIND = ("token_ids", "documents", "positions")
"""What a batch may say of its vectors."""
SMALL_PASS = 20_000
"""A source with at most so many training vectors is read past the end of its pass."""


@contextlib.contextmanager
def opened(subject: Subject, case: Case, seed: int = 0) -> Iterator[DataSource]:
    """A fresh source, closed at the end."""
    source: DataSource = subject.build(case, seed=seed, device="cpu")
    try:
        yield source
    finally:
        source.close()


@RULES.once("constructs", "the defaults and the sample configurations construct, and close.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, lambda case: subject.construct(case, seed=0, device="cpu").close())


@RULES.each_case("facts", "widths, layers and names are set; describe() and state_dict() are JSON values.")
def _facts(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        for name in ("d_in", "d_out", "layers_in", "layers_out"):
            value = getattr(source, name)
            expect(isinstance(value, int) and value > 0, f"{name} is {value!r}, no positive int.")
        for name in ("model_name", "layer"):
            value = getattr(source, name)
            expect(isinstance(value, str) and value != "", f"{name} is {value!r}, no text for a path.")
        tokens = source.training_tokens
        expect(tokens is None or (isinstance(tokens, int) and tokens > 0), f"training_tokens is {tokens!r}.")
        for name, layers in (("source_sites", source.layers_in), ("target_sites", source.layers_out)):
            sites = getattr(source, name)
            well = isinstance(sites, tuple) and all(isinstance(site, Site) for site in sites)
            expect(well, f"{name} is {sites!r}, no tuple of Site.")
            expect(
                len(sites) in (0, layers), f"{name} has {len(sites)} sites, and there are {layers} layers."
            )
        json.dumps(source.describe(), allow_nan=False)
        state = source.state_dict()
        expect(json.loads(json.dumps(state)) == state, "state_dict() changes when it goes through JSON.")


@RULES.each_case("batches", "next_batch gives as many finite float32 vectors as asked, in declared widths.")
def _batches(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        for size in (1, 7, 64):
            batch = source.next_batch(size)
            expect(len(batch) == size, f"next_batch({size}) gave {len(batch)} vectors.")
            _expect_batch(batch, source, f"next_batch({size})")


def _expect_batch(batch: Batch, source: DataSource, what: str) -> None:
    for name, tensor, layers, width in (
        ("x", batch.x, source.layers_in, source.d_in),
        ("y", batch.y, source.layers_out, source.d_out),
    ):
        shape = (len(batch), width) if layers == 1 else (len(batch), layers, width)
        expect(tensor.shape == shape, f"{what}: {name} is {list(tensor.shape)}, not {list(shape)}.")
        expect(tensor.dtype == torch.float32, f"{what}: {name} is {tensor.dtype}, not float32.")
        expect(not tensor.requires_grad, f"{what}: {name} carries a gradient.")
        expect_finite(tensor, f"{what}: {name}")
    for name in BEHIND:
        found = getattr(batch, name)
        well = found is None or (found.shape == (len(batch),) and found.dtype == torch.int64)
        expect(well, f"{what}: {name} are {None if found is None else (list(found.shape), found.dtype)}.")


@RULES.each_case("autoencoder", "where the target is the input, y is the very tensor x.")
def _autoencoder(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        for what, batch in (("training", source.next_batch(32)), ("held-out", _first_held_out(source))):
            same = batch.x.shape == batch.y.shape and torch.equal(batch.x, batch.y)
            expect(batch.y is batch.x or not same, f"x and y of {what} batches are equal and two tensors.")


def _first_held_out(source: DataSource) -> Batch:
    batch = next(iter(source.held_out(HELD_OUT, 32)), None)
    if batch is None:
        raise NotApplicable("there are no held-out vectors; see 'held-out'")
    return batch


@RULES.each_case("deterministic", "the order depends on options and seed alone: one seed, one stream.")
def _deterministic(subject: Subject, case: Case) -> None:
    streams = []
    for global_seed in (1, 2):
        set_seed(global_seed)
        with opened(subject, case, seed=3) as source:
            streams.append(torch.cat([source.next_batch(32).x for _ in range(3)]))
    expect_equal(streams[1], streams[0], "two streams of one seed")


@RULES.each_case("seed", "another seed gives another order.")
def _seed(subject: Subject, case: Case) -> None:
    streams = []
    for seed in (3, 4):
        with opened(subject, case, seed=seed) as source:
            streams.append(source.next_batch(128).x)
    expect(not torch.equal(streams[0], streams[1]), "the first 128 vectors are the same under seeds 3 and 4.")


@RULES.each_case("resumes", "an equal source that loads state_dict goes on with the same next batches.")
def _resumes(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source, opened(subject, case) as resumed:
        # the first state is loaded into a fresh source, later ones into one that has been read from
        for before in (5, 64, _rest_of_pass(source), 100):
            _read(source, before)
            state = json.loads(json.dumps(source.state_dict()))
            expected = [source.next_batch(size) for size in (3, 64)]
            resumed.load_state_dict(state)
            for batch in expected:
                again = resumed.next_batch(len(batch))
                expect_equal(again.x, batch.x, f"x after resuming ({before} more vectors read before)")
                expect_equal(again.y, batch.y, f"y after resuming ({before} more vectors read before)")
                for name in BEHIND:
                    said, given = getattr(batch, name), getattr(again, name)
                    if said is not None and given is not None:
                        expect_equal(given, said, f"{name} after resuming")


@RULES.each_case("endless", "the training stream starts over, shuffled anew, after its last vector.")
def _endless(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        size = source.training_tokens
        if size is None or size > SMALL_PASS:
            raise NotApplicable("a pass over the training stream is too long to read here")
        if size < 64:
            raise NotApplicable("a pass of fewer than 64 vectors can repeat its order by chance")
        first, second = _read(source, size), _read(source, size)
        expect(not torch.equal(first, second), "the second pass gives the vectors in the order of the first.")


def _rest_of_pass(source: DataSource) -> int:
    """Vectors to read so that resuming is tried 10 before the end of a pass; 1 where a pass is long."""
    size = source.training_tokens
    return 1 if size is None or size > SMALL_PASS else max(1, size - (5 + 67 + 64 + 67) - 10)


def _read(source: DataSource, count: int) -> Tensor:
    """The next ``count`` vectors of x, read 256 at a time."""
    parts = []
    while count > 0:
        parts.append(source.next_batch(min(256, count)).x)
        count -= 256
    return torch.cat(parts)


@RULES.each_case("held-out", "held_out gives at most as many vectors as asked, always the same ones.")
def _held_out(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        batches = list(source.held_out(HELD_OUT, 32))
        expect(len(batches) > 0, f"held_out({HELD_OUT}, 32) gave no batch.")
        for batch in batches:
            expect(0 < len(batch) <= 32, f"a held-out batch has {len(batch)} vectors; 32 were asked for.")
            _expect_batch(batch, source, "held_out")
        first = _sides(batches)
        expect(len(first[0]) <= HELD_OUT, f"held_out({HELD_OUT}, 32) gave {len(first[0])} vectors.")
        source.next_batch(64)
        again = _sides(source.held_out(HELD_OUT, 50))
    with opened(subject, case) as other:
        fresh = _sides(other.held_out(HELD_OUT, 32))
    for side, *found in zip(("vectors", "targets"), first, again, fresh, strict=True):
        before, later, new = found
        expect_close(later, before, f"the held-out {side}, after training on and in batches of 50")
        expect_equal(new, before, f"the held-out {side} of a fresh equal source")


def _sides(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    given = list(batches)
    return torch.cat([batch.x for batch in given]), torch.cat([batch.y for batch in given])


@RULES.each_case(
    "own-data", "it knows its own data by its record, and gives all of it where that is asked for."
)
def _own_data(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source, opened(subject, case, seed=1) as again:
        part, other = source.held_out_part(), again.held_out_part()
        if part is None or other is None:
            raise NotApplicable("the source does not say what is held out: held_out_part() is None")
        record = part.record()
        expect(json.loads(json.dumps(record)) == record, "record() changes when it goes through JSON.")
        expect(bool(part.name().strip()), "name() is empty.")
        overlap = other.overlap(json.loads(json.dumps(record)))
        expect(overlap is not Overlap.HELD_OUT, "an equal source of another seed is held out otherwise.")
        before = _count_held_out(again)
        other.take_all()
        after = _count_held_out(again)
        if overlap is Overlap.TRAINING:
            expect(after > before or before == MOST_SEEN, f"take_all() left {after} of {before} vectors.")
        size = other.size()
        expect(size is None or min(size, MOST_SEEN) == after, f"size() is {size}, and {after} were given.")


def _count_held_out(source: DataSource) -> int:
    return sum(len(batch) for batch in source.held_out(MOST_SEEN, 64))


@RULES.each_case("disjoint", "training never gives a held-out vector.")
def _disjoint(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        held_out = {row.numpy().tobytes() for b in source.held_out(HELD_OUT, 64) for row in b.x}
        seen = min(source.training_tokens or MOST_SEEN, MOST_SEEN)
        training = {row.numpy().tobytes() for row in _read(source, seen)}
        # two texts that begin alike give a model's vectors that are alike, so a few may coincide
        most = len(held_out) * (0.2 if source.language_model() is not None else 0.05)
        common = len(held_out & training)
        expect(
            common <= most, f"{common} of {len(held_out)} held-out vectors are among {seen} training vectors."
        )


@RULES.each_case(
    "shards",
    "several processes read vectors of their own and hold out the same ones; one that divides the source "
    "resumes as itself.",
)
def _shards(subject: Subject, case: Case) -> None:
    with contextlib.ExitStack() as stack:
        whole, *sources = (stack.enter_context(opened(subject, case, seed=3)) for _ in range(4))
        first, second = (shard(source, rank, 2) for rank, source in enumerate(sources[:2]))
        parts = [process.next_batch(64).x for process in (first, second)]
        expect(not torch.equal(*parts), "both of two processes read the same vectors.")
        expected = whole.next_batch(128).x
        for process in (first, second):
            held_out = [torch.cat([b.x for b in s.held_out(HELD_OUT, 64)]) for s in (process, whole)]
            expect_equal(held_out[0], held_out[1], "the held-out vectors of one of two processes")
        if isinstance(first, RankSlices):
            together = torch.stack(parts, dim=1).flatten(0, 1)
            expect_equal(together, expected, "what two processes read, against one that reads all")
            return
        state = json.loads(json.dumps(second.state_dict()))
        following = second.next_batch(64).x
        resumed = shard(sources[2], 1, 2)
        resumed.load_state_dict(state)
        expect_equal(resumed.next_batch(64).x, following, "x after one of two processes resumed")
