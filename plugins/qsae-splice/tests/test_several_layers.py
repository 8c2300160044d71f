"""One latent that writes at several layers: of a cross-layer transcoder, and of a crosscoder."""

from __future__ import annotations

import pytest
import torch
from qsae_splice import DirectionEdit, Edit, ModuleSite, Scales, measure, splice, steer

from qsae_core.contracts import Batch, LanguageModel, Site, TokenBatch
from qsae_core.contracts import Edit as SiteEdit
from qsae_core.errors import ConfigError

IDS = torch.tensor([[0, 317, 1151, 8, 497, 304]])  # 0 is BOS
READS = (Site(1, "mlp_in"), Site(2, "mlp_in"))
WRITES = (Site(1, "mlp_out"), Site(2, "mlp_out"))
STREAM = (Site(0, "resid_post"), Site(2, "resid_post"))
EDITS = [Edit(3, "add", 9, "raw", "2:"), Edit(20, "set", 8, "raw", "generated"), Edit(5, "ablate")]


def batch_of(ids: torch.Tensor) -> TokenBatch:
    return TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))


@pytest.fixture
def cross_layer(of_layers):
    """Latents 0 to 15 read the first layer and write to both, 16 to 31 are of the second one alone."""
    return of_layers(256, 16, 2, 0.0, joint=False)


@pytest.fixture
def crosscoder(of_layers):
    return of_layers(256, 32, 2, 10.0, joint=True)


def seen(model: LanguageModel, batch: TokenBatch, sites) -> list[torch.Tensor]:
    """The vectors that a pass goes on with."""
    found = {}

    def keeps(site: Site):
        return SiteEdit(lambda h, _: found.setdefault(site, h))

    model.logits(batch, {site: keeps(site) for site in sites})
    return [found[site] for site in sites]


def replaced(model: LanguageModel, vectors: dict[Site, torch.Tensor]) -> torch.Tensor:
    """Logits with these vectors behind BOS."""

    def puts(values: torch.Tensor):
        return SiteEdit(lambda h, _: torch.cat([h[:, :1], values[None].to(h)], dim=1))

    return model.logits(batch_of(IDS), {site: puts(values) for site, values in vectors.items()})


def kinds(cross_layer, crosscoder):
    return [(cross_layer, WRITES, READS), (crosscoder, STREAM, None)]


def test_no_edit_changes_no_bit(builtin, cross_layer, crosscoder) -> None:
    clean, text = builtin.logits(batch_of(IDS)), builtin.generate(IDS, 4)
    for coder, sites, source in kinds(cross_layer, crosscoder):
        for edits in [(), (Edit(3, "add", 9, "raw", "40:"),), (Edit(3, "scale", 1), Edit(20, "scale", 1))]:
            with steer(builtin, coder, sites, edits, source=source) as run:
                assert torch.equal(builtin.logits(batch_of(IDS)), clean)
                assert torch.equal(builtin.generate(IDS, 4), text)
        assert any((applied.before > 0).any() for applied in run.log)  # what was left as it was is active


def test_a_latent_changes_by_the_same_at_each_later_layer(builtin, cross_layer) -> None:
    x, h = seen(builtin, batch_of(IDS), READS)[0][0, 1:], seen(builtin, batch_of(IDS), WRITES)[0][0, 1:]
    f_T = cross_layer.encode(torch.stack([x, x], dim=1)).to_dense()[:, 3]
    assert f_T.any()
    atoms_LD = cross_layer.atoms()[3]
    with steer(builtin, cross_layer, WRITES, [Edit(3, "ablate")], source=READS) as run:
        found = builtin.logits(batch_of(IDS))
    first = h - f_T[:, None] * atoms_LD[0]
    # the second layer is given what the first one's change has made of the stream, and the same change of f
    behind = {WRITES[0]: SiteEdit(lambda v, _: torch.cat([v[:, :1], first[None]], dim=1))}
    kept = []
    builtin.logits(batch_of(IDS), {**behind, WRITES[1]: SiteEdit(lambda v, _: kept.append(v) or v)})
    second = kept[0][0, 1:] - f_T[:, None] * atoms_LD[1]
    torch.testing.assert_close(
        found, replaced(builtin, {WRITES[0]: first, WRITES[1]: second}), rtol=1e-4, atol=1e-4
    )
    assert [(applied.site, applied.columns) for applied in run.log] == [
        ("1.mlp_out", (3,)),
        ("2.mlp_out", ()),
    ]
    torch.testing.assert_close(run.log[0].before[:, 0], f_T)
    assert torch.equal(run.log[1].shift > 0, f_T > 0)


