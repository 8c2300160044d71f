"""Number formats, worked by hand; shards and their checksums."""

from __future__ import annotations

import zlib

import pytest
import torch
from qsae_store.shards import BLOCK, ShardFile, checksums, write_shard
from qsae_store.storage import bytes_per_vector, restore_into, stored

from qsae_core.errors import DataError


def test_int8_by_hand():
    """s = max|x| / 127: 12.7 -> 0.1; 3.14 -> 31.4 -> 31 -> 3.1. A vector of zeros stays one."""
    vectors = torch.tensor([[12.7, -3.14, 0.04], [0.0, 0.0, 0.0], [-254.0, 1.0, 3.1]])
    codes, scales = stored(vectors, "int8")
    assert codes.tolist() == [[127, -31, 0], [0, 0, 0], [-127, 0, 2]]
    assert scales.tolist() == pytest.approx([0.1, 0.0, 2.0])
    back = torch.empty(3, 3)
    restore_into(back, (codes, scales))
    assert back.flatten().tolist() == pytest.approx([12.7, -3.1, 0, 0, 0, 0, -254.0, 0.0, 4.0])


@pytest.mark.parametrize(
    ("storage", "error"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8), ("int8", 1.0)]
)
def test_error_of_each_format(storage, error):
    """Floats err by half a unit of their last place, relative; int8 by half a step, absolute."""
    vectors = torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    columns = stored(vectors, storage)
    back = torch.empty_like(vectors)
    restore_into(back, columns)
    allowed = vectors.abs() * error if storage != "int8" else columns[1][:, None] * (0.5 + 1e-5)
    assert ((back - vectors).abs() <= allowed).all()
    assert sum(column.numel() * column.element_size() for column in columns) == 200 * bytes_per_vector(
        storage, 24
    )


def test_fp16_says_what_it_cannot_hold():
    with pytest.raises(OverflowError, match=r"7e\+04 is more than fp16 holds"):
        stored(torch.tensor([[1.0, 7e4]]), "fp16")


@pytest.fixture
def shard(tmp_path):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(-127, 128, (150, 5), dtype=torch.int8, generator=generator)
    scales = torch.rand(150, generator=generator)
    tensors = {"9.mlp_in": codes, "9.mlp_in.scale": scales, "9.mlp_in.crc32": checksums((codes, scales))}
    path = tmp_path / "training-00000.safetensors"
    write_shard(path, tensors)
    return path, codes, scales


def test_checksums_are_those_of_zlib(shard):
    _, codes, scales = shard
    found = checksums((codes, scales)).tolist()
    assert len(found) == 3
    by_hand = zlib.crc32(scales[128:].numpy().tobytes(), zlib.crc32(codes[128:].numpy().tobytes()))
    assert found[2] == by_hand


def test_rows_are_read_by_their_place(shard):
    path, codes, scales = shard
    with ShardFile(path) as file:
        assert file.shape("9.mlp_in") == (150, 5)
        assert torch.equal(file.rows("9.mlp_in", 3, 11), codes[3:11])
        names = ("9.mlp_in", "9.mlp_in.scale")
        for start, stop in ((0, BLOCK), (BLOCK, 150), (2 * BLOCK, 150)):
            found = file.checked_rows(names, start, stop)
            assert torch.equal(found[0], codes[start:stop])
            assert torch.equal(found[1], scales[start:stop])
        with pytest.raises(DataError, match="has 150 rows, not 151"):
            file.rows("9.mlp_in", 0, 151)
        with pytest.raises(DataError, match=r"no tensor '8\.mlp_in'"):
            file.rows("8.mlp_in")


def test_one_altered_byte_is_seen_in_its_block_alone(shard):
    path, _, _ = shard
    data = bytearray(path.read_bytes())
    begin = len(data) - 150 * 5  # int8 codes come last: the largest types are first in the file
    with ShardFile(path) as file:
        start = file._of("9.mlp_in").start
    data[start + 5 * (BLOCK + 1)] ^= 1
    assert start <= begin + 150 * 5
    path.write_bytes(data)
    with ShardFile(path) as file:
        names = ("9.mlp_in", "9.mlp_in.scale")
        file.checked_rows(names, 0, BLOCK)
        file.checked_rows(names, 2 * BLOCK, 150)
        with pytest.raises(DataError, match="has been altered since it was written"):
            file.checked_rows(names, BLOCK, 2 * BLOCK)


@pytest.mark.parametrize("cut", [1, 700])
def test_a_truncated_shard_is_refused(shard, cut):
    path, _, _ = shard
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="bytes and should have"):
        ShardFile(path)


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 64, (8).to_bytes(8, "little") + b"not json"])
def test_what_is_no_shard_is_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(DataError, match="is no shard of a store"):
        ShardFile(path)
