"""Directions: what they do to a vector, by hand, and where they are read from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qsae_splice import DirectionEdit, Edit, Scales, read_direction
from qsae_splice.intervention import Intervention
from qsae_splice.passes import Pass
from qsae_splice.running import Running
from safetensors.torch import save_file

from qsae_core.errors import ConfigError, DataError

H = torch.tensor([[[5.0, 1.0], [5.0, 1.0], [-2.0, 1.5]]])
"""Three positions; the first is special. Along (3, 4) / 5 they are 3.8, 3.8 and 0."""
CAT = {"cat": torch.tensor([3.0, 4.0]), "dog": torch.tensor([0.0, -2.0])}


def changed(coder, *edits, mode="delta"):
    now = Pass(
        torch.tensor([[9, 4, 5]]),
        torch.tensor([[0, 1, 2]]),
        torch.tensor([[2]]),
        torch.tensor([[False, True, True]]),
    )
    scales = Scales(norm=10.0)
    intervention = Intervention(coder, edits, mode, scales, lambda token: f"w{token}", ["s"], directions=CAT)
    return Running(intervention, now)(0, H, {0: H}), intervention


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        # 2 raw are twice (3, 4); half a norm is 5, along (3, 4) / 5
        ([DirectionEdit("cat", "add", 2, "raw")], [[5, 1], [11, 9], [4, 9.5]]),
        ([DirectionEdit("cat", "add", 0.5)], [[5, 1], [8, 5], [1, 5.5]]),
        ([DirectionEdit("cat", "add", -0.5, "norm", "generated")], [[5, 1], [5, 1], [-5, -2.5]]),
        # (5, 1) - 3.8 (0.6, 0.8); the other one is orthogonal
        ([DirectionEdit("cat", "project-out")], [[5, 1], [2.72, -2.04], [-2, 1.5]]),
        ([DirectionEdit("dog", "project-out")], [[5, 1], [5, 0], [-2, 0]]),
        # one after the other: (5, 0), then 5 along (0.6, 0.8)
        (
            [DirectionEdit("dog", "project-out"), DirectionEdit("cat", "add", 0.5)],
            [[5, 1], [8, 4], [1, 4]],
        ),
        # behind what latents do, wherever they stand: f_1 = 0 takes (0, 2) and (0, 3) away, and so on
        (
            [DirectionEdit("dog", "project-out"), Edit(1, "ablate"), Edit(0, "add", 1, "raw")],
            [[5, 1], [6, 0], [-1, 0]],
        ),
    ],
)
def test_what_becomes_of_vectors(hand, edits, expected) -> None:
    torch.testing.assert_close(changed(hand, *edits)[0], torch.tensor([expected], dtype=torch.float32))


def test_in_place_of_the_reconstruction(hand) -> None:
    found = changed(hand, DirectionEdit("dog", "project-out"), mode="replace")[0]
    # reconstructions are (5.125, 2.125) and (-5.875, 11.125)
    torch.testing.assert_close(found, torch.tensor([[[5, 1], [5.125, 0], [-5.875, 0]]]))


def test_what_is_put_on_record(hand) -> None:
    (applied,) = changed(hand, DirectionEdit("cat", "project-out"), Edit(0, "ablate"))[1].log
    assert applied.columns == (0, "cat")
    # latent 0 is 5 and 0; without it the vectors are (0, 1) and (-2, 1.5), and nothing of (3, 4) is left
    torch.testing.assert_close(applied.before, torch.tensor([[5, 3.8], [0, 0]]))
    torch.testing.assert_close(applied.after, torch.tensor([[0.0, 0.0], [0, 0]]), atol=1e-6, rtol=0)


def test_a_vector_that_is_orthogonal_changes_no_bit(hand) -> None:
    assert torch.equal(changed(hand, DirectionEdit("cat", "project-out", positions="2:"))[0], H)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0.0, 0.0], "is zero"),
        ([1.0, float("nan")], r"1 of 2 values that are not finite"),
        ([1.0, float("inf")], r"1 of 2 values that are not finite"),
        ([1.0, 2.0, 3.0], "has 3 dimensions, and the vectors at the site have 2"),
        ([[1.0, 2.0]], "and no vector"),
    ],
)
def test_what_is_no_direction(hand, vector, message) -> None:
    with pytest.raises(DataError, match=message):
        Intervention(
            hand,
            [DirectionEdit("cat", "project-out")],
            "delta",
            Scales(),
            str,
            ["s"],
            directions={"cat": torch.tensor(vector)},
        )


def test_one_that_is_not_given(hand) -> None:
    with pytest.raises(ConfigError, match="no direction cow") as error:
        changed(hand, DirectionEdit("cow", "project-out"))
    assert error.value.allowed == "cat, dog"


@pytest.fixture
def files(tmp_path):
    """A vector, a matrix, and files of one and of two tensors."""
    matrix = torch.arange(1.0, 7).view(3, 2)
    np.save(tmp_path / "one.npy", matrix[1].numpy())
    np.save(tmp_path / "rows.npy", matrix.double().numpy())
    save_file({"only": matrix.bfloat16()}, tmp_path / "one.safetensors")
    save_file({"a:1": matrix, "b": -matrix}, tmp_path / "two.safetensors")
    np.save(tmp_path / "integers.npy", np.arange(3))
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    torch.save(matrix, tmp_path / "some.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("one.npy", [3, 4]),
        ("rows.npy:2", [5, 6]),
        ("one.safetensors:0", [1, 2]),
        ("one.safetensors:only:1", [3, 4]),
        ("two.safetensors:a:1:2", [5, 6]),
        ("two.safetensors:b:0", [-1, -2]),
    ],
)
def test_from_files(files, place, expected) -> None:
    found = read_direction(f"{files}/{place}")
    assert found.dtype == torch.float32
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none.npy", "there is nothing at"),
        ("some.pt", "a direction is not read from some.pt"),
        ("rows.npy", "of 3 rows none is named"),
        ("rows.npy:3", "no row 3 of"),
        ("rows.npy:-1", "no row -1 of"),
        ("one.npy:0", "no row 0 of"),
        ("two.safetensors:0", "which of its tensors is not said"),
        ("one.safetensors:other:0", "no row other:0 of"),
        ("integers.npy", "no vector"),
        ("bad.npy", "cannot be read"),
        ("bad.safetensors", "cannot be read"),
        ("", "is a folder, and of which latent is not said"),
    ],
)
def test_what_cannot_be_read(files, place, message) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as error:
        read_direction(f"{files}/{place}")
    assert error.value.allowed
