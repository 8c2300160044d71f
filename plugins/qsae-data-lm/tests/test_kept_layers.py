"""Several passes that share what lies before their edits, for every family.

B contexts, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from qsae_data_lm.language_model import HfLanguageModel
from torch import Tensor

from qsae_core import SITE_NAMES
from qsae_core.contracts import Edit, Edits, LanguageModel, Site, TokenBatch
from qsae_core.errors import ConfigError, DataError

Make = Callable[[str, str], HfLanguageModel]
Counts = list[list[int]]
LAYERS = range(3)
ZERO = Edit(lambda x, _: torch.zeros_like(x))
MORE = Edit(lambda x, _: 1.5 * x)


def at(layer: int, name: str, edit: Edit = MORE) -> dict[Site, Edit]:
    return {Site(layer, name): edit}


def expect_same(lm: HfLanguageModel, batch: TokenBatch, several: Sequence[Edits | None]) -> None:
    """Bit for bit what the passes give alone; and nothing stays behind in the model."""
    expected = [lm.logits(batch, edits) for edits in several]
    found = list(lm.logits_each(batch, several))
    assert len(found) == len(several)
    for number, (together, alone) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(together, alone), number
    assert_untouched(lm)


def assert_untouched(lm: HfLanguageModel) -> None:
    for layer in lm._layers:
        assert "forward" not in vars(layer)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules())


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Counts]:
    """Which layers compute in each of several passes."""

    def count(lm: HfLanguageModel, batch: TokenBatch, several: Sequence[Edits | None]) -> Counts:
        numbers = {id(layer): number for number, layer in enumerate(lm._layers)}
        calls: list[int] = []
        with monkeypatch.context() as patch:
            for kind in {type(layer) for layer in lm._layers}:
                forward = kind.forward

                def counting(self: Any, *args: Any, forward: Any = forward, **kwargs: Any) -> Any:
                    calls.append(numbers[id(self)])
                    return forward(self, *args, **kwargs)

                patch.setattr(kind, "forward", counting)
            found = []
            for _ in lm.logits_each(batch, several):
                found.append(calls.copy())
                calls.clear()
        return found

    return count


@torch.no_grad()
def test_edits_of_every_site_and_layer(lm: HfLanguageModel, batch: TokenBatch) -> None:
    """From the first layer to the last, back, and with untouched passes between."""
    places = [(layer, name) for layer in LAYERS for name in SITE_NAMES if name in lm.layout.taps]
    there = [at(*place) for place in places]
    expect_same(lm, batch, [None, *there, {}, *reversed(there)])
    expect_same(lm, batch, [*reversed(there), None, *there])


@torch.no_grad()
def test_only_what_lies_behind_an_edit_is_computed_again(
    lm: HfLanguageModel, batch: TokenBatch, computed: Callable[..., Counts]
) -> None:
    several = [None, at(1, "resid_post"), at(1, "mlp_out"), at(2, "resid_post"), at(0, "attn_out"), None]
    assert computed(lm, batch, several) == [[0, 1, 2], [2], [1, 2], [], [0, 1, 2], []]
    # where no pass is untouched: the layers before the earlier of two edits
    several = [at(2, "resid_pre"), at(1, "resid_pre"), at(2, "mlp_in"), at(1, "mlp_out")]
    assert computed(lm, batch, several) == [[0, 1, 2], [1, 2], [2], [1, 2]]


@torch.no_grad()
def test_edits_that_read_and_several_at_once(
    lm: HfLanguageModel, batch: TokenBatch, computed: Callable[..., Counts]
) -> None:
    def mixing(*reads: Site) -> Edit:
        return Edit(lambda x, seen: x + sum(seen[site] for site in reads), reads)

    inside, behind = Site(1, "mlp_in"), Site(1, "resid_post")
    several = [
        None,
        at(2, "resid_post", mixing(inside)),
        at(2, "mlp_out", mixing(behind)),
        {**at(2, "resid_post", mixing(behind, Site(2, "mlp_in"))), **at(2, "mlp_out"), **at(1, "resid_post")},
        {**at(0, "resid_post"), **at(2, "attn_out", mixing(Site(0, "resid_post"), inside))},
        at(1, "mlp_out", mixing(inside)),
    ]
    expect_same(lm, batch, several)
    assert computed(lm, batch, several) == [[0, 1, 2], [1, 2], [2], [2], [1, 2], [1, 2]]


@torch.no_grad()
def test_padding_and_segments(make_lm: Make) -> None:
    ids = torch.randint(1, 50, (3, 8), generator=torch.Generator().manual_seed(1))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    attention = torch.arange(8) >= torch.tensor([[0], [3], [1]])
    segments = (torch.arange(8) >= torch.tensor([[2], [5], [4]])).long()
    several = [None, at(1, "resid_post"), at(1, "mlp_out", ZERO), at(0, "mlp_in"), at(2, "resid_post", ZERO)]
    for family in ("llama", "gpt2", "gemma3_text", "gpt_neox"):
        lm = make_lm(family, family)
        expect_same(lm, TokenBatch(ids, attention, attention), several)
        expect_same(lm, TokenBatch(ids, everywhere, everywhere, segments=segments), several)
    expect_same(make_lm("bert", "bert"), TokenBatch(ids, attention, attention), several)


@torch.no_grad()
def test_an_edit_that_writes_into_what_it_is_given_changes_its_own_pass_alone(lm: HfLanguageModel) -> None:
    ids = torch.arange(1, 15).reshape(2, 7)
    batch = TokenBatch(ids, ids > 0, ids > 0)
    for name in ("resid_post", "resid_pre"):
        in_place = at(1, name, Edit(lambda x, _: x.mul_(1.5)))
        found = list(lm.logits_each(batch, [in_place, None, in_place, in_place, at(1, name)]))
        alone = lm.logits(batch, at(1, name))
        for logits in (found[0], *found[2:]):
            assert torch.equal(logits, alone)
        assert torch.equal(found[1], lm.logits(batch))


@torch.no_grad()
def test_the_model_is_whole_after_an_error_and_between_passes(lm: HfLanguageModel, batch: TokenBatch) -> None:
    plain = lm.logits(batch)
    wrong = at(1, "resid_post", Edit(lambda x, _: x[..., :3]))
    passes = lm.logits_each(batch, [None, at(2, "mlp_out"), wrong, None])
    for _ in range(2):
        next(passes)
        assert_untouched(lm)
        assert torch.equal(lm.logits(batch), plain)
    with pytest.raises(ValueError, match="shape"):
        next(passes)
    assert_untouched(lm)
    assert torch.equal(lm.logits(batch), plain)
    # the first pass, whose layers are kept
    with pytest.raises(ValueError, match="shape"):
        next(lm.logits_each(batch, [wrong, None, at(2, "resid_post")]))
    assert_untouched(lm)


def test_what_is_wrong_is_said_before_the_first_pass(make_lm: Make, batch: TokenBatch) -> None:
    lm = make_lm("llama", "tiny")
    later = at(0, "mlp_in", Edit(lambda x, _: x, (Site(1, "mlp_in"),)))
    with pytest.raises(ConfigError, match=r"edit at 0\.mlp_in reads 1\.mlp_in"):
        next(lm.logits_each(batch, [None, later]))
    with pytest.raises(DataError, match="no layer 3"):
        next(lm.logits_each(batch, [None, at(3, "mlp_in")]))
    assert list(lm.logits_each(batch, [])) == []


@torch.no_grad()
def test_hooks_of_others_are_obeyed_in_every_pass(
    make_lm: Make, batch: TokenBatch, computed: Callable[..., Counts]
) -> None:
    """One that does something else each time: the layers before an edit are not the same then."""
    several = [None, at(2, "resid_post"), at(1, "resid_post", ZERO)]
    lm, calls = make_lm("llama", "tiny"), [0]

    def drifting(module: Any, args: Any, output: Tensor) -> Tensor:
        calls[0] += 1
        return output * calls[0]

    handle = lm._layers[0].mlp.register_forward_hook(drifting)
    expected = [lm.logits(batch, edits) for edits in several]
    calls[0] = 0
    for logits, alone in zip(lm.logits_each(batch, several), expected, strict=True):
        assert torch.equal(logits, alone)
    assert computed(lm, batch, several) == [[0, 1, 2]] * 3
    handle.remove()
    assert computed(lm, batch, several) == [[0, 1, 2], [], [2]]


@torch.no_grad()
def test_a_layer_in_two_places_is_computed_in_every_pass(make_lm: Make, batch: TokenBatch) -> None:
    lm = make_lm("llama", "tiny")
    lm._layers[2] = lm._layers[0]
    expect_same(lm, batch, [None, at(1, "resid_post"), at(2, "resid_post"), at(1, "mlp_in", ZERO)])


@torch.no_grad()
def test_a_forward_of_the_layers_own_stays(make_lm: Make, batch: TokenBatch) -> None:
    """As accelerate puts it there for a model that is spread over devices."""
    lm = make_lm("llama", "tiny")
    own = {}
    for number, layer in enumerate(lm._layers):
        own[number] = vars(layer)["forward"] = lambda *a, f=layer.forward, **k: 2 * f(*a, **k)
    several = [None, at(1, "resid_post"), at(1, "mlp_in")]
    expected = [lm.logits(batch, edits) for edits in several]
    for logits, alone in zip(lm.logits_each(batch, several), expected, strict=True):
        assert torch.equal(logits, alone)
    assert {number: vars(layer)["forward"] for number, layer in enumerate(lm._layers)} == own


def test_gradients_reach_the_edits_of_each_pass(make_lm: Make, batch: TokenBatch) -> None:
    lm, added = make_lm("llama", "tiny"), torch.zeros(16, requires_grad=True)

    def adding(x: Tensor, _: Mapping[Site, Tensor]) -> Tensor:
        return x + added

    several = [None, at(1, "resid_post", Edit(adding)), at(0, "mlp_out", Edit(adding)), at(2, "mlp_in")]
    grads = []
    for passes in (lm.logits_each(batch, several), LanguageModel.logits_each(lm, batch, several)):
        for logits in passes:
            if logits.requires_grad:
                logits.pow(2).sum().backward()
        assert added.grad is not None
        grads.append(added.grad)
        added.grad = None
    assert grads[0].abs().sum() > 0
    assert torch.equal(*grads)
