"""Documents, their split, and how they become contexts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsae_data_lm.corpus import Document, builtin_documents, is_held_out
from qsae_data_lm.documents import LocalDocuments
from qsae_data_lm.packing import COUNTED, Entry, Frame, Packer, pack
from qsae_data_lm.split import Split
from qsae_data_lm.text_files import chunks, read_text

from qsae_core.errors import DataError


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int32)


def test_packing_by_hand() -> None:
    documents = [ids(1, 2), ids(3, 4, 5, 6)]
    packed = pack(documents, Frame(4, first=0, separator=0))
    assert packed.ids.tolist() == [[0, 1, 2, 0], [0, 3, 4, 5]]
    assert packed.documents.tolist() == [[-1, 0, 0, -1], [-1, 1, 1, 1]]
    assert pack(documents, Frame(3)).ids.tolist() == [[1, 2, 3], [4, 5, 6]]
    encoder = Frame(5, first=8, last=9, separator=9)
    assert pack(documents, encoder).ids.tolist() == [[8, 1, 2, 9, 9], [8, 3, 4, 5, 9]]
    assert pack([ids(1, 2)], Frame(4)).ids.shape == (0, 4)


def test_a_segment_begins_with_a_separator_or_where_there_is_none_with_a_document() -> None:
    documents = [ids(1, 2), ids(3), ids(4, 5, 6, 7, 8)]
    # 0 1 2 0 3 0 | 0 4 5 6 7 8: the separator of the last document ends the first context
    assert pack(documents, Frame(6, first=0, separator=0)).segments.tolist() == [
        [0, 0, 0, 1, 1, 2],
        [0, 0, 0, 0, 0, 0],
    ]
    # 0 1 2 | 0 0 3 | 0 0 4 | 0 5 6 | 0 7 8: a BOS before a separator is a segment of its own
    segments = pack(documents, Frame(3, first=0, separator=0)).segments
    assert segments.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert pack(documents, Frame(4)).segments.tolist() == [[0, 0, 1, 2], [0, 0, 0, 0]]


def test_what_only_is_read_keeps_its_place_wherever_documents_are_cut() -> None:
    counted = np.array([False, True, True, False, True])
    entries = [Entry(1, 7, ids(1, 2, 3, 4, 5), counted), Entry(2, 9, ids(6))]
    contexts = Packer(entries, Frame(4, first=0, separator=0)).take(9)
    assert contexts.ids.tolist() == [[0, 1, 2, 3], [0, 4, 5, 0]]
    assert (contexts.kinds == COUNTED).tolist() == [[False, False, True, True], [False, False, True, False]]
    assert contexts.documents.tolist() == [[-1, 7, 7, 7], [-1, 7, 7, -1]]


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
    position, remaining, found, owners = None, None, [], []
    for take in takes:  # each from a new packer, which knows two values of the old one alone
        documents_left = (Entry(i + 1, i, arrays[i]) for i in range(position or 0, len(arrays)))
        packer = Packer(documents_left, frame, position, remaining)
        contexts = packer.take(take)
        found += contexts.ids.tolist()
        owners += contexts.owners.tolist()
        position, remaining = packer.position, packer.remaining
    assert found == whole.ids[: sum(takes)].tolist()
    assert owners == whole.owners[: sum(takes)].tolist()
    stream = [token for i, tokens in enumerate(documents) for token in ([100] if i else []) + tokens]
    assert whole.ids[:, 1:].ravel().tolist() == stream[: len(whole) * frame.room]


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
    first, second = ([n.document.key for n in local.training(0, epoch, None)] for epoch in (0, 1))
    held_out = [d.key for d in local.held_out()]
    assert sorted(first) == sorted(second)
    assert first != second
    assert sorted(first + held_out) == sorted(d.key for d in documents)
    assert held_out == [d.key for d in documents if is_held_out(d.key, 0.1)]
    assert local.describe() == {"documents": 300, "held_out_documents": len(held_out)}


def test_an_epoch_can_be_entered_at_any_position() -> None:
    documents = LocalDocuments([Document(f"text {n}", "text") for n in range(300)], Split(0.1), {})
    whole = list(documents.training(3, 1, None))
    for stop in (0, 7, 120, len(whole) - 1):
        assert list(documents.training(3, 1, whole[stop].behind)) == whole[stop + 1 :]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_have_parts_of_the_text_that_are_the_whole_together(world: int) -> None:
    documents = LocalDocuments([Document(f"text {n}", "text") for n in range(300)], Split(0.1), {})
    whole = {n.number for n in documents.training(3, 1, None)}
    parts = [{n.number for n in documents.training(3, 1, None, (rank, world))} for rank in range(world)]
    assert set().union(*parts) == whole
    assert sum(map(len, parts)) == len(whole)
    assert min(map(len, parts)) > 0.8 * len(whole) / world


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
