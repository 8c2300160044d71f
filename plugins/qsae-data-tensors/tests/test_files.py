"""What is read from each format, and what is said of files that cannot be read."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from qsae_data_tensors import TensorsConfig
from qsae_data_tensors.chunks import Chunks
from qsae_data_tensors.source import TensorsSource
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.errors import DataError

FORMATS = [".pt", ".pth", ".safetensors", ".npy"]


def write(path: pathlib.Path, tensor: Tensor) -> pathlib.Path:
    if path.suffix in (".pt", ".pth"):
        torch.save(tensor, path)
    elif path.suffix == ".safetensors":
        save_file({"hidden": tensor}, path)
    else:
        np.save(path, tensor.numpy())
    return path


def read_all(path: pathlib.Path, key: str | None = None) -> Tensor:
    chunks = Chunks(str(path), key)
    return read(chunks, 0, chunks.rows)


def read(chunks: Chunks, start: int, stop: int) -> Tensor:
    rows = torch.empty(stop - start, chunks.width)
    chunks.read_into(rows, start)
    return rows


def refusal(path: pathlib.Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        TensorsSource(TensorsConfig(path=str(path), **options))
    return str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_sequences_are_flattened_to_rows(tmp_path: pathlib.Path, suffix: str) -> None:
    """2 sequences of 3 positions: row 4 is position 1 of sequence 1."""
    tensor = torch.arange(12.0).reshape(2, 3, 2)
    rows = read_all(write(tmp_path / f"x{suffix}", tensor))
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert rows[4].tolist() == tensor[1, 1].tolist()


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_range_of_rows_of_sequences(tmp_path: pathlib.Path, suffix: str) -> None:
    tensor = torch.randn(4, 5, 3)
    chunks = Chunks(str(write(tmp_path / f"x{suffix}", tensor)), None)
    flat = tensor.reshape(20, 3)
    for start in range(20):
        for stop in range(start + 1, 21):
            assert torch.equal(read(chunks, start, stop), flat[start:stop])


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_becomes_float32(tmp_path: pathlib.Path, suffix: str, dtype: torch.dtype) -> None:
    if suffix == ".npy" and dtype is torch.bfloat16:
        pytest.skip("numpy has no bfloat16")
    tensor = torch.tensor([[1.5, -2.25], [3.0, 1 / 3]], dtype=dtype)
    rows = read_all(write(tmp_path / f"x{suffix}", tensor))
    assert rows.dtype is torch.float32
    assert torch.equal(rows, tensor.float())


def test_numpy_byte_orders_and_layouts(tmp_path: pathlib.Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    for i, variant in enumerate([array.astype(">f4"), np.asfortranarray(array), array.astype("<f2")]):
        np.save(tmp_path / f"{i}.npy", variant)
        assert read_all(tmp_path / f"{i}.npy").tolist() == array.tolist()


def test_chunks_follow_one_another_in_name_order(tmp_path: pathlib.Path) -> None:
    for name, value, rows in (("b", 1.0, 3), ("a", 0.0, 2), ("c", 2.0, 1)):
        write(tmp_path / f"{name}.npy", torch.full((rows, 2), value))
    (tmp_path / "notes.txt").write_text("left out")
    chunks = Chunks(str(tmp_path), None)
    assert read(chunks, 0, 6)[:, 0].tolist() == [0, 0, 1, 1, 1, 2]
    assert read(chunks, 1, 3)[:, 0].tolist() == [0, 1]
    assert chunks.left_out == ["notes.txt"]


def test_more_chunks_than_stay_open(tmp_path: pathlib.Path) -> None:
    for i in range(70):
        write(tmp_path / f"{i:03}.npy", torch.full((1, 2), float(i)))
    assert read_all(tmp_path)[:, 1].tolist() == list(range(70))


def test_a_named_tensor(tmp_path: pathlib.Path) -> None:
    tensors = {"a": torch.zeros(3, 2), "b": torch.ones(3, 2)}
    torch.save({**tensors, "layer": 3}, tmp_path / "x.pt")
    save_file(tensors, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        assert read_all(tmp_path / name, "b").tolist() == [[1, 1]] * 3
        message = refusal(tmp_path / name)
        assert f"{name}: the file holds 2 tensors" in message
        assert "allowed: a, b" in message
        assert "--data.key" in message
        assert "holds no tensor 'c'" in refusal(tmp_path / name, key="c")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("bad", "name"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")]
)
def test_not_finite_names_file_and_row(tmp_path: pathlib.Path, suffix: str, bad: float, name: str) -> None:
    write(tmp_path / f"a{suffix}", torch.zeros(200, 2))
    tensor = torch.zeros(200, 2)
    tensor[137, 1] = bad
    path = write(tmp_path / f"b{suffix}", tensor)
    source = TensorsSource(TensorsConfig(path=str(tmp_path), held_out=0.01))
    with pytest.raises(DataError, match=re.escape(f"{path}: row 137: the row holds {name}")):
        source.next_batch(399)


def test_not_finite_in_a_sequence(tmp_path: pathlib.Path) -> None:
    tensor = torch.zeros(4, 8, 2)
    tensor[2, 5, 0] = math.nan
    path = write(tmp_path / "x.pt", tensor)
    with pytest.raises(DataError, match=re.escape("row 21 (sequence 2, position 5)")):
        read(Chunks(str(path), None), 18, 30)


def test_finite_values_whose_sum_is_not_are_no_fault(tmp_path: pathlib.Path) -> None:
    """3e38 + 3e38 is infinite in float32, and so is the sum of the file, which is looked at first."""
    tensor = torch.full((4, 2), 3e38)
    assert torch.equal(read_all(write(tmp_path / "x.pt", tensor)), tensor)


def test_infinities_that_cancel_are_found(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.pt", torch.tensor([[0.0], [math.inf], [-math.inf]]))
    with pytest.raises(DataError, match="row 1: the row holds infinity"):
        read_all(path)


def test_float64_beyond_float32(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.npy", torch.tensor([[0.0], [1e300]], dtype=torch.float64))
    with pytest.raises(DataError, match="beyond float32"):
        read_all(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_shapes_that_are_no_rows(tmp_path: pathlib.Path, suffix: str) -> None:
    cases = {
        (0, 4): "the tensor is empty: its shape is [0, 4]",
        (4, 0): "the tensor is empty: its shape is [4, 0]",
        (3, 0, 4): "the tensor is empty",
        (1, 4): "there is only one row",
        (1, 1, 4): "there is only one row",
        (4,): "the tensor has the shape [4]",
        (2, 2, 2, 2): "the tensor has the shape [2, 2, 2, 2]",
    }
    for shape, message in cases.items():
        path = write(tmp_path / f"x{suffix}", torch.zeros(shape))
        assert f"{path}: {message}" in refusal(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_only_floats(tmp_path: pathlib.Path, suffix: str, dtype: torch.dtype) -> None:
    path = write(tmp_path / f"x{suffix}", torch.ones(4, 2).to(dtype))
    message = refusal(path)
    assert "not floats" in message
    assert "allowed: a float16, bfloat16, float32 or float64 tensor" in message


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_and_empty_files(tmp_path: pathlib.Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", torch.randn(500, 3))
    content = path.read_bytes()
    for size in (len(content) // 2, 40):
        path.write_bytes(content[:size])
        assert f"{path}: the file is truncated or damaged" in refusal(path)
    path.write_bytes(b"")
    assert "the file is empty (0 bytes)" in refusal(path)


class Payload:
    """Something that unpickling would have to import."""


def pickled(content: object) -> Callable[[pathlib.Path], object]:
    return lambda path: torch.save(content, path)


@pytest.mark.parametrize(
    ("write_file", "message"),
    [
        (
            pickled(Payload()),
            "the file holds objects other than tensors, which are not unpickled (weights_only)",
        ),
        (pickled([torch.zeros(3, 2)]), "it holds a list, not a tensor"),
        (pickled({"lr": 0.1}), "the file holds no tensor"),
        (pickled(torch.eye(3).to_sparse()), "the layout is torch.sparse_coo"),
        (lambda path: path.write_text("a,b\n1,2\n"), "not a file of torch.save's current format"),
        (
            lambda path: torch.save(torch.zeros(3, 2), path, _use_new_zipfile_serialization=False),
            "not a file of torch.save's current format",
        ),
    ],
)
def test_pt_files_that_are_no_tensor(
    tmp_path: pathlib.Path, write_file: Callable[[pathlib.Path], object], message: str
) -> None:
    path = tmp_path / "x.pt"
    write_file(path)
    assert f"{path}: {message}" in refusal(path)


def test_paths_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    message = refusal(tmp_path / "none.pt")
    assert "there is no such file or folder" in message
    assert f"next:    give its place with --data-path; relative ones begin at {pathlib.Path.cwd()}" in message
    assert "the folder holds no tensor files" in refusal(tmp_path)
    (tmp_path / "x.csv").write_text("1,2")
    message = refusal(tmp_path / "x.csv")
    assert "files ending in '.csv' cannot be read" in message
    assert "allowed: .pt, .pth, .safetensors, .npy" in message
    write(tmp_path / "a.pt", torch.zeros(3, 2))
    write(tmp_path / "b.npy", torch.zeros(3, 2))
    assert "several formats (.npy, .pt)" in refusal(tmp_path)


def test_chunks_of_differing_widths(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a.npy", torch.zeros(3, 2))
    path = write(tmp_path / "b.npy", torch.zeros(3, 5))
    assert f"{path}: rows are 5 wide, but 2 wide in a.npy" in refusal(tmp_path)


def test_numpy_pickles_and_archives(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.array([Payload()], dtype=object))
    assert "truncated or damaged (Array can't be memory-mapped: Python objects" in refusal(tmp_path / "x.npy")
    np.savez(tmp_path / "y.npz", a=np.zeros((3, 2)))
    (tmp_path / "y.npz").rename(tmp_path / "y.npy")
    assert "an .npz archive" in refusal(tmp_path / "y.npy")
