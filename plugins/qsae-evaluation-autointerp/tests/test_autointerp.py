"""The evaluation ``autointerp``: made-up latents whose scores are known, properties, then a real coder."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_autointerp import AutointerpConfig
from qsae_evaluation_autointerp.choice import hard_negatives
from qsae_evaluation_autointerp.detection import MOST_FAILED, Task, tasks
from qsae_evaluation_autointerp.evaluation import Autointerp
from qsae_evaluation_autointerp.judge import Example, Judge, Window

from qsae_cli.main import cli
from qsae_core.conformance.evaluation import contexts
from qsae_core.errors import DataError
from qsae_core.evaluation.evaluate import evaluate
from qsae_core.evaluation.stored import load_result

Made = Any
"""The class in conftest.py."""
PAIR = 20
"""The latent that fires on a token behind a certain one alone; those before it fire on a token each."""
SMALL = {"before": 3, "after": 2, "latents": 100}


@pytest.fixture(scope="module")
def read(made: Made) -> Any:
    return made.read(**SMALL)


@pytest.fixture(scope="module")
def shown(read: Any) -> list[Task]:
    found = tasks(read)
    assert all(isinstance(task, Task) for task in found)
    return cast(list[Task], found)


def test_one_token_a_pair_and_random_positions(read: Any) -> None:
    """A latent that fires on one token: 1. One that fires on a token behind another: 1, though windows with
    the token alone are among those where it is silent. Random positions, and others' explanations: .5."""
    result = read.result()
    score, control = result.per_latent["score"], result.per_latent["control"]
    assert score[:PAIR].tolist() == [1.0] * PAIR
    assert float(score[PAIR]) == 1.0
    labels = {row[0]: row for row in result.tables["labels"].rows}
    columns = result.tables["labels"].columns
    assert labels[4][columns.index("label")] == "fires on ' w14'"
    assert labels[PAIR][columns.index("label")] == "fires on ' w30' after ' w3'"
    assert labels[4][columns.index("n_hard_negatives")] == 0  # it fires wherever its token is
    assert labels[PAIR][columns.index("n_hard_negatives")] == 5
    random = score[PAIR + 1 :]
    assert float(random.mean()) == pytest.approx(0.5, abs=0.04)
    assert float(control.mean()) == pytest.approx(0.5, abs=0.04)
    assert result.values["control"] == pytest.approx(float(control.mean()), abs=1e-12)
    assert result.chance["balanced_accuracy"] == result.values["control"]
    assert result.how == "judged by rule"
    assert result.values["n_scored"] == len(score)
    assert result.values["n_failed"] == 0


def test_no_document_explains_and_scores(shown: list[Task]) -> None:
    explaining = {e.window.document for task in shown for e in task.examples}
    scoring = {w.document for task in shown for w in task.windows}
    assert len(explaining) > 50
    assert len(scoring) > 50
    assert not explaining & scoring


def test_windows_are_what_they_are_taken_for(made: Made, shown: list[Task]) -> None:
    """Compared with the dense latents; a window is of one document and has no special tokens."""
    places = _places(made)
    for task in shown:
        assert len(task.examples) == 20
        assert sum(task.fires) == 10
        assert len(task.fires) == 20
        at = [places[window] for window in task.windows]
        assert len(set(at)) == 20
        activations = [made.latents[c, start:end, task.latent] for c, start, end in at]
        assert [bool((a != 0).any()) for a in activations] == task.fires
        for window, activation in task.examples:
            context, start, end = places[window]
            expected = made.latents[context, start:end, task.latent]
            assert torch.tensor(activation).equal(expected)
            assert 0 not in window.ids
            assert bool((expected != 0).any())


def _places(made: Made) -> dict[Window, tuple[int, int, int]]:
    """Every window of six tokens or fewer -> context, start, end."""
    found = {}
    documents = cast(torch.Tensor, made.tokens.documents).tolist()
    for c, ids in enumerate(made.tokens.ids.tolist()):
        for start in range(1, len(ids)):
            for end in range(start + 1, min(start + 6, len(ids)) + 1):
                if documents[c][start] != documents[c][end - 1]:
                    break
                some = tuple(ids[start:end])
                window = Window(some, tuple(f" w{i}" for i in some), documents[c][start])
                found[window] = c, start, end
    return found


def test_hard_negatives_have_the_token(shown: list[Task]) -> None:
    (pair,) = [task for task in shown if task.latent == PAIR]
    silent = [w for w, fires in zip(pair.windows, pair.fires, strict=True) if not fires]
    assert sum(30 in window.ids for window in silent) >= pair.n_hard == 5


