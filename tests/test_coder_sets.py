"""A coder for each of several layers: trained, stored, evaluated, quantized and spliced as one and alone.

Shapes: B tokens, L layers, D width, F latents.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from qsae_sae_topk import TopKConfig
from qsae_sae_topk.model import TopKSAE
from safetensors.torch import load_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import places
from qsae_core.coders.coder_set import CoderSet
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts import Batch, CoderShape, OneLayer, observe
from qsae_core.errors import ArtifactError, ConfigError, DataError, TrainingError
from qsae_core.evaluation.stored import load_result
from qsae_core.results.files import read_json
from qsae_core.training.trainer import Trainer

L, D, F, K = 3, 16, 64, 4
SMALL = (
    f"--n-latents {F} --k {K} --steps 30 --batch-size 128 --statistics-tokens 512 --eval-tokens 512 "
    "--threads 1 --lr 0.003"
)
LM = "--data lm --context 64 --buffer-tokens 2048 --eval reconstruction --eval loss-recovered"


def qsae(line: str, *paths: object):
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, paths)], prog_name="qsae")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def summary_of(line: str, *paths: object) -> dict:
    result = qsae(line, *paths, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def states(tmp_path_factory) -> pathlib.Path:
    """``[N, L, D]``; the later a layer, the larger its vectors."""
    rng = np.random.default_rng(0)
    codes = rng.random((8192, 48)) * (rng.random((8192, 48)) < 0.08)
    layers = [
        10.0**i * (codes @ rng.normal(size=(48, D)) + 0.05 * rng.normal(size=(8192, D))) for i in range(L)
    ]
    path = tmp_path_factory.mktemp("states") / "states.npy"
    np.save(path, np.stack(layers, 1).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def trained(states, tmp_path_factory) -> pathlib.Path:
    """A run of ternary coders and their float twins, float masters kept."""
    out = tmp_path_factory.mktemp("set")
    line = f"train --sae ternary --quantizer ste --per-layer --save-float --middle layers {SMALL} --data-path"
    return pathlib.Path(summary_of(line, states, "--out", out)["path"])


def tensors(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_file(folder / places.TENSORS)


def same(one: pathlib.Path, other: pathlib.Path) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- training


@pytest.mark.parametrize(
    "sae", ["topk", "ternary --quantizer ste", "batchtopk", "topk --quantizer stochastic"]
)
def test_each_is_what_it_would_be_alone(tmp_path, sae):
    line = f"train --sae {sae} {LM} {SMALL} --eval-every 0 --out {tmp_path}"
    together = pathlib.Path(summary_of(f"{line} --layers 1,3 --per-layer")["path"])
    assert together.parent.name == "1-3"
    for layer in (1, 3):
        alone = pathlib.Path(summary_of(f"{line} --layer {layer}")["path"])
        assert same(together / "checkpoints" / "final" / str(layer), alone / "checkpoints" / "final")
        of_set = read_json(together / "metrics.json")["coders"]["coder"]["layers"][str(layer)]
        of_one = read_json(alone / "metrics.json")["coders"]["coder"]
        for evaluation, values in of_one["evaluations"].items():
            assert of_set["evaluations"][evaluation] == pytest.approx(values, rel=1e-5), evaluation


def test_what_a_run_says(trained):
    coders = read_json(trained / "metrics.json")["coders"]
    assert list(coders) == ["coder", "float_twin"]
    for entry in coders.values():
        assert list(entry["layers"]) == ["0", "1", "2"]
        whole = entry["evaluations"]["reconstruction"]
        own = [layer["evaluations"]["reconstruction"] for layer in entry["layers"].values()]
        assert whole["fvu"] == pytest.approx(sum(v["fvu"] for v in own) / L)
        assert whole["l0"] == pytest.approx(sum(v["l0"] for v in own))
        assert whole["n_tokens"] == own[0]["n_tokens"]
        assert entry["artifact"]["float_bytes"] == sum(
            e["artifact"]["float_bytes"] for e in entry["layers"].values()
        )
    log = [json.loads(line) for line in (trained / "metrics" / "log.jsonl").read_text().splitlines()]
    assert {"0/fvu", "2/loss", "float_twin/1/fvu"} <= log[-1].keys()
    assert "fvu" not in log[-1]
    result, about = load_result(trained / "evaluations" / "layers" / "1" / "reconstruction")
    assert about["layer"] == "1"
    assert result.values["fvu"] == coders["coder"]["layers"]["1"]["evaluations"]["reconstruction"]["fvu"]


def test_files_are_those_of_all_coders(trained):
    n_bytes = sum(f.stat().st_size for f in (trained / "checkpoints" / "final").rglob("co*.*"))
    entry = read_json(trained / "metrics.json")["coders"]["coder"]
    assert entry["artifact"]["bytes"] == n_bytes


def test_a_resumed_run_ends_alike(states, tmp_path, monkeypatch):
    line = f"train --sae topk --middle layers --per-layer {SMALL} --checkpoint-every 10 --data-path"
    whole = pathlib.Path(summary_of(line, states, "--out", tmp_path / "whole")["path"])
    original = Trainer.step

    def failing(self, batch, step):
        if step == 17:
            raise TrainingError("cut off")
        original(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", failing)
        assert qsae(line, states, "--out", tmp_path / "cut").exit_code != 0
    wrong = qsae(line.replace("--per-layer", ""), states, "--out", tmp_path / "cut", "--resume")
    assert wrong.exit_code != 0
    resumed = pathlib.Path(summary_of(line, states, "--out", tmp_path / "cut", "--resume")["path"])
    for i in range(L):
        assert same(*(run / "checkpoints" / "final" / str(i) for run in (whole, resumed)))


def test_a_record_repeats_the_run(trained, tmp_path):
    again = summary_of(f"train --config {trained / 'config.json'} --out {tmp_path}")
    for i in range(L):
        first, second = (
            run / "checkpoints" / "final" / str(i) for run in (trained, pathlib.Path(again["path"]))
        )
        assert same(first, second)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--sae topk --middle layers", "--per-layer for a coder of each layer"),
        ("--sae crosscoder --middle layers --per-layer", "leave --per-layer out"),
        ("--sae topk --middle positions --per-layer", "the data gives one"),
    ],
)
def test_what_does_not_go_together(states, tmp_path, flags, said):
    result = qsae(f"train {flags} {SMALL} --out {tmp_path} --data-path", states)
    assert result.exit_code != 0
    assert said in result.output
    assert not list(tmp_path.iterdir())


def test_a_layer_that_does_not_vary_is_named(states, tmp_path):
    x = np.load(states)
    x[:, 1] = 3
    np.save(tmp_path / "x.npy", x)
    line = f"train --sae topk --middle layers --per-layer {SMALL} --out {tmp_path / 'out'} --data-path"
    result = qsae(line, tmp_path / "x.npy")
    assert result.exit_code != 0
    assert "data, layer 1: the vectors do not vary" in result.output


def test_layers_of_one_folder_are_refused_before_training(states, tmp_path, monkeypatch):
    from qsae_data_tensors.source import TensorsSource

    monkeypatch.setattr(TensorsSource, "layer_names", ("Up/1", "up-1", "down"))
    line = f"train --sae topk --middle layers --per-layer {SMALL} --out {tmp_path} --data-path"
    result = qsae(line, states)
    assert result.exit_code != 0
    assert "two of the layers Up/1, up-1, down would have the same folder" in result.output
    assert not list(tmp_path.iterdir())


# --- the set as a coder


def test_it_is_a_coder_of_all_layers(trained, states):
    coders = qsae_core.load_set(trained)
    assert isinstance(coders, CoderSet)
    assert (coders.names, coders.n_latents, coders.shape) == (("0", "1", "2"), L * F, (D, D, L, L))
    x = torch.from_numpy(np.load(states)[:50])
    codes = coders.encode(x)
    assert torch.equal(coders.decode(codes), coders(x))
    own = [qsae_core.load(trained / "checkpoints" / "final" / name) for name in coders.names]
    dense = torch.cat([coder.encode(x[:, i].contiguous()).to_dense() for i, coder in enumerate(own)], 1)
    assert torch.equal(codes.to_dense(), dense)
    apart = torch.stack([coder(x[:, i].contiguous()) for i, coder in enumerate(own)], 1)
    torch.testing.assert_close(coders(x), apart)
    for i in range(L):
        assert coders.layers_read(i) == (i,)
        assert torch.equal(coders.reconstruct_layer(x[:, i : i + 1], i), apart[:, i])
    # what a latent of 1 adds to a reconstruction is its atom, in its own layer
    bare = coders.decode(codes.with_values(torch.zeros_like(codes.values)))
    summed = torch.einsum("bf,fld->bld", codes.to_dense(), coders.atoms())
    torch.testing.assert_close(bare + summed, coders(x), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(coders.atoms().norm(dim=2), coders.atom_norms())


def test_what_is_observed_is_what_each_gives(trained, states):
    coders = qsae_core.load_set(trained)
    x = torch.from_numpy(np.load(states)[:50])
    errors = coders.atom_errors()
    assert errors is not None
    seen = observe(coders, Batch(x, x), errors)
    assert torch.equal(seen.codes.to_dense(), coders.encode(x).to_dense())
    assert seen.target.shape == seen.reconstruction.shape == (50, L, D)
    assert len(seen.layers) == L
    for i, (layer, coder) in enumerate(zip(seen.layers, coders.by_layer(), strict=True)):
        alone = observe(coder, Batch(x, x).layer(i), coder.atom_errors())
        assert torch.equal(layer.reconstruction, alone.reconstruction)
        assert torch.equal(seen.reconstruction[:, i], alone.reconstruction)
        assert torch.equal(layer.codes.to_dense(), alone.codes.to_dense())
        assert layer.atom_errors is not None
        assert alone.atom_errors is not None
        assert torch.equal(layer.atom_errors.squared_sines, alone.atom_errors.squared_sines)
        assert torch.equal(layer.atom_errors.norms, alone.atom_errors.norms)


def test_vectors_of_another_shape(trained):
    coders = qsae_core.load_set(trained)
    with pytest.raises(DataError, match="the vectors have the shape"):
        coders.encode(torch.zeros(5, L + 1, D))
    with pytest.raises(DataError, match="latents"):
        coders.decode(coders["0"].encode(torch.ones(5, D)))


def test_what_is_no_set(trained):
    coders = qsae_core.load_set(trained)
    with pytest.raises(ConfigError, match="one shape"):
        CoderSet({})
    with pytest.raises(ConfigError, match="one shape"):
        CoderSet({"0": coders["0"], "1": built(8)})
    with pytest.raises(ConfigError, match="no coder of layer 9") as caught:
        coders[9]
    assert caught.value.allowed == "0, 1, 2"
    assert (list(coders), len(coders), coders[1]) == (["0", "1", "2"], L, coders["1"])
    with pytest.raises(DataError, match="the vectors have the shape"):
        coders.reconstruct_layer(torch.zeros(5, L, D), 1)


def built(width: int) -> TopKSAE:
    config = TopKConfig(n_latents=F, normalize="none", rotate=False)
    return TopKSAE(config, CoderShape(width, width), plain_parts(k=K))


def test_its_loss_is_that_of_each(trained, states):
    coders = qsae_core.load_set(trained).train()
    x = torch.from_numpy(np.load(states)[:64])
    out = coders.loss(Batch(x, x))
    fresh = qsae_core.load_set(trained).train()
    for i, name in enumerate(fresh.names):
        own = fresh[name].loss(Batch(x, x).layer(i))
        for term, value in own.terms.items():
            torch.testing.assert_close(out.terms[f"{name}/{term}"], value)


# --- evaluating


def test_evaluated_again(trained):
    before = read_json(trained / "metrics.json")["coders"]["coder"]
    found = summary_of("evaluate", trained)
    assert found["evaluations"]["reconstruction"] == pytest.approx(before["evaluations"]["reconstruction"])
    for layer, entry in found["layers"].items():
        kept = before["layers"][layer]["evaluations"]["reconstruction"]
        assert entry["evaluations"]["reconstruction"] == pytest.approx(kept)
    shown = qsae("evaluate", trained).output
    assert "layer 2" in shown
    one = summary_of("evaluate", trained / "checkpoints" / "final" / "1")
    assert one["evaluations"]["reconstruction"] == pytest.approx(
        before["layers"]["1"]["evaluations"]["reconstruction"]
    )


def test_what_is_said_of_atoms_is_of_those_that_are_stored(states, tmp_path):
    """Not of a training step's, which chance rounds otherwise."""
    line = f"train --sae topk --quantizer stochastic --per-layer --save-float --middle layers {SMALL}"
    run = pathlib.Path(summary_of(f"{line} --eval-every 0 --out {tmp_path} --data-path", states)["path"])
    trained = read_json(run / "metrics.json")["coders"]["coder"]["evaluations"]["reconstruction"]
    again = summary_of("evaluate", run)["evaluations"]["reconstruction"]
    assert trained["weight_error"] == pytest.approx(again["weight_error"])


