"""Stores that are not complete: said wherever they are used, with the command that completes them."""

from __future__ import annotations

import json
import shlex
import shutil
from unittest import mock

import pytest
import torch
from click.testing import CliRunner
from qsae_store.folder import open_folder
from qsae_store.manifest import read_manifest
from qsae_store.verify import Damage, drop_damaged

from qsae_cli.main import cli
from qsae_core.errors import DataError
from qsae_core.runs import checked_layer, evaluate_artifact, load_plugins, resolve, train


@pytest.fixture
def torn(whole, tmp_path):
    """A store whose third training shard was dropped."""
    place = tmp_path / "torn store"
    shutil.copytree(whole, place)
    drop_damaged(str(place), [Damage("training-00002", "training-00002.safetensors", "is missing")])
    return place


def vectors(place, names=None):
    records = read_manifest(open_folder(str(place))).shards["training"]
    return sum(record.vectors for record in records if names is None or record.name in names)


def test_what_is_read_of_what_is_said(harvest, whole, torn):
    read = vectors(whole, {"training-00000", "training-00001"})
    behind = len(read_manifest(open_folder(str(whole))).shards["training"]) - 3
    said = harvest.store(torn, layer=1).warning()
    assert f"{read:,} training vectors, of one pass over the text" in said
    assert f"({behind} shards behind training-00002, which is missing, are not)" in said
    assert "all 6" in said  # held-out vectors: the fewest contexts with 600
    assert harvest.store(whole, layer=1).warning() is None


def test_what_was_asked_for_is_said(harvest, tmp_path):
    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.shard == "training-00001":
            raise Killed

    place = tmp_path / "store"
    with pytest.raises(Killed):
        harvest(place, tokens=2000, watch=kill)
    store = harvest.store(place, layer=1)
    assert f"{store.training_tokens:,} of 2,000 training vectors and all 6" in store.warning()


@pytest.mark.parametrize(
    "options",
    [{}, {"sites": None, "layers": [0, 2], "site": "mlp_out", "separate_documents": True, "tokens": 2000}],
)
def test_the_command_that_is_named_completes_the_store(harvest, tmp_path, same_files, options):
    whole, place = tmp_path / "whole", tmp_path / "torn store"
    assert harvest(whole, **options)
    shutil.copytree(whole, place)
    drop_damaged(str(place), [Damage("training-00002", "training-00002.safetensors", "is missing")])
    command = harvest.store(place).warning().partition("this completes it: ")[2]
    done = CliRunner().invoke(cli, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    same_files(place, whole)


def test_info_says_it(torn):
    done = CliRunner().invoke(cli, ["cache", "info", str(torn)])
    assert "is not complete" in done.stderr
    found = json.loads(CliRunner().invoke(cli, ["cache", "info", str(torn), "--json"]).stdout)
    assert not found["complete"]
    assert "training-00002, which is missing" in found["lacking"]


def test_training_and_evaluation_say_it(torn, tmp_path):
    tree = {
        "sae": {"use": "baseline", "n_latents": 64},
        "sparsity": {"use": "topk", "k": 4},
        "data": {"use": "store", "path": str(torn), "layer": 1},
        "train": {"steps": 2, "batch_size": 64, "statistics_tokens": 128, "eval_every": 0, "eval_tokens": 64},
        "run": {"device": "cpu", "out": str(tmp_path / "results")},
        "evaluate": ["reconstruction"],
    }
    plugins, watcher = load_plugins(), mock.MagicMock()
    config = resolve([checked_layer(tree, "test")], plugins.registry)
    run = train(config, plugins, watcher)
    said = [call.args[0] for call in watcher.method_calls if call[0] == "message"]
    first = next(n for n, line in enumerate(said) if "is not complete" in line)
    assert first < next(n for n, line in enumerate(said) if "measuring statistics" in line)
    entry = evaluate_artifact(run.final, config, plugins.registry).entry
    assert "is not complete" in entry["measured"]["warning"]


def test_a_store_without_a_vector_names_the_command(harvest, whole, tmp_path):
    place = tmp_path / "store"
    shutil.copytree(whole, place)
    drop_damaged(str(place), [Damage("training-00000", "training-00000.safetensors", "is missing")])
    with pytest.raises(DataError, match="has not written one training vector") as caught:
        harvest.store(place, layer=1)
    assert caught.value.next.startswith("qsae cache --data lm --data.")


def test_a_run_goes_on_with_the_shards_that_it_began_with(harvest, torn):
    """Its batches are those that it would have had; and what it is asked for next is as at the beginning."""
    options = {"layer": 1, "shuffle_blocks": 4}
    store = harvest.store(torn, **options)
    began = store.training_tokens
    store.next_batch(300)
    state = json.loads(json.dumps(store.state_dict()))
    expected = [store.next_batch(began).x for _ in range(2)]
    described = store.describe()["training_vectors"]
    assert harvest(torn)
    grown = harvest.store(torn, **options)
    assert grown.training_tokens > began
    assert grown.warning() is None
    grown.load_state_dict(state)
    assert grown.state_dict() == state
    for x in expected:
        assert torch.equal(grown.next_batch(began).x, x)
    assert (grown.training_tokens, grown.describe()["training_vectors"]) == (began, described)
    assert f"the {began:,} training vectors with which it began" in grown.warning()


def test_a_run_does_not_go_on_where_shards_are_gone(harvest, whole, torn):
    state = harvest.store(whole, layer=1).state_dict()
    with pytest.raises(DataError, match="another one than when the run was interrupted"):
        harvest.store(torn, layer=1).load_state_dict(state)
