"""Training from a store: order, resuming, choice of places, and what is refused."""

from __future__ import annotations

import collections
import json
import resource
import shutil

import pytest
import torch
from qsae_store import reader as reader_module
from qsae_store.folder import open_folder
from qsae_store.records import read_sums

from qsae_core.contracts import LanguageModel, Site, shard
from qsae_core.errors import DataError


def rows(batch):
    """Each vector as a key that is its own."""
    return [tuple(row) for row in batch.x.reshape(len(batch), -1)[:, :6].tolist()]


def test_a_pass_gives_every_vector_once(harvest, whole):
    store = harvest.store(whole, layer=1, shuffle_blocks=4)
    batch = store.next_batch(store.training_tokens)
    live = harvest.open(sites="1.resid_post")
    model, site = live.language_model(), Site(1, "resid_post")
    expected = torch.cat(
        [model.read(tokens, [site])[site][tokens.counted] for tokens, _ in live.contexts(16)]
    )
    assert collections.Counter(rows(batch)) == collections.Counter(
        tuple(row) for row in expected[:, :6].tolist()
    )


def test_each_batch_is_a_sample_of_the_whole_store(harvest, tmp_path):
    """As many different contexts are in a batch as in one of a full permutation, but for chance."""
    place, size = tmp_path / "store", 256
    assert harvest(place, layer=1, sites=None, shard_positions=4096)
    store = harvest.store(place)
    contexts = store._stream.take(store.training_tokens)[-1][:, 2]
    assert len(contexts.unique()) == sum(len(tokens.ids) for tokens, _ in store.contexts(64))
    generator = torch.Generator().manual_seed(0)
    drawn = (contexts[torch.randperm(len(contexts), generator=generator)[:size]] for _ in range(200))
    expected = torch.tensor([len(some.unique()) for some in drawn]).double()
    # a third of the blocks make a pool: with neighbours in a block it would have a third of the contexts
    stores = [harvest.store(place, seed=seed, shuffle_blocks=len(contexts) // 64 // 3) for seed in range(20)]
    found = torch.tensor([len(store._stream.take(size)[-1][:, 2].unique()) for store in stores]).double()
    chance = float(expected.std()) * (1 / 20 + 1 / 200) ** 0.5
    assert abs(float(found.mean() - expected.mean())) < 4 * chance + 0.02 * float(expected.mean())


def test_two_places_are_of_the_same_tokens(harvest, tmp_path):
    place = tmp_path / "store"
    assert harvest(place, sites="0.mlp_in,0.mlp_out", target_sites=None)
    store = harvest.store(place, source_layer=0)
    batch = store.next_batch(300)
    assert store.source_sites == (Site(0, "mlp_in"),)
    assert store.target_sites == (Site(0, "mlp_out"),)
    model = harvest.open().language_model().model
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        expected = mlp(batch.x.to(model.dtype)).float()
    assert torch.allclose(batch.y, expected, rtol=0.05, atol=0.05 * float(expected.std()))


def test_what_is_not_said_is_what_the_harvest_read(harvest, tmp_path):
    place = tmp_path / "pair"
    assert harvest(place, sites=None, source_layer=0, target_layer=1)
    store = harvest.store(place)
    assert (store.source_sites, store.target_sites) == ((Site(0, "mlp_in"),), (Site(1, "mlp_out"),))
    assert store.layer == "0-1"


def test_the_layer_alone_is_enough_where_one_site_is_stored(harvest, tmp_path):
    place = tmp_path / "store"
    assert harvest(place, sites=None, layers="0,2", site="mlp_out", tokens=300)
    assert harvest.store(place, layer=2).source_sites == (Site(2, "mlp_out"),)
    assert harvest.store(place, layers="0,2").layers_in == 2
    assert harvest.store(place).layers_in == 2


def test_a_place_that_is_not_stored_is_refused(harvest, whole):
    with pytest.raises(DataError, match=r"2\.resid_post is not stored") as caught:
        harvest.store(whole, layer=2)
    assert caught.value.allowed == "0.mlp_in, 1.resid_post"
    assert "with --layer and --site" in caught.value.next
    with pytest.raises(DataError, match=r"1\.mlp_in is not stored") as caught:
        harvest.store(whole, source_layer=1, source_site="mlp_in", target_layer=1, target_site="resid_post")
    assert "with --source-layer, --source-site, --target-layer and --target-site" in caught.value.next


@pytest.mark.parametrize("storage", ["bf16", "fp16", "int8"])
def test_formats_give_nearly_the_same_vectors(harvest, whole, tmp_path, storage):
    place = tmp_path / storage
    assert harvest(place, storage=storage)
    exact, rounded = (harvest.store(p, layer=1).next_batch(500).x for p in (whole, place))
    error = float((exact - rounded).square().sum() / (exact - exact.mean(0)).square().sum())
    assert 0 < error < {"bf16": 1e-4, "fp16": 1e-6, "int8": 1e-2}[storage]


def test_the_model_is_opened_where_it_is_now(harvest, whole, tmp_path):
    model = harvest.store(whole, layer=1).language_model()
    tokens, batch = next(iter(harvest.store(whole, layer=1).held_out_contexts(50, 64)))
    found = model.read(tokens, [Site(1, "resid_post")])[1, "resid_post"][tokens.counted]
    assert torch.equal(found, batch.x)
    assert "Line" in model.decode(tokens.ids[0])
    assert type(model).logits_each is not LanguageModel.logits_each  # as the model's own, which keeps layers
    for logits in model.logits_each(tokens, [None, {}]):
        assert torch.equal(logits, model.logits(tokens))
    assert bytes.fromhex("e282ac") == b"".join(model.partial_bytes(i) or b"" for i in model.encode("€"))
    with pytest.raises(DataError, match="nowhere"):
        harvest.store(whole, layer=1, model_path=str(tmp_path / "nowhere")).language_model().logits(tokens)


def test_other_weights_are_refused(harvest, whole, tmp_path):
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    other = tmp_path / "other"
    builtin = harvest.open().language_model().model.config
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(builtin).save_pretrained(other)
    from qsae_data_lm.places import locate

    AutoTokenizer.from_pretrained(locate("builtin").path).save_pretrained(other)
    tokens, _ = next(iter(harvest.store(whole, layer=1).held_out_contexts(50, 64)))
    with pytest.raises(DataError, match="is not the one that was harvested from"):
        harvest.store(whole, layer=1, model_path=str(other)).language_model().logits(tokens)


def damaged(whole, tmp_path, name, change):
    place = tmp_path / "damaged"
    shutil.copytree(whole, place)
    path = place / name
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return place


def test_a_missing_and_a_truncated_shard_are_named(harvest, whole, tmp_path):
    place = damaged(
        whole, tmp_path, "training-00002.safetensors", lambda data: data.__delitem__(slice(-9, None))
    )
    with pytest.raises(DataError, match="bytes and should have") as caught:
        harvest.store(place, layer=1)
    assert caught.value.where.endswith("training-00002.safetensors")
    (place / "training-00002.safetensors").unlink()
    with pytest.raises(DataError, match="is missing"):
        harvest.store(place, layer=1)


def test_altered_bytes_stop_training_where_they_are_read(harvest, whole, tmp_path):
    def change(data):
        data[len(data) // 2] ^= 0x10

    place = damaged(whole, tmp_path, "training-00001.safetensors", change)
    stores = [harvest.store(place, layer=1), harvest.store(place, sites="0.mlp_in")]
    outcomes = []
    for store in stores:
        try:
            store.next_batch(store.training_tokens)
            outcomes.append("")
        except DataError as error:
            outcomes.append(str(error))
    assert any("has been altered" in found and "training-00001" in found for found in outcomes)


def test_a_run_does_not_go_on_with_another_store(harvest, whole, tmp_path):
    state = harvest.store(whole, layer=1).state_dict()
    assert harvest(tmp_path / "other", storage="bf16")
    with pytest.raises(DataError, match="another one than when the run was interrupted"):
        harvest.store(tmp_path / "other", layer=1).load_state_dict(state)


@pytest.mark.parametrize("name", ["manifest.json"])
@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "plan": {}}'])
def test_a_damaged_manifest_is_refused(harvest, whole, tmp_path, name, text):
    def change(data):
        data[:] = text.encode()

    place = damaged(whole, tmp_path, name, change)
    with pytest.raises(DataError, match=r"cannot be read|is of format"):
        harvest.store(place, layer=1)


KEYS = ("plan", "plan.source.use", "plan.seed", "plan.places", "model.name", "model.fingerprint", "record")
KEYS += ("model.has_logits", "shards.training", "shards.training.0.sha256", "held_out")


@pytest.mark.parametrize("key", KEYS)
def test_a_manifest_that_lacks_a_key_is_refused(harvest, whole, tmp_path, key):
    def drop(data):
        tree = json.loads(data)
        *parents, last = key.split(".")
        part = tree
        for name in parents:
            part = part[int(name)] if isinstance(part, list) else part[name]
        del part[last]
        data[:] = json.dumps(tree).encode()

    place = damaged(whole, tmp_path, "manifest.json", drop)
    with pytest.raises(DataError, match=r"cannot be read .*" + key.rpartition(".")[2]) as caught:
        harvest.store(place, layer=1)
    assert "where another version of qsae-store wrote it, harvest anew" in caught.value.next


def test_a_record_without_sums_is_refused(whole, tmp_path):
    def drop(data):
        data[:] = json.dumps(
            {k: v for k, v in json.loads(data).items() if k not in ("sums", "digest")}
        ).encode()

    place = damaged(whole, tmp_path, "training-00000.json", drop)
    with pytest.raises(DataError, match=r"cannot be read .*sums"):
        read_sums(open_folder(str(place)), "training-00000")


def test_a_folder_that_is_no_store_is_refused(harvest, tmp_path):
    with pytest.raises(DataError, match=r"there is no manifest\.json"):
        harvest.store(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="this is no folder"):
        harvest.store(tmp_path / "file")


def test_memory_holds_a_pool_and_not_the_store(harvest, tmp_path):
    """Forty times as many vectors as a pool, read twice over: memory grows by less than the store's size."""
    place = tmp_path / "store"
    assert harvest(place, sites="0.mlp_in,0.mlp_out,1.mlp_in,1.mlp_out,1.resid_post")
    store = harvest.store(place, layers="0,1", site="mlp_in", shuffle_blocks=2)
    store.next_batch(64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2 * store.training_tokens // 64):
        store.next_batch(64)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < sum(path.stat().st_size for path in place.iterdir()) / 2


def test_a_text_is_known_again_whether_it_is_read_or_stored(harvest, whole, tmp_path):
    """What a coder was trained on is the text: from a store, from another store of it, or by the model."""
    from qsae_core.contracts import Overlap

    stored, read = harvest.store(whole, layer=1).held_out_part(), harvest.open().held_out_part()
    assert stored.component == "lm"
    record = json.loads(json.dumps(stored.record()))
    assert read.overlap(record) is Overlap.TRAINING
    assert stored.overlap(json.loads(json.dumps(read.record()))) is Overlap.TRAINING
    assert harvest(tmp_path / "other", layer=2, sites=None, tokens=300)
    assert harvest.store(tmp_path / "other").held_out_part().overlap(record) is Overlap.TRAINING
    otherwise = harvest.open(held_out_share=0.4).held_out_part()
    assert stored.overlap(json.loads(json.dumps(otherwise.record()))) is Overlap.HELD_OUT
    (tmp_path / "text.txt").write_text("".join(f"Another text, line {n}.\n\n" for n in range(2000)))
    foreign = harvest.open(text=str(tmp_path / "text.txt")).held_out_part()
    assert stored.overlap(json.loads(json.dumps(foreign.record()))) is Overlap.NONE


def test_a_pool_opens_each_shard_once(harvest, whole, monkeypatch):
    """However few shards may be open at a time; and its vectors are the same."""
    expected = harvest.store(whole, layer=1).next_batch(2000).x
    monkeypatch.setattr(reader_module, "MOST_OPEN", 2)
    opened = []

    class Counting(reader_module.ShardFile):
        def __init__(self, path, *more):
            opened.append(path.name)
            super().__init__(path, *more)

    monkeypatch.setattr(reader_module, "ShardFile", Counting)
    store = harvest.store(whole, layer=1)
    opened.clear()
    assert torch.equal(store.next_batch(2000).x, expected)
    assert len(opened) > 4
    assert len(opened) == len(set(opened))


def test_processes_read_their_own_blocks(harvest, tmp_path):
    """Together they have the batches of one; each reads its lanes, and the first vectors whole."""
    place = tmp_path / "store"
    assert harvest(place, layer=1, sites=None, shard_positions=1024, tokens=4000)
    one = harvest.store(place)
    parts = [shard(harvest.store(place), rank, 2) for rank in range(2)]
    assert [rows(part.next_whole(100)) for part in parts] == [rows(one.next_batch(100))] * 2
    for size in (50, 700, 1900):
        expected = one.next_batch(2 * size)
        for rank, part in enumerate(parts):
            found = part.next_batch(size)
            assert rows(found) == rows(expected)[rank::2]
            assert torch.equal(found.token_ids, expected.token_ids[rank::2])
            assert part.state_dict() == one.state_dict()
    read = []
    store = harvest.store(place)
    fill = store._reader.read_into
    store._reader.read_into = lambda columns, start: (read.append(start), fill(columns, start))
    shard(store, 1, 2).next_batch(10)
    blocks = len(store._reader.blocks())
    assert blocks / 4 < len(read) < 0.75 * blocks
