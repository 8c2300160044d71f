"""Steering of a ``LanguageModel``: the built-in one, and the toy of the conformance checks."""

from __future__ import annotations

import pytest
import torch
from qsae_splice import Edit, Scales, splice, steer

from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import Edit as SiteEdit
from qsae_core.contracts import LanguageModel, Site, TokenBatch
from qsae_core.errors import ConfigError, DataError

SITE, LATER = Site(1, "resid_post"), Site(2, "mlp_out")
SCALES = Scales(norm=100.0)
IDS = torch.tensor([[0, 317, 1151, 8, 497, 304]])  # 0 is BOS


def batch_of(ids: torch.Tensor) -> TokenBatch:
    return TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))


@pytest.fixture
def coder(random_coder, builtin: LanguageModel):
    width = builtin.read(batch_of(IDS), [SITE])[SITE].shape[-1]
    return random_coder(width, 64, seed=1, t=20.0)


def at_site(model: LanguageModel, batch: TokenBatch, site: Site) -> torch.Tensor:
    """The vectors that a pass goes on with."""
    seen = []
    model.logits(batch, {site: SiteEdit(lambda h, _: seen.append(h) or h)})
    return seen[0]


def test_no_edit_changes_no_bit(builtin, coder) -> None:
    clean, text = builtin.logits(batch_of(IDS)), builtin.generate(IDS, 8)
    nowhere = Edit(3, "add", 9, "raw", "40:")
    for edits in [(), (nowhere,), (Edit(3, "scale", 1),)]:
        with steer(builtin, coder, SITE, edits):
            assert torch.equal(builtin.logits(batch_of(IDS)), clean)
            assert torch.equal(builtin.generate(IDS, 8), text)


def test_each_of_several_passes_is_steered(builtin, coder) -> None:
    """Behind the steered layer, before it, and at it."""
    double = SiteEdit(lambda h, _: 2 * h)
    several = [
        None,
        {Site(2, "mlp_out"): double},
        {Site(0, "mlp_in"): double},
        {Site(1, "resid_post"): double},
    ]
    clean = builtin.logits(batch_of(IDS))
    with steer(builtin, coder, SITE, [Edit(3, "add", 40, "raw")]):
        alone = [builtin.logits(batch_of(IDS), edits) for edits in several]
        for found, expected in zip(builtin.logits_each(batch_of(IDS), several), alone, strict=True):
            assert torch.equal(found, expected)
    assert not torch.equal(alone[0], clean)
    assert torch.equal(next(builtin.logits_each(batch_of(IDS), [None])), clean)


def test_what_is_added_is_the_atom(builtin, coder) -> None:
    clean = at_site(builtin, batch_of(IDS), SITE)
    with steer(builtin, coder, "1.resid_post", [Edit(3, "add", 0.5, "norm", "2:")], scales=SCALES) as run:
        found = at_site(builtin, batch_of(IDS), SITE)
    atom = coder.atoms()[3]
    assert torch.equal(found[0, :2], clean[0, :2])
    torch.testing.assert_close(found[0, 2:], clean[0, 2:] + 50 * atom / atom.norm())
    torch.testing.assert_close(run.shift(), 50 / clean[0, 2:].norm(dim=1))


def test_special_tokens_are_untouched(builtin, coder) -> None:
    ids = torch.tensor([[0, 317, 0, 8]])
    clean = at_site(builtin, batch_of(ids), SITE)
    with steer(builtin, coder, SITE, [Edit(3, "add", 9, "raw")]) as run:
        found = at_site(builtin, batch_of(ids), SITE)
        builtin.extend(ids, None, {})
    assert (found != clean).any(-1).tolist() == [[False, True, False, True]]
    assert [applied.places.tolist() for applied in run.log] == [[1, 3], [1, 3]]
    with splice(builtin, coder, SITE):
        assert torch.equal(at_site(builtin, batch_of(ids), SITE)[0, ::2], clean[0, ::2])


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "last", "4:8", "-2:", "token:/e/"])
def test_a_cache_changes_nothing(builtin, coder, positions) -> None:
    edits = [Edit(3, "add", 40, "raw", positions), Edit(5, "set", 30, "raw", positions)]
    clean = builtin.generate(IDS, 10)
    with steer(builtin, coder, SITE, edits) as run:
        cached = builtin.generate(IDS, 10)
    places = torch.cat([applied.places for applied in run.log]).tolist()
    with steer(builtin, coder, SITE, edits, prompt_tokens=IDS.shape[1]) as run:
        ids = IDS
        for _ in range(10):  # the whole text anew for each token
            ids = torch.cat([ids, builtin.logits(batch_of(ids))[:, -1:].argmax(-1)], dim=1)
        run.log.clear()
        builtin.logits(batch_of(ids[:, :-1]))
        behind_cache = torch.cat([applied.places for applied in run.log]).tolist()
        logits, cache = builtin.extend(ids[:, :12], None, {})
        logits, cache = builtin.extend(ids[:, 12:], cache, {})
        torch.testing.assert_close(logits, builtin.logits(batch_of(ids))[:, -1], rtol=1e-4, atol=1e-4)
    assert torch.equal(cached, ids)
    assert not torch.equal(cached, clean)
    assert places == behind_cache


