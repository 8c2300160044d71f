"""Baselines: coders that have learned less, made once and measured beside a trained one."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
from collections.abc import Callable

import pytest
import torch
from click.testing import CliRunner, Result

import qsae_core
from qsae_cli.main import cli
from qsae_core.baselines.random_dictionary import random_dictionary
from qsae_core.coder_options import CoderConfig
from qsae_core.coders.linear import LinearCoder
from qsae_core.conformance import plain_parts
from qsae_core.conformance.reference_parts import L1, PlainConfig
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import Batch, CoderShape
from qsae_core.errors import ConfigError
from qsae_core.measuring import directions
from qsae_core.results.files import read_json
from qsae_core.results.run import Run
from qsae_core.runs import load_other_float

TRAIN = (
    "train --sae topk --n-latents 128 --k 4 --data synthetic --preset tiny --steps 120 --batch-size 256 "
    "--eval-tokens 2048 --eval-every 0 --statistics-tokens 2048 --threads 1 --eval reconstruction --out"
)


def qsae(line: str, *arguments: object) -> Result:
    result = CliRunner().invoke(cli, [*shlex.split(line), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("results")
    qsae(TRAIN, out)
    return next(out.rglob("metrics.json")).parent


@pytest.fixture(scope="module")
def measured(trained: pathlib.Path) -> dict[str, float]:
    """FVU of the coder and of its baselines."""
    asked = "evaluate --eval reconstruction --baseline random --baseline frozen-decoder --json"
    entry = json.loads(qsae(asked, trained).stdout)
    found = {"coder": entry, **entry["baselines"]}
    return {name: e["evaluations"]["reconstruction"]["fvu"] for name, e in found.items()}


def test_what_was_learned_is_worth_something(measured: dict[str, float]) -> None:
    assert measured["coder"] < 0.5 * min(measured["frozen-decoder"], measured["random"])
    assert max(measured.values()) < 1


def test_both_are_kept_and_not_made_again(trained: pathlib.Path, measured: dict[str, float]) -> None:
    files = [file for file in (trained / "baselines").rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    result = qsae("evaluate --eval reconstruction --baseline random --baseline frozen-decoder", trained)
    assert {file: file.stat().st_mtime_ns for file in files} == before
    assert "random dictionary, same L0" in result.output
    kept = trained / "evaluations" / "baselines" / "random" / "reconstruction" / "result.json"
    assert read_json(kept)["values"]["fvu"] == pytest.approx(measured["random"], rel=1e-6)


def test_the_frozen_one_is_the_same_run_but_for_its_decoder(
    trained: pathlib.Path, measured: dict[str, float]
) -> None:
    run = Run(next((trained / "baselines" / "frozen-decoder").rglob("metrics.json")).parent)
    own, its = Run(trained).record(), run.record()
    own["train"] |= {"freeze_decoder": True}
    assert its["train"] == own["train"]
    assert {k: its[k] for k in ("sae", "data", "sparsity")} == {
        k: own[k] for k in ("sae", "data", "sparsity")
    }


def test_of_another_coder_they_are_made_anew(trained: pathlib.Path, measured: dict[str, float]) -> None:
    run = next((trained / "baselines" / "frozen-decoder").rglob("metrics.json")).parent
    record = read_json(run / "config.json")
    record["sae"]["n_latents"] = 64
    (run / "config.json").write_text(json.dumps(record))
    random = trained / "baselines" / "random" / "coder.json"
    description = read_json(random)
    description["source"]["baseline_of"] = "another"
    random.write_text(json.dumps(description))
    qsae("evaluate --eval reconstruction --baseline random --baseline frozen-decoder", trained)
    assert read_json(run / "config.json")["sae"]["n_latents"] == 128
    assert read_json(random)["source"]["baseline_of"] != "another"


def test_a_quantized_run_has_a_float_baseline_of_its_own(tmp_path: pathlib.Path) -> None:
    line = TRAIN.replace("topk", "ternary").replace("--steps 120", "--steps 40 --quantizer ste")
    qsae(line, tmp_path)
    run = next(tmp_path.rglob("metrics.json")).parent
    entry = json.loads(qsae("evaluate --baseline frozen-decoder --json", run).stdout)
    assert entry["baselines"]["frozen-decoder"]["artifact"]["bits_per_weight"]["W_dec"] == 32
    assert not list((run / "baselines").rglob("float_twin"))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A ternary run with its float twin, and the same from other initial weights."""
    line = TRAIN.replace("topk", "ternary").replace("--steps 120", "--steps 40 --seed 3")
    out = tmp_path_factory.mktemp("quantized")
    qsae(line, out)
    run = next(out.rglob("metrics.json")).parent
    entry = json.loads(qsae("evaluate --eval reconstruction --baseline other-seed --json", run).stdout)
    assert entry["baselines"]["other-seed"]["artifact"]["bits_per_weight"]["W_dec"] == 32
    return run


def test_another_seed_is_the_twin_again_from_other_weights(quantized: pathlib.Path) -> None:
    """The same batches: what was measured on the first ones is the same, and the seed of the data."""
    other = quantized / "baselines/other-seed/synthetic/40"
    twin = quantized / "checkpoints/float_twin"
    own, its = (read_json(folder / "coder.json")["config"] for folder in (twin, other / "checkpoints/final"))
    assert (own["train"]["init_seed"], its["train"]["init_seed"], its["run"]["seed"]) == (None, 4, 3)
    own["train"]["init_seed"] = 4
    for section in ("sae", "quantizer", "encoder_quantizer", "sparsity", "activation", "data", "train"):
        assert its[section] == own[section], section
    coders = [qsae_core.load(folder) for folder in (twin, other)]
    assert torch.equal(coders[0].norm_in.mean, coders[1].norm_in.mean)
    assert torch.equal(coders[0].norm_in.right, coders[1].norm_in.right)
    cosines = directions(coders[0]) @ directions(coders[1]).T
    assert cosines.diag().mean() < 0.2 < cosines.amax(1).mean()


