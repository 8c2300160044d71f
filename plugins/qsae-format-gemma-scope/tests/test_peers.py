"""Beside SAELens and circuit-tracer as they are: new files of theirs here, and what is written here there."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch
from click.testing import CliRunner
from qsae_format_gemma_scope import GemmaScope2Config, GemmaScopeConfig
from qsae_format_gemma_scope.gemma_scope import GemmaScopeFormat
from qsae_format_gemma_scope.gemma_scope_2 import GemmaScope2Format
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.conformance import Computed, check_golden, expect_computes, peer
from qsae_core.conformance.toy_forms import forms
from qsae_core.contracts import Checkpoint, CrossLayerForm, DenseForm, LayerForm, Provenance
from qsae_core.errors import ArtifactError

WRITE = pathlib.Path(__file__).parent / "write_golden.py"
PEERS = {"sae-lens": 13, "circuit-tracer": 4}
"""Environment -> how many cases it computes."""
ONE, TWO = GemmaScopeFormat(GemmaScopeConfig()), GemmaScope2Format(GemmaScope2Config())
RESIDUAL = Provenance.at(20, "resid_post", model="google/gemma-2-2b")
pytestmark = pytest.mark.peer


def computed(library, asked, tmp_path):
    """What a library makes of each: (loader, root, repository, folder, x)."""
    jobs = []
    for number, (loader, root, repository, folder, x) in enumerate(asked):
        place = {name: str(tmp_path / f"{name}-{number}.safetensors") for name in ("x", "out")}
        save_file({"x": x.contiguous()}, place["x"])
        jobs.append(
            {"loader": loader, "root": str(root), "repository": repository, "folder": folder, **place}
        )
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    peer(library).run(WRITE, "--compute", tmp_path / "jobs.json")
    return [Computed(**load_file(job["out"])) for job in jobs]


def expect_same(wanted, latents, output, what):
    for name, ours, theirs in (
        ("latents", latents, wanted.latents),
        ("outputs", output, wanted.reconstruction),
    ):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-5, atol=1e-4, msg=lambda m, n=name: f"{what}: {n}: {m}"
        )


@pytest.mark.parametrize("library", PEERS)
def test_other_numbers(tmp_path, library):
    peer(library).run(WRITE, tmp_path, "--seed", 1)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == PEERS[library]
    for folder in folders:
        (repository,) = (folder / "checkpoint").iterdir()
        check_golden(folder, f"gemma-scope{'-2' * repository.name.startswith('gemma-scope-2-')}")


def written(tmp_path):
    """(name, form, kind, format, root, repository, folder) of every toy form that there is a place for."""
    for name, form in forms().items():
        if not isinstance(form, DenseForm) or form.layers > 1:
            continue
        kind = "transcoder" if "transcoder" in name else "sae"
        for writer, repository, folder in (
            (ONE, "gemma-scope-2b-pt-res", "layer_20/width_24"),
            (
                TWO,
                "gemma-scope-2-1b-pt",
                f"{'transcoder' if kind != 'sae' else 'resid_post'}/layer_20_width_24",
            ),
        ):
            root = tmp_path / f"{name} {repository}".replace(" ", "-")
            place = RESIDUAL if writer is ONE and kind == "sae" else Provenance()
            out = root if writer is ONE else root / repository / folder
            try:
                writer.write(Checkpoint(form, kind, place), out)
            except ArtifactError:
                continue
            yield name, form, kind, writer, root, repository, folder


def test_toy_forms_in_saelens(tmp_path):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    asked, given = [], []
    for name, form, kind, writer, root, repository, folder in written(tmp_path):
        if writer is ONE and kind == "transcoder":
            continue  # without the folder of published ones; below
        loader = "gemma_2" if writer is ONE else "gemma_3"
        asked.append((loader, root, repository, folder, x))
        given.append((f"{name}, {loader}", form))
    # ReLU, JumpReLU and gated SAEs, with b_dec subtracted or not, in both formats; transcoders in one
    assert len(asked) >= 6 * 2 + 4
    for (name, form), wanted in zip(given, computed("sae-lens", asked, tmp_path), strict=True):
        expect_same(wanted, form.encode(x), form.reconstruct(x), name)


def square(seed, n_latents=24, width=8, **more):
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator)

    threshold = normal(n_latents).abs()
    return DenseForm(
        normal(n_latents, width),
        normal(n_latents),
        normal(n_latents, width),
        normal(width),
        "jumprelu",
        threshold,
        **{name: normal(*size) for name, size in more.items()},
    )


def cross_layer(skip):
    layers = []
    for number in range(3):
        one = square(number, W_skip=(8, 8))
        W_dec = torch.stack([square(10 * number + m).W_dec for m in range(3 - number)], dim=1)
        W_skip = one.W_skip if skip else None
        layers.append(LayerForm(one.W_enc, one.b_enc, W_dec, one.b_dec, one.threshold, W_skip))
    return CrossLayerForm(tuple(layers), "jumprelu")


def test_transcoders_in_circuit_tracer(tmp_path):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    plain, skip = square(1), square(2, W_skip=(8, 8))
    published = "gemma-scope-2b-pt-transcoders/layer_3/width_24/average_l0_5"
    ONE.write(Checkpoint(plain, "transcoder", settings={"folder": published}), tmp_path / "one")
    clts = {"plain": cross_layer(False), "affine": cross_layer(True)}
    asked = [("gemma_scope_transcoder", tmp_path / "one", *published.split("/", 1), x)]
    for name, form in (("plain", plain), ("skip", skip)):
        TWO.write(Checkpoint(form, "transcoder"), tmp_path / "two" / "repository" / name)
        asked.append(("gemma_scope_2_transcoder", tmp_path / "two", "repository", name, x))
    layers_x = torch.randn(64, 3, 8, generator=torch.Generator().manual_seed(4))
    for name, form in clts.items():
        TWO.write(Checkpoint(form, "transcoder"), tmp_path / "clt" / "repository" / name)
        asked.append(("gemma_scope_2_clt", tmp_path / "clt", "repository", name, layers_x))
    found = computed("circuit-tracer", asked, tmp_path)
    for form, wanted in zip((plain, plain, skip, *clts.values()), found, strict=True):
        expect_same(wanted, form.encode(wanted.x), form.reconstruct(wanted.x), "a transcoder")


def qsae(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


TRAIN = (
    "train --n-latents 64 --data synthetic --preset tiny --steps 60 --batch-size 256 --eval-tokens 1024 "
    "--eval-every 0 --statistics-tokens 512 --threads 1 --eval reconstruction --no-compare-float"
)


@pytest.mark.parametrize("sae", ["jumprelu", "batchtopk", "gated", "vanilla"])
def test_trained_saes_in_saelens(tmp_path, sae):
    """Normalised, and subtracting b_dec while they were trained: all of it is in the dense weights."""
    qsae(*TRAIN.split(), "--sae", sae, "--name", "coder", "--out", tmp_path / "results")
    (run_folder,) = (tmp_path / "results" / "coder").glob("*/*")
    coder = qsae_core.load(run_folder)
    x = coder.decode(coder.encode(torch.randn(256, 64))) + torch.randn(256, 64)
    place = tmp_path / "root" / "gemma-scope-2-1b-pt" / "resid_post" / "layer_3_width_64"
    qsae("export", run_folder, "--format", "gemma-scope-2", "--out", place)
    (wanted,) = computed(
        "sae-lens",
        [("gemma_3", place.parents[2], place.parents[1].name, "resid_post/layer_3_width_64", x)],
        tmp_path,
    )
    assert wanted.latents.count_nonzero() > 0
    expect_computes(coder, wanted, sae, ties=0.05)