def test_how_many_are_hard() -> None:
    """The token is in all windows where it fires, and in 30% of any: 5 of 10 at most.
    In 51% of those where it fires: h + (10 - h) .3 = 5.1 for h = 3. In as many as anywhere: none."""
    assert hard_negatives(1, 0.3, 10, 5) == 5
    assert hard_negatives(0.51, 0.3, 10, 5) == 3
    assert hard_negatives(0.5, 0.3, 10, 5) == 2
    assert hard_negatives(0.3, 0.3, 10, 5) == 0
    assert hard_negatives(0.2, 0.3, 10, 5) == 0
    assert hard_negatives(1, 1, 10, 5) == 0


def test_strongest_and_parts_by_rank(made: Made, shown: list[Task]) -> None:
    """Of latent 0: the ten strongest of the explaining half, then one of each part of the others."""
    (task,) = [task for task in shown if task.latent == 0]
    half = {e.window.document for t in shown for e in t.examples}
    documents = cast(torch.Tensor, made.tokens.documents)
    explains = torch.isin(documents, torch.tensor(sorted(half)))
    largest = made.latents[..., 0][explains].sort(descending=True).values
    peaks = [max(e.activations) for e in task.examples]
    assert min(peaks[:10]) >= float(largest[12])  # two of a stretch count once
    assert sorted(peaks[:10], reverse=True) == peaks[:10]
    others = peaks[10:]
    assert others[0] > others[-1]
    assert others[0] <= min(peaks[:10])


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_the_batch_size_does_not_matter(made: Made, read: Any, at_once: int) -> None:
    _expect_same(made.read(at_once, **SMALL).result(), read.result())


def test_parts_merge_into_the_whole(made: Made, read: Any) -> None:
    _expect_same(made.read(parts=3, **SMALL).result(), read.result())


def _expect_same(result: Any, expected: Any) -> None:
    assert result.values == expected.values
    assert result.tables == expected.tables
    for name, column in expected.per_latent.items():
        assert torch.equal(result.per_latent[name].nan_to_num(-1), column.nan_to_num(-1))


def test_too_few_windows_are_said_to_be_too_few(made: Made) -> None:
    """Latent 0 never fires, 1 in the explaining half alone, 2 in the scoring half alone, 3 nearly always."""
    half = {e.window.document for t in tasks(made.read(**SMALL)) for e in t.examples}  # type: ignore[union-attr]
    explains = torch.isin(cast(torch.Tensor, made.tokens.documents), torch.tensor(sorted(half)))
    latents = torch.zeros(*made.tokens.ids.shape, 5)
    latents[..., 1] = explains.float()
    latents[..., 2] = ~explains
    latents[..., 3] = 1
    latents[..., 4] = made.tokens.ids == 12
    latents *= made.tokens.counted[..., None]
    result = type(made)(made.tokens.ids, latents).read(**SMALL).result()
    assert dict(result.tables["left_out"].rows) == {
        "it never fires": 1,
        "too few windows in which it fires, in the documents that explain": 1,
        "too few windows in which it fires, in the documents that score": 1,
        "too few windows in which it is silent, in the documents that score": 1,
    }
    assert result.values["n_eligible"] == 2
    assert result.values["n_scored"] == 1
    assert result.values["balanced_accuracy"] is None
    assert result.per_latent["score"].isnan().tolist() == [True] * 4 + [False]
    assert result.values["control"] is None  # there is no other latent's explanation


def test_nothing_to_judge(made: Made) -> None:
    result = type(made)(made.tokens.ids, torch.zeros(*made.tokens.ids.shape, 3)).read(**SMALL).result()
    assert result.values["n_scored"] == 0
    assert result.values["gap"] is None
    assert dict(result.tables["left_out"].rows) == {"it never fires": 3}


def test_fewer_latents_are_drawn_and_the_others_counted(made: Made, read: Any) -> None:
    some = made.read(**{**SMALL, "latents": 7}).result()
    assert some.values["n_scored"] == 7
    assert some.values["n_eligible"] == read.result().values["n_eligible"]
    assert dict(some.tables["left_out"].rows) == {"others were drawn": some.values["n_eligible"] - 7}
    scored = ~some.per_latent["score"].isnan()
    assert scored.nonzero()[:, 0].tolist() != list(range(7))
    assert some.per_latent["score"][scored].equal(read.result().per_latent["score"][scored])