def test_it_is_not_made_again_of_a_record_that_knows_no_such_seed(quantized: pathlib.Path) -> None:
    """Nor is any run another one for an option that was not there yet, and is not used."""
    qsae("evaluate --eval reconstruction --baseline frozen-decoder", quantized)
    frozen = quantized / "baselines/frozen-decoder/synthetic/40"
    record = read_json(frozen / "config.json")
    assert record["train"].pop("init_seed") is None
    (frozen / "config.json").write_text(json.dumps(record))
    artifacts = [*(quantized / "baselines").rglob("coder.safetensors")]
    before = {file: file.stat().st_mtime_ns for file in artifacts}
    qsae("evaluate --eval reconstruction --baseline frozen-decoder --baseline other-seed", quantized)
    assert len(before) == 2
    assert {file: file.stat().st_mtime_ns for file in artifacts} == before


def test_the_float_coder_that_a_path_means(quantized: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The twin of a quantized run, a float run itself; of a quantized coder alone there is none."""
    twin = qsae_core.load(quantized / "checkpoints/float_twin")
    data = ToyData(twin.shape)
    data.layer = "synthetic"
    for path in (quantized, quantized / "checkpoints/final", quantized / "checkpoints/float_twin"):
        found = load_other_float(str(path), twin, data, "there")
        assert torch.equal(found.atoms(), twin.atoms()), path
    other = quantized / "baselines/other-seed/synthetic/40"
    assert not torch.equal(load_other_float(str(other), twin, data, "there").atoms(), twin.atoms())
    alone = shutil.copytree(quantized / "checkpoints/final", tmp_path / "alone")
    with pytest.raises(ConfigError, match="is quantized, and no full-precision twin is beside it") as error:
        load_other_float(str(alone), twin, data, "there")
    assert error.value.where == "there"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--baseline chance", "allowed: random, frozen-decoder, other-seed"),
        ("--baseline random --all-levels", "cannot be given together"),
        ("--baseline random --level 1", "cannot be given together"),
    ],
)
def test_what_cannot_be_asked_for(trained: pathlib.Path, arguments: str, message: str) -> None:
    result = CliRunner().invoke(cli, ["evaluate", str(trained), *arguments.split()])
    assert result.exit_code != 0
    assert message in " ".join((result.output + str(result.exception)).split())


def test_of_a_bare_artifact_a_place_has_to_be_named(trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    final = trained / "checkpoints" / "final"
    result = CliRunner().invoke(cli, ["evaluate", str(final), "--baseline", "random"])
    assert "--out DIR" in result.output
    qsae("evaluate --eval reconstruction --baseline random --out", tmp_path / "found", final)
    coder = qsae_core.load(tmp_path / "found" / "baselines" / "random")
    assert coder.n_latents == 128


# --- the random dictionary itself


class Coder(LinearCoder):
    """A TopK SAE that was not trained."""

    def loss(self, batch: Batch) -> None:  # type: ignore[override]
        raise NotImplementedError


@pytest.fixture
def coder() -> Callable[..., Coder]:
    def made(d_in: int = 8, d_out: int = 8, k: int = 3) -> Coder:
        torch.manual_seed(0)
        return Coder(CoderConfig(n_latents=64), CoderShape(d_in, d_out), plain_parts(k=k)).eval()

    return made


def test_it_fires_as_often_and_reconstructs_as_well_as_one_number_can(coder: Callable[..., Coder]) -> None:
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(1)) + 2
    dense = random_dictionary(coder(), Batch(x, x), seed=3)
    f = dense.encode(x)
    assert (f != 0).sum(1).tolist() == [3] * 512  # as of the coder, on every vector
    assert torch.allclose(dense.W_enc.norm(dim=1), torch.ones(64))
    assert torch.equal(dense.b_dec, x.mean(0))
    gain = float(dense.W_dec[0] @ dense.W_enc[0])
    assert torch.allclose(dense.W_dec, gain * dense.W_enc)
    errors = [
        float((x - dense.b_dec - scale * (f @ dense.W_dec)).square().sum()) for scale in (0.99, 1.0, 1.01)
    ]
    assert min(errors) == errors[1]


def test_of_a_coder_that_fires_on_some_more_than_on_others_it_has_the_mean() -> None:
    """Half of the vectors are so short that nothing fires on them."""
    x = torch.randn(1024, 8, generator=torch.Generator().manual_seed(1))
    x[:512] *= 1e-3
    parts = plain_parts(sparsity=lambda n_latents: L1(PlainConfig(), n_latents))
    torch.manual_seed(0)
    trained = Coder(CoderConfig(n_latents=64, normalize="none"), CoderShape(8, 8), parts).eval()
    with torch.no_grad():
        trained.b_enc.fill_(-0.2)
    fired = trained.encode(x).l0().double()
    assert fired[:512].sum() == 0 < fired.mean()
    assert random_dictionary(trained, Batch(x, x), seed=3).k == round(fired.mean().item())


def test_a_seed_draws_another_one(coder: Callable[..., Coder]) -> None:
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(1))
    one, same, other = (random_dictionary(coder(), Batch(x, x), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.W_enc, same.W_enc)
    assert not torch.equal(one.W_enc, other.W_enc)


def test_a_coder_that_never_fires_has_none(coder: Callable[..., Coder]) -> None:
    silent = coder()
    with torch.no_grad():
        silent.b_enc.fill_(-1e9)
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ConfigError, match="no latent of this coder fires"):
        random_dictionary(silent, Batch(x, x), seed=3)