def test_a_coder_of_a_set_takes_vectors_of_its_layer_alone(trained, states, tmp_path):
    np.save(tmp_path / "one.npy", np.load(states)[:, 1])
    line = f"evaluate {trained / 'checkpoints' / 'final' / '1'} --middle positions --data-path"
    found = summary_of(line, tmp_path / "one.npy")
    assert found["evaluations"]["reconstruction"]["fvu"] < 1


def test_data_of_other_layers(trained, states, tmp_path):
    np.save(tmp_path / "two.npy", np.load(states)[:, :2])
    result = qsae(f"evaluate {trained} --data-path", tmp_path / "two.npy")
    assert result.exit_code != 0
    assert " in each of 2 layers, and the coder's of width " in result.output


def test_one_pass_reads_the_data_once(trained, monkeypatch):
    from qsae_data_tensors.source import TensorsSource

    calls = []
    original = TensorsSource.held_out

    def counting(self, n_tokens, batch_size):
        calls.append(n_tokens)
        return original(self, n_tokens, batch_size)

    monkeypatch.setattr(TensorsSource, "held_out", counting)
    summary_of("evaluate", trained, "--no-compare-float")
    assert len(calls) == 1


# --- quantizing


@pytest.mark.parametrize("more", ["", "--encoder-quantizer stochastic --finetune encoder --finetune-steps 5"])
def test_quantized_each_as_it_would_be_alone(trained, tmp_path, more):
    line = f"quantize --quantizer rtn --quantizer.n-bits 4 {more} --tokens 1024 --out"
    together = summary_of(line, tmp_path / "set", trained)
    made = pathlib.Path(together["path"]) / "checkpoints" / "final"
    assert together["quantized_from"]["of_masters"] is True
    for name in ("0", "2"):
        alone = summary_of(line, tmp_path / name, trained / "checkpoints" / "final" / name)
        assert same(made / name, pathlib.Path(alone["path"]) / "checkpoints" / "final")
        own = together["coders"]["coder"]["layers"][name]["evaluations"]["reconstruction"]
        assert own == pytest.approx(alone["coders"]["coder"]["evaluations"]["reconstruction"])
    twins = summary_of(line, tmp_path / "twins", trained / "checkpoints" / "float_twin")
    assert twins["quantized_from"]["of_masters"] is False


