"""One pass over the data for all evaluations: what each sees, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from qsae_cli.summary import check_failures, unavailable
from qsae_core.coder_options import CoderConfig
from qsae_core.coders.linear import LinearCoder
from qsae_core.component import ComponentConfig
from qsae_core.conformance import plain_parts
from qsae_core.conformance.toy_data import ToyData
from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import (
    Accumulator,
    Batch,
    CoderShape,
    Evaluation,
    EvaluationContext,
    LossOutput,
    Observation,
    Result,
    SparseCodes,
    Table,
)
from qsae_core.contracts.metric import Origin
from qsae_core.errors import DataError, EvaluationError
from qsae_core.evaluation.evaluate import evaluate, n_documents
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.evaluation.passes import observations, run_passes
from qsae_core.evaluation.replay import Replay
from qsae_core.evaluation.watch import Watch
from qsae_core.measuring import steps
from qsae_core.results.run import values_of

SHAPE = CoderShape(8, 8)


class Coder(LinearCoder):
    """A TopK SAE that counts what it encodes."""

    encoded = 0

    def encode(self, x: Tensor) -> Any:
        self.encoded += len(x)
        return super().encode(x)

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


class Sees(Accumulator):
    """Keeps all observations."""

    def __init__(self, n_tokens: int | None = None, again: Sees | None = None) -> None:
        self.n_tokens, self.again = n_tokens, again
        self.seen: list[Observation] = []

    def update(self, observation: Observation) -> None:
        self.seen.append(observation)

    def merge(self, other: Sees) -> None:
        self.seen += other.seen

    def result(self) -> Result:
        return Result({"tokens": float(self.tokens)})

    def next_pass(self) -> Accumulator | None:
        return self.again

    @property
    def tokens(self) -> int:
        return sum(len(observation.target) for observation in self.seen)


def context(
    *, model: bool, n_tokens: int = 40, batch_size: int = 20, twin: bool = False
) -> EvaluationContext:
    data = ToyData(SHAPE, model=ToyLanguageModel(8) if model else None)
    coders = [Coder(CoderConfig(n_latents=16), SHAPE, plain_parts(k=2)).eval() for _ in range(1 + twin)]
    for coder in coders:
        coder.initialize(data.next_batch(64))
    return EvaluationContext(
        coders[0], data, list, n_tokens, batch_size, "cpu", twin=coders[1] if twin else None
    )


def test_the_coder_runs_once_for_all() -> None:
    given = context(model=False)
    accumulators = {"a": Sees(), "b": Sees(), "c": Sees()}
    run_passes(given, dict(accumulators))
    assert given.coder.encoded == 40
    assert {a.tokens for a in accumulators.values()} == {40}
    for one, other in zip(accumulators["a"].seen, accumulators["b"].seen, strict=True):
        assert one is other


def test_what_wants_fewer_tokens_sees_the_first_ones() -> None:
    """Without a language model rows are cut at 7 and 25; with one, contexts of 8 positions stay whole."""
    accumulators = {"few": Sees(7), "more": Sees(25), "all": Sees(), "beyond": Sees(10**6)}
    run_passes(context(model=False), dict(accumulators))
    assert [a.tokens for a in accumulators.values()] == [7, 25, 40, 40]
    accumulators = {"few": Sees(7), "more": Sees(25), "all": Sees(), "beyond": Sees(10**6)}
    run_passes(context(model=True), dict(accumulators))
    assert [a.tokens for a in accumulators.values()] == [8, 32, 40, 40]


@pytest.mark.parametrize("batch_size", [1, 20, 1000])
def test_batches_say_where_they_come_from(batch_size: int) -> None:
    """The toy's contexts have 8 counted positions, 1 to 8; their second document begins at position 5."""
    given = context(model=True, batch_size=batch_size)
    seen = list(observations(given))
    assert [observation.first for observation in seen] == [
        sum(len(o.target) for o in seen[:i]) for i in range(len(seen))
    ]
    origin = [torch.cat(parts) for parts in zip(*(o.origin for o in seen), strict=True)]  # type: ignore[arg-type]
    document, place, position = origin
    assert place.tolist() == [i for i in range(5) for _ in range(8)]
    assert position.tolist() == list(range(1, 9)) * 5
    first = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert document[:8].tolist() == first.tolist()
    assert len(document) == 40
    for observation in seen:
        tokens = observation.tokens
        assert tokens is not None
        assert torch.equal(tokens.ids[tokens.counted], observation.token_ids)
        assert len(tokens.ids) == max(1, min(5, batch_size // 9)) or observation is seen[-1]


def test_the_twin_sees_the_same_inputs_where_it_is_asked_for() -> None:
    given = context(model=False, twin=True)
    plain, with_twin = list(observations(given)), list(observations(given, with_twin=True))
    assert all(observation.twin_codes is None for observation in plain)
    for observation in with_twin:
        assert given.twin is not None
        expected = given.twin.encode(observation.inputs)
        assert torch.equal(observation.twin_codes.to_dense(), expected.to_dense())  # type: ignore[union-attr]


def test_a_second_pass_sees_the_same_data() -> None:
    again = Sees()
    first, once = Sees(again=again), Sees()
    finished = run_passes(context(model=False), {"twice": first, "once": once})
    assert finished == {"twice": again, "once": once}
    assert (first.tokens, again.tokens, once.tokens) == (40, 40, 40)
    for one, other in zip(first.seen, again.seen, strict=True):
        assert torch.equal(one.target, other.target)


class Asks(Evaluation):
    """Asks for what the data may not have."""

    def __init__(self, *observes: Any) -> None:
        super().__init__(ComponentConfig())
        self.observes = frozenset(observes)  # type: ignore[misc]

    def start(self, context: EvaluationContext) -> Accumulator:
        return Sees()


def test_what_is_missing_is_said() -> None:
    given = context(model=False, twin=True)
    asked: dict[str, Evaluation] = {"plain": Asks(), "text": Asks("tokens"), "twin": Asks("twin")}
    found = evaluate(given.coder, given.data, asked, list, n_tokens=8, batch_size=8)[WHOLE]  # type: ignore[arg-type]
    assert found["plain"].entry() == {"tokens": 8.0}
    assert found["text"].entry() == {
        "unavailable": "the data source has no language model behind its vectors"
    }
    assert found["twin"].entry() == {"unavailable": "there is no full-precision twin beside the coder"}
    given.coder.train()
    found = evaluate(
        given.coder,  # type: ignore[arg-type]
        given.data,
        asked,
        list,
        n_tokens=8,
        batch_size=8,
        twin=given.twin,  # type: ignore[arg-type]
    )[WHOLE]
    assert found["twin"].entry() == {"tokens": 8.0}
    assert given.coder.training


class Faulty(Evaluation):
    """Goes wrong at its second batch."""

    def start(self, context: EvaluationContext) -> Accumulator:
        class Wrong(Sees):
            def update(self, observation: Observation) -> None:
                super().update(observation)
                if len(self.seen) == 2:
                    raise KeyError("no such thing")

        return Wrong()


class Sound(Evaluation):
    def start(self, context: EvaluationContext) -> Accumulator:
        return Sees()


def test_what_one_evaluation_does_wrong_is_its_own() -> None:
    given = context(model=False)
    asked = {"wrong": Faulty(ComponentConfig()), "sound": Sound(ComponentConfig())}
    found = evaluate(given.coder, given.data, asked, list, n_tokens=60, batch_size=20)[WHOLE]
    assert found["sound"].result is not None
    assert found["wrong"].result is None
    reason = found["wrong"].entry()["unavailable"]
    assert reason.startswith("it failed (KeyError: 'no such thing'; test_evaluation_passes.py:")
    assert found["wrong"].failed
    assert not found["sound"].failed


class Unanswered(Evaluation):
    """Depends on something that is not there when it is asked for at the end."""

    def start(self, context: EvaluationContext) -> Accumulator:
        class Asks(Sees):
            def result(self) -> Result:
                raise DataError("nobody answers", where="http://localhost:1", next="start it")

        return Asks()


class Broken(Evaluation):
    """Has a part of what it was to find."""

    def start(self, context: EvaluationContext) -> Accumulator:
        class Half(Sees):
            def result(self) -> Result:
                return Result({"first": 1.0, "second": None}, reason="two of four answered", failed=True)

        return Half()


class Gated(Evaluation):
    """Finds that it does not apply, and keeps the table that says so."""

    def start(self, context: EvaluationContext) -> Accumulator:
        class Applies(Sees):
            def result(self) -> Result:
                table = Table(("letter", "f1"), [["a", 0.2]])
                return Result({"score": None}, tables={"letters": table}, reason="no letter is known well")

        return Applies()


def test_why_values_are_missing_is_said_and_what_was_found_is_kept() -> None:
    given, config = context(model=False), ComponentConfig()
    asked = {"unanswered": Unanswered(config), "broken": Broken(config), "gated": Gated(config)}
    found = evaluate(given.coder, given.data, asked, list, n_tokens=60, batch_size=20)[WHOLE]
    assert {name: outcome.failed for name, outcome in found.items()} == {
        "unanswered": True,
        "broken": True,
        "gated": False,
    }
    said = "http://localhost:1: nobody answers next: start it"
    assert found["unanswered"].entry() == {"unavailable": said, "failed": True}
    partly = {"first": 1.0, "second": None, "unavailable": "two of four answered", "failed": True}
    assert found["broken"].entry() == partly
    assert found["gated"].result is not None
    assert found["gated"].result.tables["letters"].rows == [["a", 0.2]]
    entry = {"evaluations": {name: outcome.entry() for name, outcome in found.items()}}
    assert values_of(entry) == {"first": 1.0, "second": None, "score": None}
    with pytest.raises(
        EvaluationError, match=r"unanswered: .* nobody answers .*; broken: two of four answered"
    ):
        check_failures({"coder": entry})
    assert unavailable(entry) == [
        "unanswered: not evaluated, http://localhost:1: nobody answers next: start it",
        "broken: two of four answered",
        "gated: not evaluated, no letter is known well",
    ]


def test_a_fault_before_anything_is_measured_stops_everything() -> None:
    class Refuses(Evaluation):
        def start(self, context: EvaluationContext) -> Accumulator:
            raise DataError("no such option for this coder")

    given = context(model=False)
    asked = {"refuses": Refuses(ComponentConfig()), "sound": Sound(ComponentConfig())}
    with pytest.raises(DataError, match="no such option"):
        evaluate(given.coder, given.data, asked, list, n_tokens=60, batch_size=20)


class Told(Watch):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []

    def read(self, number: int, names: Sequence[str], seen: int, wanted: int) -> None:
        self.lines.append(("read", number, *names, seen, wanted))

    def has_read(self, number: int, seen: int) -> None:
        self.lines.append(("has read", number, seen))

    def works(self, name: str, done: int, total: int | None) -> None:
        self.lines.append(("works", name, done, total))

    def has_worked(self, name: str) -> None:
        self.lines.append(("has worked", name))


def test_who_watches_is_told_of_every_pass_and_of_long_steps_behind_them() -> None:
    class Twice(Sees):
        def next_pass(self) -> Accumulator | None:
            return Long()

    class Long(Sees):
        def result(self) -> Result:
            return Result({"sum": float(sum(steps([3, 4])))})

    class Again(Evaluation):
        def start(self, context: EvaluationContext) -> Accumulator:
            return Twice()

    given, told = context(model=False), Told()
    asked = {"again": Again(ComponentConfig())}
    outcomes = evaluate(given.coder, given.data, asked, list, n_tokens=60, batch_size=20, watch=told)
    first, second = (
        [*(("read", number, "again", seen, 60) for seen in (0, 20, 40, 60)), ("has read", number, 60)]
        for number in (1, 2)
    )
    quick = [("works", "again", 0, None), ("has worked", "again")]
    long = [("works", "again", 0, None), *(("works", "again", done, 2) for done in (0, 1, 2)), quick[-1]]
    assert told.lines == [*first, *quick, *second, *quick, *long]
    assert outcomes[WHOLE]["again"].entry() == {"sum": 7.0}
    assert list(steps("ab")) == ["a", "b"]  # nobody watches


def test_documents_are_counted_as_far_as_they_are_read() -> None:
    """Each evaluation counts those that it has seen a token of; of vectors without text none are known."""

    class Few(Evaluation):
        def start(self, context: EvaluationContext) -> Accumulator:
            return Sees(1)

    class All(Evaluation):
        def start(self, context: EvaluationContext) -> Accumulator:
            return seen

    asked = {"few": Few(ComponentConfig()), "all": All(ComponentConfig())}
    for model in (True, False):
        given, seen = context(model=model), Sees()
        found = evaluate(given.coder, given.data, asked, list, n_tokens=40, batch_size=20)[WHOLE]
        if model:
            origins = [cast(Origin, observation.origin) for observation in seen.seen]
            read = {int(number) for origin in origins for number in origin.document}
            assert found["all"].n_documents == len(read)
            assert found["few"].n_documents == 2 < len(read)  # a context has two, and is not cut
            assert n_documents(found) == len(read)
        else:
            assert n_documents(found) is None


class Goes(Sees):
    """Goes over the same number of tokens again."""

    def next_pass(self) -> Accumulator | None:
        self.again = Sees(self.n_tokens)
        return self.again


@pytest.mark.parametrize("model", [False, True])
def test_a_second_pass_is_shown_what_the_first_one_was(model: bool) -> None:
    """The coder encodes the 40 tokens once, and whoever comes again sees the very same observations."""
    given = context(model=model)
    asked = {"few": Goes(7), "once": Sees(25), "more": Goes(25), "none": Sees(3)}
    run_passes(given, dict(asked))
    for name in ("few", "more"):
        first, second = asked[name].seen, cast(Sees, asked[name].again).seen
        assert len(first) == len(second)
        assert all(one is other for one, other in zip(first, second, strict=True))
    assert cast(Coder, given.coder).encoded == asked["once"].tokens


def test_data_is_read_again_where_another_pass_wants_other_tokens_or_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for first, second, encoded in (
        (Sees(20, Sees(20)), 20, 20),
        (Sees(20, Sees()), 40, 60),
        (Sees(20, Sees(13)), 13, 33),
    ):
        given = context(model=False)
        run_passes(given, {"it": first})
        assert cast(Sees, first.again).tokens == second
        assert cast(Coder, given.coder).encoded == encoded
    given, first = context(model=False), Goes(20)
    # 20 vectors of 8 float32, and as many reconstructed, are 1280 bytes
    monkeypatch.setattr("qsae_core.evaluation.replay.KEPT_BYTES", 1000)
    run_passes(given, {"it": first})
    assert cast(Sees, first.again).tokens == 20
    assert cast(Coder, given.coder).encoded == 40


def test_what_is_kept_counts_as_what_it_lies_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a large tensor keeps all of it; many rows of one keep it once."""
    monkeypatch.setattr("qsae_core.evaluation.replay.KEPT_BYTES", 4000)
    codes = SparseCodes.from_dense(torch.zeros(1, 2))
    many, different = Replay(100, [100]), Replay(100, [2])
    large = torch.zeros(100, 8)  # 3200 bytes
    for row in range(100):
        one = large[row : row + 1]
        many.add(Observation(one, one, codes, large[0]))
    assert (len(many.observations), many.holds([100])) == (100, True)
    for large in (torch.zeros(100, 8), torch.zeros(100, 8)):
        different.add(Observation(large[:1], large[:1], codes, large[0]))
    assert (different.observations, different.holds([2])) == ([], False)


def test_a_twin_may_be_looked_at_where_there_is_one() -> None:
    class May(Evaluation):
        may_observe = frozenset({"twin"})

        def start(self, context: EvaluationContext) -> Accumulator:
            class Twin(Sees):
                def update(self, observation: Observation) -> None:
                    twins.append(observation.twin_codes)

            return Twin()

    given, asked = context(model=False), {"may": May(ComponentConfig())}
    for twin in (None, given.coder):
        twins: list[object] = []
        outcome = evaluate(given.coder, given.data, asked, list, n_tokens=20, batch_size=20, twin=twin)[WHOLE]
        assert outcome["may"].unavailable is None
        assert [codes is None for codes in twins] == [twin is None]
