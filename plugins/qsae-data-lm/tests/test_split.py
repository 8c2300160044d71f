"""Which side documents are on, and whether a text is known again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsae_data_lm.corpus import Document, hash_of
from qsae_data_lm.dataset_documents import IndexedDocuments, StreamedDocuments
from qsae_data_lm.dataset_rows import RowStream
from qsae_data_lm.documents import Documents, LocalDocuments
from qsae_data_lm.split import Split

from qsae_core.contracts import Overlap

datasets = pytest.importorskip("datasets")

KEYS = ["typing.py", "json/decoder.py", "ast.py"]  # hashes 0.141, 0.114, 0.757


def held(keys: list[str], share: float) -> set[str]:
    split = Split(share, keys)
    return {key for key in keys if split.holds_out(key)}


@pytest.mark.parametrize(
    ("keys", "share", "expected"),
    [
        (KEYS, 0.05, {"typing.py"}),  # the first one, though no hash is so small
        (KEYS, 0.12, {"typing.py"}),  # the second one is not, though its hash is
        (KEYS, 0.8, {"typing.py", "ast.py"}),
        (["ast.py", "ast.py", "json/decoder.py"], 0.12, {"ast.py"}),  # the next one that is not the same
        (["ast.py", "typing.py", "json/decoder.py"], 0.12, {"ast.py", "json/decoder.py"}),
        (["ast.py"], 0.05, {"ast.py"}),
    ],
)
def test_the_first_two_documents_are_on_two_sides(keys: list[str], share: float, expected: set[str]) -> None:
    assert held(keys, share) == expected


@given(
    st.lists(st.integers(0, 30).map(str), min_size=1),
    st.lists(st.integers(0, 30).map(str)),
    st.floats(0.01, 0.9),
)
def test_documents_stay_on_their_side_when_text_is_appended(
    keys: list[str], further: list[str], share: float
) -> None:
    assert held(keys, share) == {key for key in held(keys + further, share) if key in keys}
    assert held(keys, share)
    assert held(keys, share) < set(keys) or len(set(keys)) == 1


def local(texts: list[str], share: float = 0.1) -> LocalDocuments:
    return LocalDocuments([Document(text, text) for text in texts], Split(share, texts), {})


def streamed(texts: list[str], share: float = 0.1) -> StreamedDocuments:
    rows = RowStream(datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset(), "x")
    return StreamedDocuments(rows, document, Split(share), {}, buffer=100)


def indexed(texts: list[str], share: float = 0.1) -> IndexedDocuments:
    return IndexedDocuments(datasets.Dataset.from_dict({"text": texts}), "x", document, Split(share), {})


def document(where: str, row: Mapping[str, str]) -> Document:
    return Document(row["text"], row["text"])


TEXTS = [f"text {n}" for n in range(600)]
OTHERS = [f"other {n}" for n in range(600)]
SAME, NEW, OTHERWISE = Overlap.TRAINING, Overlap.NONE, Overlap.HELD_OUT


@pytest.mark.parametrize(
    ("trained_on", "measured", "expected"),
    [
        (local(TEXTS), local(TEXTS), SAME),
        (local(TEXTS), local(OTHERS), NEW),
        (local(TEXTS), local(TEXTS + OTHERS), SAME),
        (local(TEXTS), local(TEXTS[:300]), SAME),
        (local(TEXTS), local(OTHERS + TEXTS[300:]), OTHERWISE),  # whether its first one was is not recorded
        (local(TEXTS), local(TEXTS, 0.05), SAME),  # fewer of the same
        (local(TEXTS), local(TEXTS, 0.2), OTHERWISE),
        (local(TEXTS), local(TEXTS[300:]), OTHERWISE),  # its first document was trained on
        (streamed(TEXTS), streamed(TEXTS), SAME),
        (streamed(TEXTS), streamed(OTHERS), NEW),
        (streamed(TEXTS), streamed(TEXTS, 0.2), OTHERWISE),
        (streamed(TEXTS), local(TEXTS), OTHERWISE),  # its first document was trained on
        (streamed(TEXTS), indexed(TEXTS), SAME),
        (indexed(TEXTS), streamed(TEXTS), SAME),
        (indexed(TEXTS), indexed(OTHERS), NEW),
    ],
)
def test_a_text_is_known_again(
    trained_on: Documents,
    measured: Documents,
    expected: Overlap,
) -> None:
    record = json.loads(json.dumps(trained_on.held_out_part("text").record()))
    assert measured.held_out_part("text").overlap(record) is expected
    if expected is SAME:  # what that promises: nothing that is held out now was trained on
        trained = {numbered.document.key for numbered in trained_on.training(0, 0, None)}
        assert not trained & {document.key for document in measured.held_out()}


def test_the_documents_that_stand_for_a_text_are_the_last_to_be_held_out() -> None:
    marks = local(TEXTS).held_out_part("text").record()["documents"]
    largest = sorted(map(hash_of, TEXTS))[-64:]
    assert marks == [f"{int(number * 2**48):012x}" for number in largest]