# --- comparing


def test_compared_as_one_and_each(trained):
    def rows(*paths):
        result = qsae("compare --json", *paths)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    folder = trained / "checkpoints" / "final"
    entry = read_json(trained / "metrics.json")["coders"]["coder"]
    whole, twin = rows(trained)
    assert (whole["mean"]["bytes"], twin["label"]) == (entry["artifact"]["bytes"], "float twin")
    assert whole["mean"]["fvu"] == pytest.approx(entry["evaluations"]["reconstruction"]["fvu"])
    each = rows(folder / "0", folder / "2")
    assert [row["label"] for row in each] == ["ternary (ste) (data.layer=0)", "ternary (ste) (data.layer=2)"]
    twin = rows(folder / "0", trained, trained / "checkpoints" / "float_twin" / "0")
    delta = 100 * (twin[0]["mean"]["fvu"] - twin[-1]["mean"]["fvu"])
    assert twin[-1]["label"] == "float twin, layer 0"
    assert twin[0]["mean"]["delta_fvu_points"] == pytest.approx(delta)  # not of all layers' twins
    for row, layer in zip(each, ("0", "2"), strict=True):
        assert row["mean"]["fvu"] == entry["layers"][layer]["evaluations"]["reconstruction"]["fvu"]


def test_compared_by_the_folder_of_all_coders(trained, tmp_path):
    def rows(*paths):
        result = qsae("compare --json", *paths)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    folders = trained / "checkpoints" / "final", trained / "checkpoints" / "float_twin"
    assert rows(*folders) == rows(trained)
    shutil.copytree(folders[0], tmp_path / "copy")
    (copy,) = rows(tmp_path / "copy")
    assert copy["mean"]["bits_whole"] == rows(trained)[0]["mean"]["bits_whole"]
    evaluated = qsae("compare --evaluate", folders[0] / "0", folders[0] / "2").output
    assert "FVUs of different data do not compare" in evaluated


