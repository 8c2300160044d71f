"""Documents, their split, and how they become contexts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsae_data_lm.corpus import Document, builtin_documents, is_held_out
from qsae_data_lm.documents import WINDOW, LocalDocuments, StreamedDocuments
from qsae_data_lm.packing import Frame, Packer, pack
from qsae_data_lm.split import Split
from qsae_data_lm.text_files import chunks, read_text

from qsae_core.errors import DataError


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int32)


def test_packing_by_hand() -> None:
    documents = [ids(1, 2), ids(3, 4, 5, 6)]
    assert pack(documents, Frame(4, first=0, separator=0)).tolist() == [[0, 1, 2, 0], [0, 3, 4, 5]]
    assert pack(documents, Frame(3)).tolist() == [[1, 2, 3], [4, 5, 6]]
    encoder = Frame(5, first=8, last=9, separator=9)
    assert pack(documents, encoder).tolist() == [[8, 1, 2, 9, 9], [8, 3, 4, 5, 9]]
    assert pack([ids(1, 2)], Frame(4)).shape == (0, 4)


@given(
    st.lists(st.lists(st.integers(1, 99), max_size=9), max_size=8),
    st.integers(3, 7),
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
def test_no_token_is_lost_wherever_the_stream_is_cut(
    documents: list[list[int]], context: int, takes: list[int]
) -> None:
    arrays = [ids(*tokens) for tokens in documents]
    frame = Frame(context, first=0, separator=100)
    whole = pack(arrays, frame)
    position, remaining, found = 0, None, []
    for take in takes:  # each from a new packer, which knows two numbers of the old one alone
        documents_left = ((i + 1, arrays[i]) for i in range(position, len(arrays)))
        packer = Packer(documents_left, frame, position, remaining)
        found += packer.take(take).tolist()
        position, remaining = packer.position, packer.remaining
    assert found == whole[: sum(takes)].tolist()
    stream = [token for i, tokens in enumerate(documents) for token in ([100] if i else []) + tokens]
    assert whole[:, 1:].ravel().tolist() == stream[: len(whole) * frame.room]


def test_the_split_hangs_on_the_key_alone_and_grows_with_the_share() -> None:
    keys = [f"module_{n}.py" for n in range(4000)]
    small, large = ({k for k in keys if is_held_out(k, share)} for share in (0.05, 0.2))
    assert small < large
    assert len(small) == pytest.approx(200, abs=45)
    assert is_held_out("typing.py", 0.141)  # its hash is 0.1408... of 2^64, here and everywhere
    assert not is_held_out("typing.py", 0.140)


def test_built_in_documents_are_source_and_language_reference() -> None:
    documents = {d.key: d.text for d in builtin_documents()}
    assert "class JSONDecoder" in documents["json/decoder.py"]
    assert documents["pydoc_data/topics.py#assert"].startswith('The "assert" statement\n')
    assert not [key for key in documents if "/test/" in key or key.startswith(("test/", "encodings/"))]
    assert sum(map(len, documents.values())) > 5_000_000


def test_every_training_document_comes_once_an_epoch_and_never_a_held_out_one() -> None:
    documents = [Document(f"d{n}", f"text {n}") for n in range(300)]
    local = LocalDocuments(documents, Split(0.1), {})
    first, second = ([d.key for _, d in local.training(0, epoch, 0)] for epoch in (0, 1))
    held_out = [d.key for d in local.held_out()]
    assert sorted(first) == sorted(second)
    assert first != second
    assert sorted(first + held_out) == sorted(d.key for d in documents)
    assert held_out == [d.key for d in documents if is_held_out(d.key, 0.1)]
    assert local.describe() == {"documents": 300, "held_out_documents": len(held_out)}


@pytest.mark.parametrize("kind", ["local", "streamed"])
def test_an_epoch_can_be_entered_at_any_position(kind: str) -> None:
    texts = [f"text {n}" for n in range(2 * WINDOW + 300)]
    documents = (
        LocalDocuments([Document(x, x) for x in texts], Split(0.1), {})
        if kind == "local"
        else StreamedDocuments(lambda start: iter(texts[start:]), Split(0.1), {})
    )
    whole = list(documents.training(3, 1, 0))
    for stop in (0, 7, 1200, len(whole) - 1):
        assert list(documents.training(3, 1, whole[stop][0])) == whole[stop + 1 :]


def test_a_stream_is_read_only_as_far_as_needed() -> None:
    read: list[int] = []

    def endless(start: int) -> Iterator[str]:
        for n in count(start):
            read.append(n)
            yield f"document {n}"

    documents = StreamedDocuments(endless, Split(0.1), {})
    assert len(list(islice(documents.training(0, 0, 0), 1500))) == 1500
    assert len(read) <= 2 * WINDOW
    assert len(list(islice(documents.held_out(), 10))) == 10


@given(st.text(alphabet="ab \n", max_size=400))
def test_chunks_joined_are_the_text(text: str) -> None:
    parts = list(chunks(text, size=20))
    assert "".join(parts).split() == text.split()
    assert all(0 < len(part) <= 40 for part in parts)


def test_chunks_end_at_blank_lines() -> None:
    paragraph = "0123456789\n" * 3 + "\n"
    assert list(chunks(paragraph * 4, size=50)) == [paragraph * 2, paragraph * 2]


def test_a_folder_is_read_without_hidden_and_binary_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / "picture.bin").write_bytes(b"\x89\0\1")
    documents, description = read_text(str(tmp_path))
    assert [d.text for d in documents] == ["first", "second"]
    assert description == {"text": str(tmp_path), "files": 2, "binary_files_left_out": 1}


def test_text_that_cannot_be_read_is_an_error_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        read_text(str(tmp_path / "absent.txt"))
    with pytest.raises(DataError, match="no text in"):
        read_text(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), os.devnull):
        with pytest.raises(DataError, match="a pipe or a device"):
            read_text(path)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="no text in"):
        read_text(str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="byte 0xe9 at position 3") as caught:
        read_text(str(tmp_path))
    assert caught.value.where == str(tmp_path / "latin.txt")
