"""Stores of conversations, of which whole shards may only be read: no position of theirs counts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from qsae_store.beginning import manifest_of
from qsae_store.estimate import measure
from qsae_store.folder import open_folder
from qsae_store.manifest import read_manifest
from qsae_store.verify import find_damage

from qsae_core.errors import DataError

pytest.importorskip("datasets")

TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """Options of conversations: questions fill many contexts of 16 tokens, answers one."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "t.jinja").write_text(TEMPLATE)
    asked = (" ".join(f"What is {n} + {i} + {n * i}, and why?" for i in range(2)) for n in range(16))
    talks = (
        [{"role": "user", "content": question}, {"role": "assistant", "content": f"It is {n} apples."}]
        for n, question in enumerate(asked)
    )
    (folder / "x.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    texts = {"text": None, "dataset": str(folder / "x.jsonl"), "chat_template": str(folder / "t.jinja")}
    return {**texts, "context": 16, "roles": "assistant"}


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_a_shard_without_a_counted_position_is_one_without_vectors(harvest, chat, tmp_path, storage):
    place = tmp_path / "store"
    sizes = {"shard_positions": 16, "held_out_tokens": 40, "storage": storage}
    assert harvest(place, **sizes, **chat)
    assert find_damage(str(place)) == []
    manifest = read_manifest(open_folder(str(place)))
    for side, records in manifest.shards.items():
        counts = [record.vectors for record in records]
        assert 0 in counts, side
        assert sum(counts) > 0, side
    store = harvest.store(place, layer=1)
    x = torch.cat([store.next_batch(1).x for _ in range(store.training_tokens)])
    norms = x.norm(dim=1)
    found = manifest.statistics["1.resid_post"]
    assert found["least_norm"] == pytest.approx(float(norms.min()), rel=0.02)
    assert found["largest_norm"] == pytest.approx(float(norms.max()), rel=0.02)
    assert math.isfinite(found["mean_norm"])
    assert sum(map(len, store.held_out(20, 8))) == 20
    contexts = list(store.held_out_contexts(10**6, 16))
    assert sum(len(batch) for _, batch in contexts) == sum(r.vectors for r in manifest.shards["held-out"])
    store.held_out_part().take_all()
    contexts = list(store.held_out_contexts(10**6, 16))
    counts = [record.vectors for records in manifest.shards.values() for record in records]
    assert sum(len(batch) for _, batch in contexts) == sum(counts)


def test_a_harvest_of_such_shards_is_estimated(harvest, chat):
    options = {"sites": "1.resid_post", "forward_tokens": 16, **chat}
    source = harvest.open(**options)
    sizes = {"seed": 0, "storage": "int8", "shard_positions": 64, "tokens": 90, "held_out_tokens": 40}
    plan = manifest_of(source, harvest.block(**options).to_dict(), **sizes).plan
    first = next(iter(source.contexts(1)))[0]
    assert not first.counted.any()
    assert measure(source, plan, None)["vectors"] == 90


def test_a_side_of_which_nothing_counts_makes_no_store(harvest, chat, tmp_path):
    """One conversation alone has an answer, and it is one to train on."""
    talks = [[{"role": "user", "content": f"What is {n} + {n} + {n * n}, and why is it?"}] for n in range(16)]
    talks[0].append({"role": "assistant", "content": "It is 0 apples."})
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    with pytest.raises(DataError, match="no position of the held-out text counts"):
        harvest(tmp_path / "store", **{**chat, "dataset": str(tmp_path / "x.jsonl")})