# --- files


def test_where_one_coder_is_asked_for(trained):
    for command in ("bench", "export --format none --out x"):
        result = qsae(command, trained)
        assert result.exit_code != 0
    with pytest.raises(ArtifactError, match="holds several coders") as caught:
        qsae_core.load(trained)
    assert str(trained / "checkpoints" / "final" / "1") in str(caught.value.allowed)
    with pytest.raises(ArtifactError, match="holds one coder, and no set"):
        qsae_core.load_set(trained / "checkpoints" / "final" / "1")


@pytest.mark.parametrize(
    "fault",
    [
        "missing",
        "exchanged",
        "altered",
        "escaping",
        "version",
        "empty",
        "list",
        "swapped",
        "twice",
        "no name",
    ],
)
def test_damaged(trained, tmp_path, fault):
    folder = tmp_path / "final"
    shutil.copytree(trained / "checkpoints" / "final", folder)
    record = json.loads((folder / places.MEMBERS).read_text())
    if fault == "missing":
        shutil.rmtree(folder / "1")
    elif fault == "exchanged":
        shutil.rmtree(folder / "1")
        shutil.copytree(folder / "0", folder / "1")
    elif fault == "altered":
        file = folder / "1" / places.TENSORS
        file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    elif fault == "escaping":
        record["coders"][0]["folder"] = "../final/0"
    elif fault == "version":
        record["format_version"] = 2
    elif fault == "empty":
        record["coders"] = []
    elif fault == "swapped":
        first, second = record["coders"][:2]
        first["layer"], second["layer"] = second["layer"], first["layer"]
    elif fault == "twice":
        record["coders"][1] = record["coders"][0]
    elif fault == "no name":
        record["coders"][1]["layer"] = ["1"]
    else:
        record = [record]
    if fault not in ("missing", "exchanged", "altered"):
        (folder / places.MEMBERS).write_text(json.dumps(record))
    with pytest.raises(ArtifactError):
        qsae_core.load_set(folder)


