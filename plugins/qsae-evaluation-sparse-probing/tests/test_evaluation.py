"""The evaluation as a whole: a text in contexts, codes that know it, batches of several sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_sparse_probing import SparseProbingConfig
from qsae_evaluation_sparse_probing.evaluation import Reading, SparseProbing
from qsae_evaluation_sparse_probing.tasks import TASKS

from qsae_cli.main import cli
from qsae_core.contracts import Observation, Origin, Result, SparseCodes, TokenBatch
from qsae_core.errors import DataError

FUNCTION = """
def name_{0}(self, count=3{0}, key=(1, [2, (3, 1{0})])):
    # a remark on {0}
    text = "some words" + str(count)
    for item in self.items_{0}:
        other.thing += text if item else (item, [key, (key, count)])
    return self.total_{0}, text.strip(), 12{0}
"""
DOCUMENTS = ["".join(FUNCTION.format(f"{d}{i}") for i in range(4)) for d in range(9)] + [
    "No Python here.\n" * 9
]
CONTEXT, BOS, LATENTS = 40, 0, 12
OPTIONS = SparseProbingConfig(
    k=(1, 2), train_examples=120, test_examples=60, least_examples=5, resamples=20, controls=1
)


def text() -> TokenBatch:
    """Every document, a character a token, in contexts that begin with a special token."""
    stream = [(ord(c), number) for number, document in enumerate(DOCUMENTS) for c in document]
    room = CONTEXT - 1
    rows = [stream[i : i + room] for i in range(0, len(stream) - room, room)]
    ids = torch.tensor([[BOS, *(token for token, _ in row)] for row in rows])
    documents = torch.tensor([[-1, *(number for _, number in row)] for row in rows])
    return TokenBatch(ids, documents >= 0, torch.ones_like(ids, dtype=torch.bool), documents)


def decode(ids: Any) -> str:
    return "".join(chr(int(i)) for i in ids)


def observed(contexts: TokenBatch, first: int) -> Observation:
    """Latent 7 fires on digits, and others on something of a character; vectors are bits of it."""
    row, position = contexts.counted.nonzero(as_tuple=True)
    ids = contexts.ids[contexts.counted]
    codes = torch.zeros(len(ids), LATENTS)
    codes[torch.arange(len(ids)), ids % 5] = ids.float() / 64
    codes[:, 7] = ((ids >= ord("0")) & (ids <= ord("9"))).float() * 3
    bits = (ids[:, None] >> torch.arange(7) & 1).float()
    origin = Origin(contexts.documents[contexts.counted], row + first, position)  # type: ignore[index]
    codes_of = SparseCodes.from_dense(codes)
    return Observation(
        bits, bits, codes_of, torch.ones(LATENTS), ids, inputs=bits, tokens=contexts, origin=origin
    )


def batches(at_once: int) -> Iterator[Observation]:
    whole = text()
    for start in range(0, len(whole.ids), at_once):
        yield observed(whole.rows(slice(start, start + at_once)), start)


def started() -> Reading:
    context = SimpleNamespace(
        data=SimpleNamespace(language_model=lambda: SimpleNamespace(decode=decode)),
        coder=SimpleNamespace(n_latents=LATENTS),
    )
    return SparseProbing(OPTIONS).start(cast(Any, context))


def outcome(at_once: int) -> Result:
    reading = started()
    for observation in batches(at_once):
        reading.update(observation)
    probing = reading.next_pass()
    for observation in batches(at_once):
        probing.update(observation)
    return probing.result()


@pytest.fixture(scope="module")
def found() -> Result:
    return outcome(7)


def row_of(result: Result, task: str, k: int = 1) -> dict[str, Any]:
    table = result.tables["tasks"]
    (row,) = [row for row in table.rows if row[:2] == [task, k]]
    return dict(zip(table.columns, row, strict=True))


def same(a: Result, b: Result) -> None:
    assert a.values.keys() == b.values.keys()
    for name, value in a.values.items():
        assert value == pytest.approx(b.values[name], abs=1e-12), name
    for name, table in a.tables.items():
        for mine, its in zip(table.rows, b.tables[name].rows, strict=True):
            assert list(mine) == [c if isinstance(c, str) else pytest.approx(c, abs=1e-12) for c in its]
    assert torch.equal(
        a.per_latent["largest_difference"].nan_to_num(-1), b.per_latent["largest_difference"].nan_to_num(-1)
    )


def test_what_is_found(found):
    assert found.values["n_documents"] == 10
    assert found.reason is None
    assert found.values["n_documents_not_python"] == 1
    row = row_of(found, "number")
    (best,) = [r for r in found.tables["latents"].rows if r[0] == "number" and r[1] == 1]
    assert (best[2], best[4]) == (7, 1.0)  # it fires on every digit, of numbers too
    assert row["dense_accuracy"] > 0.6
    assert 0.6 < row["accuracy"] <= 1
    assert row["positives"] > 100
    assert row["test_documents"] > 1
    # a row for each task and k
    assert len(found.tables["tasks"].rows) == len(TASKS) * 2
    # nothing of a character tells where in the text it stands
    assert row_of(found, "comment")["accuracy"] < 0.75


def test_special_tokens_are_counted_nowhere(found):
    counted = int(text().counted.sum())
    assert found.values["n_tokens"] == counted == text().ids.numel() - len(text().ids)


def test_tokens_that_are_only_read_are_in_no_task(found):
    whole = text()
    read = whole.ids == ord("3")  # they have no vector: every digit that is a 3
    contexts = dataclasses.replace(whole, counted=whole.counted & ~read)
    reading = started()
    reading.update(observed(contexts, 0))
    probing = reading.next_pass()
    probing.update(observed(contexts, 0))
    result = probing.result()
    assert result.values["n_tokens"] == found.values["n_tokens"] - int(read.sum())
    # yet they are part of the text, which stays Python
    assert result.values["n_documents_not_python"] == 1
    assert 0 < row_of(result, "number")["positives"] < row_of(found, "number")["positives"]
    assert result.values["dense_accuracy"] == pytest.approx(found.values["dense_accuracy"], abs=0.1)


@pytest.mark.parametrize("at_once", [1, 64])
def test_the_batch_size_does_not_matter(found, at_once):
    same(outcome(at_once), found)


def test_merged_in_any_order(found):
    halves = [started(), started()]
    for number, observation in enumerate(batches(7)):
        halves[number % 2].update(observation)
    halves[1].merge(halves[0])
    second = [halves[1].next_pass(), halves[1].next_pass()]
    for number, observation in enumerate(batches(7)):
        second[number % 2].update(observation)
    second[1].merge(second[0])
    same(second[1].result(), found)


def test_text_that_is_no_python_has_no_values():
    contexts = text()
    english = dataclasses.replace(contexts, ids=torch.where(contexts.ids > 0, ord("a"), 0))
    reading = started()
    reading.update(observed(english, 0))
    probing = reading.next_pass()
    probing.update(observed(english, 0))
    result = probing.result()
    assert result.values["n_documents_not_python"] == 10
    assert result.values["n_tasks_left_out"] == len(TASKS)
    assert result.values["top_1_accuracy"] is None
    assert result.values["dense_accuracy"] is None
    least = "no task has 5 tokens of each class to train on, to validate on and to test on"
    assert str(result.reason).startswith(least)
    n_tokens = int(contexts.counted.sum())
    assert f"{n_tokens:,} tokens of 10 documents were read, 10 of which are not Python" in str(result.reason)
    assert row_of(result, "string")["positives"] == 0


def reason(model: Any, documents: torch.Tensor | None) -> str | None:
    contexts = dataclasses.replace(text().rows(slice(1)), documents=documents)
    data = SimpleNamespace(
        language_model=lambda: model, held_out_contexts=lambda n, b: iter([(contexts, None)])
    )
    return SparseProbing(OPTIONS).unavailable(cast(Any, SimpleNamespace(data=data)))


def test_why_it_is_not_available():
    def unknown(ids: Any) -> str:
        raise DataError("the tokenizer of the language model m is not known")

    known = SimpleNamespace(decode=decode)
    assert reason(known, text().documents) is None
    assert "which document" in str(reason(known, None))
    said = reason(SimpleNamespace(decode=unknown), text().documents)
    assert (
        said
        == "the text cannot be had, and with it no label: the tokenizer of the language model m is not known"
    )


@pytest.mark.slow
def test_on_the_built_in_language_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = [
        "--data",
        "lm",
        "--sae",
        "topk",
        "--n-latents",
        "64",
        "--k",
        "8",
        "--steps",
        "20",
        "--batch-size",
        "256",
    ]
    small = ["--set", "evaluate=[{use: sparse-probing, tokens: 6000, k: [1], controls: 1, resamples: 10}]"]
    done = CliRunner().invoke(cli, ["train", *train, "--buffer-tokens", "4096", *small], prog_name="qsae")
    assert done.exit_code == 0, done.output
    assert "top_1_score" in done.output
    assert "n_documents_not_python" in done.output