class Fixed(Judge):
    """Gives every window the same answer."""

    name = "fixed"

    def __init__(self, answer: float | None, label: str = "words", *, graded: bool = False) -> None:
        self.answer, self.label = answer, label
        self.graded = graded  # type: ignore[misc]
        self.explained = 0

    def explain(self, examples: Sequence[Example]) -> str:
        self.explained += 1
        return f"{self.label} {self.explained}" if self.label else ""

    def detect(self, explanation: str, windows: Sequence[Window]) -> list[float | None]:
        return [self.answer] * len(windows)


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_a_judge_that_does_not_look_cannot_tell(made: Made, answer: float) -> None:
    result = made.read(judge=Fixed(answer, graded=True), **SMALL).result()
    assert result.values["balanced_accuracy"] is None
    assert result.values["gap"] == result.values["gap_low"] == result.values["gap_high"] == 0
    assert result.values["control"] == 0.5
    assert result.values["auc"] == 0.5
    assert "cannot tell" in str(result.reason)
    assert not result.failed
    assert result.how == "judged by fixed"
    # counting tokens tells some of them
    assert cast(float, result.baseline["balanced_accuracy"]) > 0.6


def test_answers_that_cannot_be_read(made: Made) -> None:
    """More than half of them: the judge is not asked on, what it said is kept, and the error says so."""
    judge = Fixed(None)
    judge.unreadable = "I would say yes!"
    result = made.read(judge=judge, **SMALL).result()
    assert result.failed
    assert "100 of 100" in str(result.reason)
    assert "I would say yes!" in str(result.reason)
    assert result.values["n_scored"] == 3
    assert result.values["n_failed"] == 100  # 20 of each, and 20 of the controls of all but the first
    assert result.values["gap"] == 0
    assert 0 < MOST_FAILED < 1


def test_an_explanation_that_cannot_be_read(made: Made) -> None:
    result = made.read(judge=Fixed(1.0, label=""), **SMALL).result()
    assert result.failed
    assert result.values["n_scored"] == 3
    assert result.values["n_failed"] == 60
    assert result.values["control"] is None


def test_unavailable(made: Made) -> None:
    evaluations = {"it": Autointerp(AutointerpConfig())}
    reasons = {}
    for what, context in contexts():
        outcomes = evaluate(context.coder, context.data, evaluations, list, n_tokens=96, batch_size=32)
        reasons[what] = outcomes[""]["it"].unavailable
    assert "0 latents are too few" in str(reasons["data with a language model"])
    assert "no language model" in str(reasons["data without one"])

    class Unreadable:
        def decode(self, ids: Any) -> str:
            raise DataError("the tokenizer is not known")

    reason = Autointerp(AutointerpConfig()).unavailable(made.context(Unreadable))
    assert reason == "the tokenizer is not known"


TRAIN = shlex.split(
    "train --steps 20 --batch-size 256 --eval-tokens 8192 --eval-every 0 --sae topk --n-latents 256 --k 8 "
    "--buffer-tokens 4096 --threads 1 --eval autointerp --name it"
)


def test_a_run_on_the_built_in_language_model(tmp_path: pathlib.Path) -> None:
    """Latents of an early layer go by tokens: a rule on tokens tells them."""
    result = CliRunner().invoke(cli, [*TRAIN, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (place,) = tmp_path.glob("it/*/*/evaluations/autointerp")
    stored, about = load_result(place)
    assert about["version"] == 2
    assert cast(float, stored.values["n_scored"]) > 20
    assert cast(float, stored.values["gap_low"]) > 0
    assert 0.55 < cast(float, stored.values["balanced_accuracy"]) < 1
    label = stored.tables["labels"].columns.index("label")
    assert all(str(row[label]).startswith("fires on ") for row in stored.tables["labels"].rows)
    assert stored.reason is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{use: autointerp, judge: hf}", "judge 'hf' is given no model"),
        ("{use: autointerp, judge: endpoint, model: m}", "judge 'endpoint' is given no url"),
        ("{use: autointerp, judge: endpoint, model: m, url: 'http://me:word@host/v1'}", "with a password"),
        ("{use: autointerp, judge: endpoint, model: m, url: localhost}", "none that a judge can be asked at"),
        ("{use: autointerp, negatives: 0, hard_negatives: 0}", "are both 0"),
    ],
)
def test_options_that_do_not_fit(options: str, said: str, tmp_path: pathlib.Path) -> None:
    command = [*TRAIN[:-4], "--set", f"evaluate=[{options}]", "--dry-run", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert said in result.output