def test_a_long_name_of_a_layer(trained, tmp_path):
    from qsae_core.artifact.coder_sets import save_set
    from qsae_core.config.layers import checked_layer
    from qsae_core.config.run import resolve
    from qsae_core.plugins.records import load_plugins

    registry = load_plugins().registry
    config = resolve([checked_layer({"sae": {"use": "ternary"}}, "test")], registry)
    coders = CoderSet(dict(zip(["a" * 300, "b", "c"], qsae_core.load_set(trained).by_layer(), strict=True)))
    save_set(coders, tmp_path / "set", config, registry, {name: {} for name in coders.names})
    assert tuple(places.member_folders(tmp_path / "set")) == coders.names


# --- several layers of a language model, for transcoders


@pytest.mark.parametrize(
    ("flags", "sources", "targets", "name"),
    [
        ({"layers": "1,3"}, ["1.resid_post", "3.resid_post"], None, "1-3"),
        ({"layers": "1,3", "site": "mlp_out"}, ["1.mlp_out", "3.mlp_out"], None, "1-3-mlp_out"),
        (
            {"layers": "1,3", "source_site": "mlp_in", "target_site": "mlp_out"},
            ["1.mlp_in", "3.mlp_in"],
            ["1.mlp_out", "3.mlp_out"],
            "1-3-mlp_in-mlp_out",
        ),
        ({"layers": "0-1", "target_site": "mlp_in"}, ["0.mlp_in", "1.mlp_in"], None, "0-1-mlp_in"),
    ],
)
def test_sites_of_several_layers(flags, sources, targets, name):
    from qsae_data_lm import LmConfig
    from qsae_data_lm.source import LmSource

    data = LmSource(LmConfig(context=64, buffer_tokens=1024, **flags))
    try:
        assert list(map(str, data.source_sites)) == sources
        assert list(map(str, data.target_sites)) == (targets or sources)
        assert data.layer == name
        tokens, batch = next(data.held_out_contexts(100, 100))
        assert (batch.y is batch.x) is (targets is None)
        read = data.language_model().read(tokens, [*data.source_sites, *data.target_sites])
        for i in range(2):
            own = batch.layer(i)
            assert torch.equal(own.x, read[data.source_sites[i]][tokens.counted])
            assert torch.equal(own.y, read[data.target_sites[i]][tokens.counted])
            assert (own.y is own.x) is (targets is None)
            view = OneLayer(data, i)
            assert (view.source_sites, view.target_sites) == (
                data.source_sites[i : i + 1],
                data.target_sites[i : i + 1],
            )
            _, of_view = next(view.held_out_contexts(100, 100))
            assert torch.equal(of_view.x, own.x)
    finally:
        data.close()