def test_a_later_latent_is_what_earlier_changes_have_made_it(builtin, cross_layer) -> None:
    edits = [Edit(3, "add", 9, "raw"), Edit(20, "scale", 1)]
    with steer(builtin, cross_layer, WRITES, edits, source=READS) as run:
        x = torch.stack([vectors[0, 1:] for vectors in seen(builtin, batch_of(IDS), READS)], dim=1)
    f_TF = cross_layer.encode(x).to_dense()
    assert [applied.columns for applied in run.log] == [(3,), (20,)]
    torch.testing.assert_close(run.log[1].before[:, 0], f_TF[:, 20])
    clean = torch.stack([vectors[0, 1:] for vectors in seen(builtin, batch_of(IDS), READS)], dim=1)
    assert not torch.allclose(f_TF[:, 20], cross_layer.encode(clean).to_dense()[:, 20])


def test_a_crosscoder_is_read_in_a_pass_before(builtin, crosscoder) -> None:
    x = torch.stack([vectors[0, 1:] for vectors in seen(builtin, batch_of(IDS), STREAM)], dim=1)
    f_T = crosscoder.encode(x).to_dense()[:, 3]
    assert f_T.any()
    with steer(builtin, crosscoder, STREAM, [Edit(3, "ablate")]) as run:
        found = builtin.logits(batch_of(IDS))
    first = x[:, 0] - f_T[:, None] * crosscoder.atoms()[3, 0]
    kept = []
    behind = {STREAM[0]: SiteEdit(lambda v, _: torch.cat([v[:, :1], first[None]], dim=1))}
    builtin.logits(batch_of(IDS), {**behind, STREAM[1]: SiteEdit(lambda v, _: kept.append(v) or v)})
    second = kept[0][0, 1:] - f_T[:, None] * crosscoder.atoms()[3, 1]
    torch.testing.assert_close(
        found, replaced(builtin, {STREAM[0]: first, STREAM[1]: second}), rtol=1e-4, atol=1e-4
    )
    assert [(applied.site, applied.columns) for applied in run.log] == [
        ("0.resid_post", (3,)),
        ("2.resid_post", ()),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_a_cache_changes_nothing(builtin, cross_layer, crosscoder, number) -> None:
    coder, sites, source = kinds(cross_layer, crosscoder)[number]
    clean = builtin.generate(IDS, 8)
    with steer(builtin, coder, sites, EDITS, source=source):
        cached = builtin.generate(IDS, 8)
    with steer(builtin, coder, sites, EDITS, source=source, prompt_tokens=IDS.shape[1]):
        ids = IDS
        for _ in range(8):  # the whole text anew for each token
            ids = torch.cat([ids, builtin.logits(batch_of(ids))[:, -1:].argmax(-1)], dim=1)
        logits, cache = builtin.extend(ids[:, :9], None, {})
        logits, cache = builtin.extend(ids[:, 9:], cache, {})
        torch.testing.assert_close(logits, builtin.logits(batch_of(ids))[:, -1], rtol=1e-4, atol=1e-4)
    assert torch.equal(cached, ids)
    assert not torch.equal(cached, clean)


@pytest.mark.parametrize("number", [0, 1])
def test_a_text_padded_on_the_left_is_steered_as_alone(builtin, cross_layer, crosscoder, number) -> None:
    coder, sites, source = kinds(cross_layer, crosscoder)[number]
    short = IDS[:, :4]
    padded = torch.cat([torch.full((1, 2), 9), short], dim=1)
    attention = torch.tensor([[False, False, True, True, True, True]])
    both = TokenBatch(torch.cat([padded, IDS]), torch.cat([padded, IDS]) != 0, torch.ones(2, 6).bool())
    both.attention[:1], both.counted[:1] = attention, attention & (padded != 0)
    with steer(builtin, coder, sites, [Edit(3, "add", 9, "raw", "2:3")], source=source):
        together, alone = builtin.logits(both)[0, 2:], builtin.logits(batch_of(short))[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_reconstructions_in_place_of_the_vectors(builtin, cross_layer, crosscoder) -> None:
    with splice(builtin, cross_layer, WRITES, source=READS):
        x = [vectors[0, 1:] for vectors in seen(builtin, batch_of(IDS), READS)]
        found = seen(builtin, batch_of(IDS), WRITES)
    torch.testing.assert_close(found[0][0, 1:], cross_layer.reconstruct_layer(x[0][:, None], 0))
    torch.testing.assert_close(found[1][0, 1:], cross_layer.reconstruct_layer(torch.stack(x, dim=1), 1))
    x = [vectors[0, 1:] for vectors in seen(builtin, batch_of(IDS), STREAM)]
    with steer(builtin, crosscoder, STREAM, [Edit(3, "add", 2, "raw")], mode="replace"):
        found = seen(builtin, batch_of(IDS), STREAM)
    expected = crosscoder(torch.stack(x, dim=1)) + 2 * crosscoder.atoms()[3]
    torch.testing.assert_close(torch.stack([v[0, 1:] for v in found], dim=1), expected)


def test_a_block_around_a_crosscoder_is_seen_by_it_and_noted_once(builtin, crosscoder, random_coder) -> None:
    outer = random_coder(256, 16, seed=5)
    with steer(builtin, outer, "1.resid_post", [Edit(2, "add", 30, "raw")]) as around:
        moved = seen(builtin, batch_of(IDS), STREAM)
        around.log.clear()
        with steer(builtin, crosscoder, STREAM, [Edit(3, "ablate")]) as run:
            builtin.logits(batch_of(IDS))
    x = torch.stack([vectors[0, 1:] for vectors in moved], dim=1)
    torch.testing.assert_close(run.log[0].before[:, 0], crosscoder.encode(x).to_dense()[:, 3])
    assert len(around.log) == 1


def test_directions_at_one_of_the_sites(builtin, cross_layer) -> None:
    d = {"cat": torch.arange(256.0)}
    clean = seen(builtin, batch_of(IDS), WRITES)
    edits = [DirectionEdit("cat", "add", 2, "norm", layer="2")]
    with steer(
        builtin, cross_layer, WRITES, edits, source=READS, directions=d, scales=Scales(norm=(3.0, 5.0))
    ):
        found = seen(builtin, batch_of(IDS), WRITES)
    assert torch.equal(found[0], clean[0])
    torch.testing.assert_close(found[1][0, 1:], clean[1][0, 1:] + 10 * d["cat"] / d["cat"].norm())
    for layer in (None, "7"):
        with pytest.raises(ConfigError, match="at which one is not said") as error:
            steer(
                builtin, cross_layer, WRITES, [DirectionEdit("cat", "project-out", layer=layer)], source=READS
            )
        assert "2.mlp_out" in (error.value.allowed or "")


def test_scales_of_several_sites(cross_layer) -> None:
    x, y = torch.randn(2, 5, 2, 256, generator=torch.Generator().manual_seed(0))
    assert measure(cross_layer, [Batch(x, y)]).norms == pytest.approx(y.norm(dim=2).mean(0).tolist())


def test_a_module_of_transformers_as_the_language_model(builtin, cross_layer) -> None:
    with steer(builtin, cross_layer, WRITES, EDITS, source=READS) as run:
        one = builtin.generate(IDS, 6)
    parts = [f"model.layers.{n}.mlp" for n in (1, 2)]
    source = [ModuleSite(part, "input") for part in parts]
    with steer(builtin.model, cross_layer, parts, EDITS, source=source) as other:
        mask = torch.ones_like(IDS)
        two = builtin.model.generate(IDS, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert torch.equal(one, two)
    assert [(a.columns, a.places.tolist()) for a in run.log] == [
        (a.columns, a.places.tolist()) for a in other.log
    ]


def test_what_is_refused(builtin, cross_layer, crosscoder) -> None:
    parts = ["model.layers.0", "model.layers.2"]
    with (
        pytest.raises(ConfigError, match="each pass needs one before it"),
        steer(builtin.model, crosscoder, parts, [Edit(3, "ablate")]),
    ):
        pass
    with pytest.raises(ConfigError, match="reads 2 and writes 2 layers, and there are 1 sites to read"):
        steer(builtin, crosscoder, STREAM[0], [])
    with pytest.raises(ConfigError, match="a transcoder reads another site"):
        steer(builtin, cross_layer, WRITES, [])
    with (
        steer(builtin, cross_layer, WRITES, EDITS, source=READS),
        pytest.raises(ConfigError, match=r"2\.mlp_out is steered already"),
        steer(builtin, cross_layer, WRITES[::-1], EDITS, source=READS[::-1]),
    ):
        pass