def test_a_text_padded_on_the_left_is_steered_as_alone(builtin, coder) -> None:
    short, width = IDS[:, :4], IDS.shape[1]
    padded = torch.cat([torch.full((1, 2), 9), short], dim=1)
    attention = torch.tensor([[False, False, True, True, True, True]])
    both = TokenBatch(torch.cat([padded, IDS]), torch.cat([padded, IDS]) != 0, torch.ones(2, width).bool())
    both.attention[:1], both.counted[:1] = attention, attention & (padded != 0)
    with steer(builtin, coder, SITE, [Edit(3, "add", 40, "raw", "2:3")]) as run:
        together = builtin.logits(both)[0, 2:]
        assert run.log[0].places.tolist() == [2, 2]
        alone = builtin.logits(batch_of(short))[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_two_sites_at_once(builtin, coder, random_coder) -> None:
    other = random_coder(coder.shape.d_in, 32, seed=2)
    first, second = Edit(3, "add", 40, "raw"), Edit(7, "ablate")
    clean = at_site(builtin, batch_of(IDS), LATER)
    with steer(builtin, coder, SITE, [first]):
        moved = at_site(builtin, batch_of(IDS), LATER)
        with steer(builtin, other, LATER, [second]) as run:
            found = at_site(builtin, batch_of(IDS), LATER)
    f_T = other.encode(moved[0]).to_dense()[:, 7]
    assert f_T[1:].any()
    expected = moved.clone()  # what the second site sees is what the first has made of it
    expected[0, 1:] -= f_T[1:, None] * other.atoms()[7]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(run.log[0].before[:, 0], f_T[1:])
    assert not torch.equal(moved, clean)


def test_a_transcoder_changes_its_output_by_codes_of_its_input(builtin, random_coder) -> None:
    source, target = Site(1, "mlp_in"), Site(1, "mlp_out")
    x = at_site(builtin, batch_of(IDS), source)
    clean = at_site(builtin, batch_of(IDS), target)
    transcoder = random_coder(x.shape[-1], 32, seed=3, is_autoencoder=False)
    with steer(builtin, transcoder, target, [Edit(4, "ablate")], source=source) as run:
        found = at_site(builtin, batch_of(IDS), target)
    f_T = transcoder.encode(x[0]).to_dense()[:, 4]
    assert f_T[1:].any()
    torch.testing.assert_close(run.log[0].before[:, 0], f_T[1:])
    torch.testing.assert_close(found[0, 1:], clean[0, 1:] - f_T[1:, None] * transcoder.atoms()[4])
    with pytest.raises(ConfigError, match="a transcoder reads another site"):
        steer(builtin, transcoder, target, [])


def test_the_model_is_as_before_behind_the_block(builtin, coder) -> None:
    clean = builtin.logits(batch_of(IDS))
    edits = [Edit(3, "add", 40, "raw")]
    with steer(builtin, coder, SITE, edits):
        assert not torch.equal(builtin.logits(batch_of(IDS)), clean)
    assert torch.equal(builtin.logits(batch_of(IDS)), clean)
    coder.W_enc = coder.W_enc[:5]  # so that the pass itself fails
    with pytest.raises(RuntimeError), steer(builtin, coder, SITE, edits):
        builtin.logits(batch_of(IDS))
    assert not {"logits", "extend"} & set(vars(builtin))
    assert torch.equal(builtin.logits(batch_of(IDS)), clean)


def test_one_coder_a_site(builtin, coder) -> None:
    edits = [Edit(3, "add", 40, "raw")]
    with steer(builtin, coder, SITE, edits):
        with (
            pytest.raises(ConfigError, match=r"1\.resid_post is steered already"),
            steer(builtin, coder, SITE, edits),
        ):
            pass
        once = at_site(builtin, batch_of(IDS), SITE)
        with steer(builtin, coder, SITE, edits, stack=True):
            twice = at_site(builtin, batch_of(IDS), SITE)
    torch.testing.assert_close(twice[0, 1:], once[0, 1:] + 40 * coder.atoms()[3])
    with steer(builtin, coder, SITE, edits):  # free again
        pass


def test_generation_of_a_model_without_a_tokenizer(random_coder) -> None:
    toy = ToyLanguageModel(8)
    coder, prompt = random_coder(8, 16, seed=4), torch.tensor([[0, 3, 5], [0, 7, 5]])
    edits = [Edit(2, "set", 3, "raw", "generated"), Edit(1, "ablate")]
    with steer(toy, coder, toy.SITE, edits), pytest.raises(DataError, match="tokenizer of toy is not known"):
        toy.generate(prompt, 2)
    with steer(toy, coder, toy.SITE, edits, special=(0,)) as run:
        found = toy.generate(prompt, 4)
    assert [applied.places.tolist() for applied in run.log] == [[1, 2, 1, 2], [3, 3], [4, 4], [5, 5]][:4]
    with steer(toy, coder, toy.SITE, edits, special=(0,), prompt_tokens=3):
        ids = prompt
        for _ in range(4):
            batch = TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))
            ids = torch.cat([ids, toy.logits(batch)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(found, ids)


def test_a_cache_from_outside(random_coder) -> None:
    toy = ToyLanguageModel(8)
    _, cache = toy.extend(torch.tensor([[3]]), None, {})
    with (
        steer(toy, random_coder(8, 16, seed=4), toy.SITE, [Edit(1, "ablate")], special=()),
        pytest.raises(ConfigError, match="the cache was made before"),
    ):
        toy.extend(torch.tensor([[4]]), cache, {})


def test_what_is_no_site(builtin, coder) -> None:
    with pytest.raises(ConfigError, match="'resid_post' is no site"), steer(builtin, coder, "resid_post", []):
        pass
    with (
        pytest.raises(DataError, match="no layer 99"),
        steer(builtin, coder, "99.resid_post", [Edit(1, "ablate")]),
    ):
        builtin.logits(batch_of(IDS))
