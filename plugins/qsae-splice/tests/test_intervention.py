"""h' = h + sum_j (f'_j - f_j) w_j, by hand."""

from __future__ import annotations

import pytest
import torch
from qsae_splice.edits import Edit
from qsae_splice.intervention import Intervention
from qsae_splice.passes import Pass
from qsae_splice.running import Running
from qsae_splice.scales import Scales

from qsae_core.errors import ConfigError

H = torch.tensor([[[5.0, 1.0], [5.0, 1.0], [-2.0, 1.5]]])
"""Three positions; the first is special. Activations 5, 1, 0; 5, 1, 0; 0, 1.5, 2."""


def now() -> Pass:
    ids = torch.tensor([[9, 4, 5]])
    return Pass(ids, torch.tensor([[0, 1, 2]]), torch.tensor([[2]]), torch.tensor([[False, True, True]]))


def changed(coder, *edits, mode="delta", x=None):
    intervention = Intervention(coder, edits, mode, Scales(), lambda token: f"w{token}", ["site"])
    return Running(intervention, now())(0, H, {0: H if x is None else x}), intervention


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        # the atom of latent 0 is (1, 0), of latent 1 (0, 2), of latent 2 (-3, 4)
        (Edit(0, "add", 2, "raw"), [[5, 1], [7, 1], [0, 1.5]]),
        (Edit(0, "set", 2, "raw"), [[5, 1], [2, 1], [0, 1.5]]),
        (Edit(0, "set", 2, "raw", active=True), [[5, 1], [2, 1], [-2, 1.5]]),
        (Edit(1, "scale", 3), [[5, 1], [5, 5], [-2, 7.5]]),
        (Edit(2, "ablate"), [[5, 1], [5, 1], [4, -6.5]]),
        (Edit(0, "cap", 4, "raw"), [[5, 1], [4, 1], [-2, 1.5]]),
        (Edit(2, "floor", 1, "raw"), [[5, 1], [2, 5], [-2, 1.5]]),
        (Edit(0, "add", 2, "raw", "generated"), [[5, 1], [5, 1], [0, 1.5]]),
        (Edit(0, "add", 2, "raw", "token:/w4/"), [[5, 1], [7, 1], [-2, 1.5]]),
    ],
)
def test_each_operation(hand, edit, expected) -> None:
    assert changed(hand, edit)[0].tolist() == [expected]


def test_edits_of_one_latent_come_after_each_other(hand) -> None:
    found, intervention = changed(hand, Edit(0, "add", 2, "raw"), Edit(1, "ablate"), Edit(0, "scale", 2))
    # position 1: 5 -> 7 -> 14 is +9; 1 -> 0 is -2 in the second dimension
    assert found.tolist() == [[[5, 1], [14, -1], [2, -1.5]]]
    (applied,) = intervention.log
    assert (applied.site, applied.columns, applied.places.tolist()) == ("site", (0, 1), [1, 2])
    assert (applied.before.tolist(), applied.after.tolist()) == ([[5, 1], [0, 1.5]], [[14, 0], [4, 0]])
    # ||(9, -2)|| / ||(5, 1)||, ||(4, -3)|| / ||(-2, 1.5)||
    assert applied.shift.tolist() == pytest.approx([(85 / 26) ** 0.5, 5 / 2.5])


def test_the_error_of_the_coder_is_kept_or_dropped(hand) -> None:
    # at position 1 the reconstruction is 5 (1, 0) + 1 (0, 2) + 1/8, at position 2 it is
    # 1.5 (0, 2) + 2 (-3, 4) + 1/8; special tokens are never replaced
    assert changed(hand, mode="replace")[0].tolist() == [[[5, 1], [5.125, 2.125], [-5.875, 11.125]]]
    edited = changed(hand, Edit(0, "add", 2, "raw", "generated"), mode="replace")[0]
    assert edited.tolist() == [[[5, 1], [5.125, 2.125], [-3.875, 11.125]]]


def test_codes_are_those_of_what_is_read(hand) -> None:
    x = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
    assert changed(hand, Edit(0, "ablate"), x=x)[0].tolist() == [[[5, 1], [2, 1], [-2, 1.5]]]


def test_what_changes_nothing_changes_no_bit(hand) -> None:
    for edits in [
        (),
        (Edit(0, "set", 3, "raw", "5:"),),  # holds nowhere
    ]:
        assert changed(hand, *edits)[0] is H
    h = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0)) / 3
    f = float(h[0, 1, 1].relu() + h[0, 1, 1].neg().relu())
    for edit in [
        Edit(2, "ablate", positions="1:2") if h[0, 1, 0] > 0 else Edit(0, "ablate", positions="1:2"),
        Edit(1, "set", f, "raw", "1:2") if h[0, 1, 1] > 0 else Edit(1, "set", 0.0, "raw", "1:2"),
        Edit(1, "scale", 1),
        Edit(1, "cap", 1e9, "raw"),
        Edit(1, "floor", 0, "raw"),
    ]:
        intervention = Intervention(hand, [edit], "delta", Scales(), str, ["site"])
        assert torch.equal(Running(intervention, now())(0, h, {0: h}), h), edit
        assert len(intervention.log) == 1


def test_what_there_is_not(hand) -> None:
    with pytest.raises(ConfigError, match="no latent 3: the coder has 3") as error:
        changed(hand, Edit(3, "ablate"))
    assert error.value.allowed == "0 to 2"
    with pytest.raises(ConfigError, match="unknown mode 'half'"):
        changed(hand, mode="half")
    with pytest.raises(ConfigError, match="unit max is not known"):
        changed(hand, Edit(0, "set", 1))
