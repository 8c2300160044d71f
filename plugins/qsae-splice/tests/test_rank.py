"""The output score on a model whose logits are known: the toy's prediction is the likeness to a token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from qsae_splice.compare import divergence
from qsae_splice.positions import read_positions
from qsae_splice.rank import Ranked, active_latents, last_layer, rank_by_output
from qsae_splice.rank_table import print_ranked

from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import Site, TokenBatch
from qsae_core.errors import ConfigError, DataError

TOY = ToyLanguageModel(16)
IDS = torch.tensor([[0, 3, 5]])
BATCH = TokenBatch(IDS, IDS != 0, torch.ones_like(IDS, dtype=torch.bool))


@pytest.fixture
def coder(random_coder):
    """Latent j writes what makes the toy predict the successor of token j; latent 24 writes nothing."""
    found = random_coder(16, 25, seed=0)
    found.W_dec[:24] = TOY.embedding_VD
    found.W_dec[24] = 0
    return found


def ranked(coder, latents, **options):
    options = {"norm": 20.0, "positions": read_positions("all"), "n_tokens": 1, "text_of": str} | options
    return rank_by_output(TOY, coder, TOY.SITE, BATCH, latents, **options)


def test_latents_that_say_what_their_atoms_write(coder) -> None:
    found = {r.latent: r for r in ranked(coder, [2, 7, 11])}
    for latent, result in found.items():
        successor = int(TOY.successors[latent])
        assert result.writes == [successor]
        # the vector is that of the last position, and 20 along the embedding of the latent's token
        clean = TOY.logits(BATCH)[0, -1].double()
        direction = TOY.embedding_VD[latent] / TOY.embedding_VD[latent].norm()
        moved = TOY._predicted((TOY.read(BATCH, [TOY.SITE])[TOY.SITE] + 20 * direction)[:, -1:])[
            0, 0
        ].double()
        p, q = clean.softmax(-1), moved.softmax(-1)
        assert result.score == pytest.approx(float(q[successor] - p[successor]), abs=1e-6)
        assert result.kl == pytest.approx(float((p * (p.log() - q.log())).sum()), rel=1e-4)
        assert result.rises == [int((q - p).argmax())]
        others = [int(TOY.successors[other]) for other in (2, 7, 11) if other != latent]
        possible = [float(q[token] - p[token]) for token in others]
        assert any(result.chance == pytest.approx(value, abs=1e-6) for value in possible)
    assert min(r.score for r in found.values()) > 0.5 > 0.1 > max(r.chance for r in found.values())
    assert [r.score for r in ranked(coder, [2, 7, 11])] == sorted(
        (r.score for r in found.values()), reverse=True
    )


def test_few_latents_at_once_give_the_same(coder, monkeypatch) -> None:
    together = ranked(coder, range(24))
    monkeypatch.setattr(TOY, "forward_positions", 5 * IDS.shape[1], raising=False)
    for one, other in zip(together, ranked(coder, range(24)), strict=True):
        assert (one.latent, one.writes) == (other.latent, other.writes)
        assert one.score == pytest.approx(other.score, abs=1e-6)


def test_where_nothing_can_be_told(coder) -> None:
    assert ranked(coder, [2])[0].chance is None
    with pytest.raises(DataError, match=r"latents \[24\] are zero"):
        ranked(coder, [2, 24])
    with pytest.raises(ConfigError, match="no such position"):
        ranked(coder, [2], positions=read_positions("generated"))


def test_the_last_layer_is_found_by_asking(builtin) -> None:
    assert last_layer(TOY, 0, BATCH) == 0
    for known in (0, 1, 2):
        last = last_layer(builtin, known, BATCH)
        assert last == builtin.layout.n_layers - 1
    assert builtin.read(BATCH, [Site(last, "resid_post")])


def test_latents_that_are_active(random_coder) -> None:
    coder = random_coder(2, 2, seed=0)
    coder.W_enc = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    x = torch.tensor([[[-1.0, 0.0], [2.0, 0.0]]])
    assert active_latents(coder, x, torch.tensor([[False, True]])) == [0]
    assert active_latents(coder, x, torch.tensor([[True, True]])) == [0, 1]


def test_divergence_by_hand() -> None:
    # .5 log(.5 / .25) + .5 log(.5 / .75)
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert float(divergence(p, q)) == pytest.approx(0.5 * 0.6931472 - 0.5 * 0.4054651, rel=1e-5)
    certain = torch.tensor([1.0, 0.0]).log()
    assert float(divergence(certain, q)) == pytest.approx(1.3862944, rel=1e-5)


def test_a_token_that_is_a_part_of_a_character_is_shown_as_bytes(capsys):
    texts = {7: " a", 8: "\N{REPLACEMENT CHARACTER}"}
    opened = SimpleNamespace(
        about={"path": "here"},
        tokens=SimpleNamespace(text_of=texts.get),
        model=SimpleNamespace(partial_bytes={7: None, 8: b"\xe2\x80"}.get),
    )
    print_ranked(opened, [Ranked(3, 0.5, None, 1.0, [7, 8], [8])], 1, as_json=False)
    assert capsys.readouterr().out.split() == [
        *["here:", "1", "latents", "by", "their", "output", "score"],
        *["latent", "output", "score", "chance", "KL", "its", "atom", "writes", "what", "rises"],
        *["3", "+0.5000", "-", "1.000", "'", "a'", r"b'\xe2\x80'", r"b'\xe2\x80'"],
    ]
