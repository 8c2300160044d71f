"""Whether files are known again: moved, appended to, cut, converted in shape, or others in their place."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch
from qsae_data_tensors import TensorsConfig
from qsae_data_tensors.source import TensorsSource

from qsae_core.contracts import Overlap

ROWS = np.random.default_rng(0).normal(size=(1200, 3)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(1200, 3)).astype(np.float32)


def source(folder: pathlib.Path, *arrays: np.ndarray, **options: object) -> TensorsSource:
    """A source of these arrays as chunks of a folder; one array: as one file."""
    folder.mkdir()
    for number, array in enumerate(arrays):
        np.save(folder / f"chunk{number}.npy", array)
    path = folder if len(arrays) > 1 else folder / "chunk0.npy"
    return TensorsSource(TensorsConfig.model_validate({"path": str(path), **options}))


SAME, NEW, OTHERWISE = Overlap.TRAINING, Overlap.NONE, Overlap.HELD_OUT
CASES = {
    "moved": ([ROWS], [ROWS], SAME),
    "other content": ([ROWS], [OTHER], NEW),
    "appended to": ([ROWS[:700]], [ROWS], SAME),
    "cut": ([ROWS], [ROWS[:700]], SAME),
    "a first row in common": ([ROWS], [np.concatenate([ROWS[:1], OTHER])], NEW),
    "a chunk more": ([ROWS[:700], ROWS[700:]], [ROWS[:700], ROWS[700:], OTHER], SAME),
    "the first chunk": ([ROWS[:700], ROWS[700:]], [ROWS[:700]], SAME),
    "the second chunk": ([ROWS[:700], ROWS[700:]], [ROWS[700:]], OTHERWISE),
    "chunks in one file": ([ROWS[:700], ROWS[700:]], [ROWS], OTHERWISE),
    "one file in chunks": ([ROWS], [ROWS[:700], ROWS[700:]], OTHERWISE),
    "before other rows": ([ROWS], [OTHER, ROWS], OTHERWISE),
    "sequences as rows": ([ROWS.reshape(120, 10, 3)], [ROWS], OTHERWISE),
}


WIDE = np.random.default_rng(2).normal(size=(1200, 24)).astype(np.float32)
WIDE_OTHER = np.random.default_rng(3).normal(size=(1200, 24)).astype(np.float32)
ORDER = np.random.default_rng(4).permutation(1200)


def half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16)


def with_first_tokens(array: np.ndarray) -> np.ndarray:
    """Contexts of four positions, all of which begin with the same vector."""
    contexts = array.copy()
    contexts[::4] = WIDE[0]
    return contexts


OTHER_TYPES_AND_ORDERS = {
    "float16": ([WIDE], [half(WIDE)], SAME),
    "from float16": ([half(WIDE)], [WIDE], SAME),
    "float64": ([WIDE], [WIDE.astype(np.float64)], SAME),
    "float16, cut": ([WIDE], [half(WIDE[:700])], SAME),
    "float16, few columns": ([ROWS], [half(ROWS)], SAME),
    "another order": ([WIDE], [WIDE[ORDER]], OTHERWISE),
    "another order and type": ([WIDE], [half(WIDE[ORDER])], OTHERWISE),
    "backwards": ([WIDE], [WIDE[::-1]], OTHERWISE),
    "another order, with others": ([WIDE], [np.concatenate([WIDE_OTHER, WIDE[ORDER]])], OTHERWISE),
    "chunks in one, reordered": ([WIDE[:700], WIDE[700:]], [WIDE[ORDER]], OTHERWISE),
    "other content": ([WIDE], [WIDE_OTHER], NEW),
    "other content, float16": ([WIDE], [half(WIDE_OTHER)], NEW),
    "a little louder": ([WIDE], [WIDE * 1.01], NEW),
    "first tokens in common": ([with_first_tokens(WIDE)], [with_first_tokens(WIDE_OTHER)], NEW),
    # seven rows stand for the file, 0, 1, 4, 16, 64, 256 and 1024: one of them alone is here
    "the last rows": ([WIDE], [WIDE[1000:]], NEW),
    # with three columns a row is not told from all others
    "another order, few columns": ([ROWS], [ROWS[ORDER]], NEW),
}


@pytest.mark.parametrize("case", OTHER_TYPES_AND_ORDERS)
def test_in_another_type_or_order(tmp_path: pathlib.Path, case: str) -> None:
    trained_on, measured, expected = OTHER_TYPES_AND_ORDERS[case]
    record = json.loads(json.dumps(source(tmp_path / "before", *trained_on).held_out_part().record()))
    assert source(tmp_path / "after", *measured).held_out_part().overlap(record) is expected


def test_in_bfloat16(tmp_path: pathlib.Path) -> None:
    record = source(tmp_path / "before", WIDE).held_out_part().record()
    for name, array, expected in (("same", WIDE, SAME), ("order", WIDE[ORDER], OTHERWISE)):
        torch.save(torch.from_numpy(array).bfloat16(), tmp_path / f"{name}.pt")
        after = TensorsSource(TensorsConfig(path=str(tmp_path / f"{name}.pt")))
        assert after.held_out_part().overlap(record) is expected


def test_a_record_without_values_is_compared_bit_for_bit(tmp_path: pathlib.Path) -> None:
    record = source(tmp_path / "before", WIDE).held_out_part().record()
    for file in record["files"]:
        del file["values"]
    assert source(tmp_path / "same", WIDE).held_out_part().overlap(record) is SAME
    assert source(tmp_path / "half", half(WIDE)).held_out_part().overlap(record) is NEW
    assert source(tmp_path / "order", WIDE[ORDER]).held_out_part().overlap(record) is NEW


@pytest.mark.parametrize("case", CASES)
def test_training_data_is_known_again(tmp_path: pathlib.Path, case: str) -> None:
    trained_on, measured, expected = CASES[case]
    record = json.loads(json.dumps(source(tmp_path / "before", *trained_on).held_out_part().record()))
    after = source(tmp_path / "after", *measured)
    assert after.held_out_part().overlap(record) is expected
    if expected is SAME:  # what that promises: nothing that is held out now was trained on
        before = source(tmp_path / "again", *trained_on)
        n_training = before.training_tokens
        trained = {row.tobytes() for row in before.next_batch(n_training).x.numpy()}
        held = {row.tobytes() for batch in after.held_out(10_000, 64) for row in batch.x.numpy()}
        assert held
        assert not held & trained


@pytest.mark.parametrize("options", [{"split_seed": 1}, {"held_out": 0.2}])
def test_another_split_of_the_training_data(tmp_path: pathlib.Path, options: dict[str, object]) -> None:
    record = source(tmp_path / "before", ROWS).held_out_part().record()
    assert source(tmp_path / "after", ROWS, **options).held_out_part().overlap(record) is OTHERWISE


def test_everything_is_held_out(tmp_path: pathlib.Path) -> None:
    whole = source(tmp_path / "x", ROWS[:700], ROWS[700:], target_path=str(tmp_path / "x"))
    part = whole.held_out_part()
    held = sum(len(batch) for batch in whole.held_out(10_000, 64))
    assert part.name() == f"the {held} held-out of the 1,200 rows of x"
    assert part.size() == held < 120
    part.take_all()
    given = np.concatenate([batch.x.numpy() for batch in whole.held_out(10_000, 64)])
    assert sorted(given.tolist()) == sorted(ROWS.tolist())
    assert sum(len(batch) for batch in whole.held_out(100, 64)) == 100
    assert part.name() == "all 1,200 rows of x"
    assert part.size() == 1200


def test_a_row_that_is_not_finite_is_no_hindrance_to_the_record(tmp_path: pathlib.Path) -> None:
    """It is refused where it is read for training, with its place."""
    spoilt = ROWS.copy()
    spoilt[4] = np.nan
    record = source(tmp_path / "x", spoilt).held_out_part().record()
    assert record["files"][0]["marks"].count("") == 1
