"""``qsae cache`` as a user runs it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest
import torch

SMALL = ["--context=32", "--held-out-tokens=600", "--shard-tokens=512"]


def qsae(
    *arguments: object, code: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    script = pathlib.Path(sys.executable).with_name("qsae")
    import os

    done = subprocess.run(
        [str(script), *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_from_harvest_to_a_trained_sae(tmp_path):
    store, places = tmp_path / "store", ["--layers=1,2", "--sites=mlp_in,mlp_out"]
    harvested = (*SMALL, *places, "--tokens=4K", f"--out={store}")
    estimated = json.loads(qsae("cache", "estimate", *harvested, "--json").stdout)
    assert not store.exists()
    qsae("cache", *harvested)
    found = json.loads(qsae("cache", "info", store, "--json").stdout)
    assert found["complete"]
    assert [place["place"] for place in found["places"]] == ["1.mlp_in", "1.mlp_out", "2.mlp_in", "2.mlp_out"]
    held_out = found["held_out_vectors"]
    assert estimated["vectors"] == 4000 <= found["training_vectors"] < 4032
    assert estimated["bytes"] == pytest.approx(found["bytes"], rel=0.05)
    assert 600 <= held_out < 632
    assert "every file is as it was written" in qsae("cache", "verify", store).stdout
    assert "2.mlp_out" in qsae("cache", "info", store).stdout

    out = tmp_path / "out"
    sizes = ["--n-latents=64", "--k=8", "--steps=30", "--batch-size=64", "--statistics-tokens=512"]
    sizes += ["--eval=reconstruction", "--eval=loss-recovered", f"--out={out}", "--eval-every=0"]
    qsae("train", "--sae=topk", f"--store={store}", "--layer=2", "--site=mlp_out", *sizes)
    (metrics,) = out.rglob("metrics.json")
    assert metrics.parents[1].name == "2-mlp_out"
    values = json.loads(metrics.read_text())["coders"]["coder"]["evaluations"]
    assert values["reconstruction"]["fvu"] < 1
    assert values["loss-recovered"]["ce_clean"] < values["loss-recovered"]["ce_zero"]
    # the run is evaluated again on the store's held-out documents
    again = json.loads(qsae("evaluate", metrics.parent, "--json").stdout)["evaluations"]
    assert again["reconstruction"]["fvu"] == pytest.approx(values["reconstruction"]["fvu"], rel=1e-5)

    # a coder of other vectors is measured on the store, and what is found is kept where it was asked for
    torch.save(torch.randn(2000, 256), tmp_path / "other.pt")
    other, kept = [f"--data-path={tmp_path / 'other.pt'}", "--name=other"], tmp_path / "kept"
    qsae("train", "--sae=topk", *other, *sizes[:-3], f"--out={out}")
    (run,) = (out / "other").glob("*/*")
    where = [f"--store={store}", "--layer=2", "--site=mlp_out"]
    said = qsae("evaluate", run, *where, "--eval=reconstruction", f"--out={kept}").stdout
    assert f"of the store {store}" in said
    assert f"kept in {kept}" in said
    assert (kept / "reconstruction" / "result.json").is_file()


def test_verify_names_the_bad_shard_and_the_harvest_mends_it(harvest, whole, tmp_path, same_files):
    import shutil

    place = tmp_path / "store"
    shutil.copytree(whole, place)
    path = place / "training-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (place / "training-00003.safetensors").unlink()
    done = qsae("cache", "verify", place, code=1)
    assert "training-00001.safetensors: has been altered" in done.stdout
    assert "training-00003.safetensors: is missing" in done.stdout
    assert len(done.stdout.splitlines()) == 2
    qsae("cache", "verify", "--drop", place, code=1)
    assert not path.exists()
    from qsae_store.folder import open_folder
    from qsae_store.manifest import read_manifest

    assert read_manifest(open_folder(str(place))).shards is None
    assert harvest(place)
    same_files(place, whole)


def test_bad_input(tmp_path):
    assert "--out" in qsae("cache", code=2).stderr
    assert "is no number of tokens" in qsae("cache", "--tokens=many", f"--out={tmp_path}", code=2).stderr
    done = qsae("cache", "--data=synthetic", f"--out={tmp_path / 'x'}", code=2)
    assert "has no language model to harvest from" in done.stderr
    assert "there is no manifest.json" in qsae("cache", "info", tmp_path, code=2).stderr
    assert "Usage: qsae cache [OPTIONS]" in qsae("cache", "--help").stdout
    assert "Usage: qsae cache verify" in qsae("cache", "verify", "--help").stdout


@pytest.mark.slow
def test_a_store_of_twice_the_memory_limit_is_trained_on_within_it(harvest, tmp_path):
    """A limit of address space (``ulimit -v``), in which whatever is mapped counts in full."""
    place, limit = tmp_path / "store", 900 << 20
    assert harvest(place, sites="1.resid_post", shard_positions=1 << 13, held_out_tokens=600)
    grow(place, 2 * limit)
    assert sum(path.stat().st_size for path in place.iterdir()) > 2 * limit
    sizes = ["--n-latents=128", "--k=4", "--batch-size=4096", "--statistics-tokens=4096", "--threads=1"]
    sizes += ["--eval=reconstruction", "--eval-tokens=512", "--eval-every=0", "--steps=460"]
    command = f"ulimit -v {limit >> 10}; exec {pathlib.Path(sys.executable).with_name('qsae')}"
    command += f" train --sae topk --store {place} --out {tmp_path / 'out'} {' '.join(sizes)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (metrics,) = (tmp_path / "out").rglob("metrics.json")
    assert json.loads(metrics.read_text())["tokens"] == 460 * 4096  # more than all vectors of the store


def grow(place: pathlib.Path, size: int) -> None:
    """Make a store larger: its first training shard stands in it again and again, once on the disk."""
    from qsae_store.folder import open_folder
    from qsae_store.json_files import MANIFEST, write_text
    from qsae_store.manifest import read_manifest

    folder = open_folder(str(place))
    manifest = read_manifest(folder)
    first = manifest.shards["training"][0]
    records = [
        dataclasses.replace(first, name=f"training-{number:05d}", ends=False)
        for number in range(1 + size // first.size)
    ]
    for record in records[1:]:
        path = place / f"{record.name}.safetensors"
        path.unlink(missing_ok=True)
        path.hardlink_to(place / f"{first.name}.safetensors")
    shards = {**manifest.shards, "training": tuple(records)}
    write_text(folder, MANIFEST, dataclasses.replace(manifest, shards=shards).to_json())


def test_each_process_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    """What opens the data is told the GPU of LOCAL_RANK; a process for which there is none is refused."""
    from click.testing import CliRunner

    from qsae_cli.main import cli
    from qsae_core import runs

    class OpenedError(Exception):
        pass

    def opened(*arguments, device, **more):
        raise OpenedError(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(runs, "open_data", opened)
    command = ["cache", f"--out={tmp_path / 'store'}"]
    for rank in range(3):
        ours = {"RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": str(rank)}
        done = CliRunner().invoke(cli, command, env=ours)
        if rank < 2:
            assert isinstance(done.exception, OpenedError)
            assert str(done.exception) == f"cuda:{rank}"
        else:
            assert done.exit_code == 2
            assert "torchrun --nproc-per-node 2 --no-python qsae cache ..." in done.stderr


def test_the_process_that_completes_a_store_prints_it(harvest, tmp_path):
    """Of two that end in either order, exactly one prints; where nothing is left to do, the first."""
    from click.testing import CliRunner

    from qsae_cli.main import cli

    where = [f"--text={harvest.text}", "--held-out-share=0.2", "--json"]
    for number, order in enumerate([(0, 1), (1, 0)]):
        store, printed = tmp_path / str(number), []
        for rank in (*order, *order):
            ours = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
            done = CliRunner().invoke(cli, ["cache", *SMALL, *where, f"--out={store}"], env=ours)
            assert done.exit_code == 0, done.output
            if done.stdout:
                assert json.loads(done.stdout)["complete"]
                printed.append(rank)
        assert printed == [order[1], 0]
