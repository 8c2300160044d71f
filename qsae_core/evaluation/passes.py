"""One pass over held-out data for everything that wants to see it. Shapes: B tokens, T positions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from qsae_core.contracts.data import Batch
from qsae_core.contracts.evaluation import Accumulator, EvaluationContext
from qsae_core.contracts.language_model import TokenBatch
from qsae_core.contracts.metric import Observation, Origin, observe
from qsae_core.evaluation.replay import Replay
from qsae_core.evaluation.watch import Watch
from qsae_core.measuring.steps import telling

Name = TypeVar("Name", bound=Hashable)
Found = TypeVar("Found")


def observations(
    context: EvaluationContext, limits: Sequence[int] = (), *, with_twin: bool = False
) -> Iterator[Observation]:
    """Held-out batches passed through the coder, without gradient, up to ``context.n_tokens`` tokens.

    Where the data has a language model, whole contexts: the fewest that hold so many. A batch ends wherever
    one of the ``limits`` (numbers of tokens) is reached, so that what wants no more can leave there.
    """
    twin = context.twin if with_twin else None
    seen = 0
    for tokens, origin, batch in _batches(context, sorted({*limits, context.n_tokens})):
        yield observe(
            context.coder,
            batch.to(context.device),
            context.atom_errors,
            tokens=tokens,
            origin=origin,
            twin=twin,
            first=seen,
        )
        seen += len(batch)


def run_passes(
    context: EvaluationContext,
    started: Mapping[Name, Accumulator],
    watch: Watch | None = None,
    called: Callable[[Name], str] = str,
) -> dict[Name, Accumulator]:
    """Show the data to every accumulator, and again to those that have a next pass.

    Args:
        started: by name.
        watch: is told how far each pass is; None: nobody.
        called: what it is told instead of a name.

    Returns:
        By the same names, the accumulators whose results count.
    """
    watch = watch or Watch()
    finished, going = dict(started), dict(started)
    number, before = 0, Replay()
    while going:
        number += 1
        wanted = [min(context.n_tokens, a.n_tokens or context.n_tokens) for a in going.values()]
        for_next = Replay(_twice(going.values(), wanted), wanted)
        names, seen = list(dict.fromkeys(map(called, going))), 0
        watch.read(number, names, seen, max(wanted))
        for seen in _one_pass(context, list(going.values()), wanted, before, for_next):
            watch.read(number, names, seen, max(wanted))
        watch.has_read(number, seen)
        following = {
            name: worked(accumulator.next_pass, watch, called(name)) for name, accumulator in going.items()
        }
        going = {name: accumulator for name, accumulator in following.items() if accumulator is not None}
        finished |= going
        before = for_next
    return finished


def worked(call: Callable[[], Found], watch: Watch, name: str) -> Found:
    """What an evaluation makes of all that it has seen, while ``watch`` is told how far that is."""
    watch.works(name, 0, None)
    with telling(lambda done, total: watch.works(name, done, total)):
        found = call()
    watch.has_worked(name)
    return found


def _one_pass(
    context: EvaluationContext,
    accumulators: Sequence[Accumulator],
    wanted: Sequence[int],
    before: Replay,
    for_next: Replay,
) -> Iterator[int]:
    """Gives after each batch how many tokens were read.

    Args:
        wanted: how many tokens each accumulator sees.
        before: the pass before kept these.
        for_next: keeps what another pass will want.
    """
    seen = 0
    if before.holds(wanted):
        batches: Iterable[Observation] = before.observations
    else:
        narrowed = EvaluationContext(**{**vars(context), "n_tokens": max(wanted)})
        batches = observations(narrowed, wanted, with_twin=context.twin is not None)
    for observation in batches:
        for accumulator, limit in zip(accumulators, wanted, strict=True):
            if seen < limit:
                accumulator.update(observation)
        for_next.add(observation)
        seen += len(observation.target)
        yield seen


def _twice(accumulators: Iterable[Accumulator], wanted: Sequence[int]) -> int:
    """How many tokens another pass will want, if it wants as many as this one."""
    return max((n for a, n in zip(accumulators, wanted, strict=True) if a.may_go_on), default=0)


Piece = tuple[TokenBatch | None, Origin | None, Batch]


def _batches(context: EvaluationContext, limits: list[int]) -> Iterator[Piece]:
    """Batches and where they come from; one ends at each of the ascending limits."""
    if context.data.language_model() is None:
        for batch in _cut(context.data.held_out(limits[-1], context.batch_size), limits):
            yield None, None, batch
        return
    n_contexts = seen = 0
    for tokens, batch in context.data.held_out_contexts(limits[-1], context.batch_size):
        counts = tokens.counted.sum(1)
        before = seen + counts.cumsum(0) - counts
        # a context starts a piece where the one before it has filled a limit
        starts = [0, *(i for i in range(1, len(counts)) if _crosses(before[i - 1], before[i], limits))]
        for start, end in zip(starts, [*starts[1:], len(counts)], strict=True):
            rows = slice(int(counts[:start].sum()), int(counts[:end].sum()))
            some = tokens.rows(slice(start, end))
            yield some, _origin(some, n_contexts + start), batch.rows(rows)
        n_contexts, seen = n_contexts + len(counts), seen + int(counts.sum())


def _crosses(before: Tensor, after: Tensor, limits: list[int]) -> bool:
    return any(int(before) < limit <= int(after) for limit in limits)


def _cut(batches: Iterator[Batch], limits: list[int]) -> Iterator[Batch]:
    seen = 0
    for batch in batches:
        ends = [limit - seen for limit in limits if seen < limit < seen + len(batch)]
        for start, end in zip([0, *ends], [*ends, len(batch)], strict=True):
            yield batch.rows(slice(start, end))
        seen += len(batch)


def _origin(tokens: TokenBatch, first_context: int) -> Origin:
    context, position = tokens.counted.nonzero(as_tuple=True)
    if tokens.documents is None:
        document = torch.full_like(context, -1)
    else:
        document = tokens.documents[context, position].to(torch.int64)
    return Origin(document, context + first_context, position)
