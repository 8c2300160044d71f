"""``qsae pull``, and coders that are loaded from their addresses."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
import torch
from huggingface_hub import constants

import qsae_core
from qsae_core.errors import ArtifactError

CODER = ["checkpoints/final/coder.json", "checkpoints/final/coder.safetensors"]


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in pathlib.Path(folder).rglob("*")
        if p.is_file()
    }


def outputs(coder):
    x = torch.randn(16, coder.shape.layers_in, coder.shape.d_in, generator=torch.Generator().manual_seed(3))
    return coder(x if coder.shape.layers_in > 1 else x[:, 0])


@pytest.fixture
def pushed(hub, qsae, run, each):
    """A repository with a coder at its top, and one for each layer below ``both``."""
    qsae("push", run, "me/coder")
    qsae("push", each, "me/coder", "--path", "both", "--with", "evaluations")
    hub.sent.clear()
    shutil.rmtree(constants.HF_HUB_CACHE)  # what the card was made of
    return hub


def test_what_was_pushed_comes_back_as_a_run(pushed, qsae, run):
    said = qsae("pull", "me/coder").stdout
    folder = pathlib.Path("results/coder/synthetic/4")
    assert f"artifact: {folder / 'checkpoints' / 'final'}" in said
    there = files(folder)
    assert set(there) == {*CODER, "config.json", "metrics.json"}
    for name in (*CODER, "metrics.json"):
        assert there[name] == (run / name).read_bytes()
    assert "4 files, " in said
    (listed,) = json.loads(qsae("runs", "--json").stdout)
    assert (listed["path"], listed["status"], listed["sae"]) == (str(folder), "finished", "ternary")
    assert torch.equal(outputs(qsae_core.load(folder)), outputs(qsae_core.load(run)))
    evaluated = json.loads(qsae("evaluate", folder, "--tokens", "128", "--json").stdout)
    assert evaluated["evaluations"]["reconstruction"]["n_tokens"] == 128
    assert not any(file.is_symlink() for file in folder.rglob("*"))


def test_a_coder_for_each_layer_from_its_folder(pushed, qsae, each):
    said = qsae("pull", "me/coder", "--path", "both", "--out", "mine").stdout
    assert "not fetched: evaluations, " in said
    names = {p for p in files(each) if p.startswith(("checkpoints/", "metrics.json", "config.json"))}
    assert set(files("mine")) == names
    qsae("pull", "hf://me/coder/both", "--with", "evaluations", "--out", "all")
    assert {p for p in files("all") if p.startswith("evaluations")} == {
        p for p in files(each) if p.startswith("evaluations")
    }
    assert qsae_core.load_set("all").names == ("0", "1")


def test_json_and_a_revision(pushed, qsae, run):
    first = next(
        iter(
            c
            for c, f in pushed.repos["me/coder"].commits.items()
            if "both/config.json" not in f and len(f) > 1
        )
    )
    told = json.loads(qsae("pull", "me/coder", "--revision", first, "--out", "x", "--json").stdout)
    assert told["address"] == f"hf://me/coder@{first}"
    assert told["folder"] == "x"
    assert told["files"] == {name: len(data) for name, data in files("x").items()}


def test_what_is_in_the_way_stays(pushed, qsae):
    qsae("pull", "me/coder", "--out", "x")
    before = files("x")
    error = qsae("pull", "me/coder", "--out", "x", "--path", "both", code=2).stderr
    assert "x: there is something of that name already" in error
    assert files("x") == before
    qsae("pull", "me/coder", "--out", "x", "--path", "both", "--overwrite")
    assert "checkpoints/final/coders.json" in files("x")
    pathlib.Path("thesis").mkdir()
    pathlib.Path("thesis/chapter.md").write_text("years of work")
    error = qsae("pull", "me/coder", "--out", "thesis", "--overwrite", code=2).stderr
    assert "there is something of that name already, and it is no coder" in error
    assert set(files("thesis")) == {"chapter.md"}


def test_what_is_no_coder(pushed, qsae):
    pushed.add("me/model", {"config.json": b"{}", "model.safetensors": b"x"})
    pushed.sent.clear()
    error = qsae("pull", "me/model", code=2).stderr
    assert "hf://me/model: holds no coder that qsae push put there" in error
    assert pushed.sent == {}
    error = qsae("pull", "me/coder", "--path", "neither", code=2).stderr
    assert "hf://me/coder/neither: has no such folder" in error
    assert "allowed: hf://me/coder, hf://me/coder/both" in error
    assert "has no masters" in qsae("pull", "me/coder", "--with", "masters", code=2).stderr
    error = qsae("pull", "hf://me/coder/both", "--path", "x", code=2).stderr
    assert "an address has its folder and revision in it" in error


def test_a_member_that_was_exchanged_is_noticed(pushed, qsae):
    repo = pushed.repos["me/coder"]
    one, two = (f"both/checkpoints/final/{layer}/coder.json" for layer in (0, 1))
    repo.commit({one: repo.files[one].replace(b"}", b" }", 1), two: repo.files[two]})
    error = qsae("pull", "me/coder", "--path", "both", "--out", "x", code=2).stderr
    assert "the coder of layer 0 is missing or another one" in error
    assert not pathlib.Path("x").exists()


# --- load


def test_a_coder_is_loaded_from_its_address(pushed, run):
    coder = qsae_core.load("hf://me/coder")
    assert torch.equal(outputs(coder), outputs(qsae_core.load(run)))
    assert sorted(pushed.sent) == CODER  # and nothing else
    assert torch.equal(outputs(qsae_core.load("hf://me/coder/checkpoints/final/coder.json")), outputs(coder))


def test_several_are_loaded_from_theirs(pushed, each):
    coders = qsae_core.load_set("hf://me/coder/both")
    assert torch.equal(outputs(coders), outputs(qsae_core.load_set(each)))
    assert not any("evaluations" in path or "metrics" in path for path in pushed.sent)
    one = qsae_core.load("hf://me/coder/both/checkpoints/final/1")
    assert torch.equal(outputs(one), outputs(qsae_core.load(each / "checkpoints/final/1")))
    with pytest.raises(ArtifactError, match="holds several coders, one for each layer"):
        qsae_core.load("hf://me/coder/both")
    with pytest.raises(ArtifactError, match="holds one coder, and no set of them"):
        qsae_core.load_set("hf://me/coder")


def test_a_coder_that_somebody_altered_in_the_repository_is_refused(pushed):
    repo = pushed.repos["me/coder"]
    data = repo.files[CODER[1]]
    repo.commit({CODER[1]: data[:-1] + bytes([data[-1] ^ 1])})
    with pytest.raises(ArtifactError, match="the contents do not match the checksum in its header"):
        qsae_core.load("hf://me/coder")


OFFLINE = """
import json, sys, time
import qsae_core, torch
coder = qsae_core.load("hf://me/coder")
coders = qsae_core.load_set("hf://me/coder/both")
print(json.dumps([coder.n_latents, list(coders.names), float(coder(torch.ones(1, coder.shape.d_in)).sum())]))
"""


def test_the_environment_decides_where_the_hub_is_and_whether_it_is_asked(pushed, process):
    """HF_ENDPOINT, and HF_HUB_OFFLINE with what was fetched before, in processes of their own."""
    out, err = process(OFFLINE).communicate(timeout=120)
    assert json.loads(out)[:2] == [32, ["0", "1"]], err
    pushed.close()
    again, err = process(OFFLINE, HF_HUB_OFFLINE="1").communicate(timeout=120)
    assert again == out, err
    failed = process(OFFLINE.replace("me/coder", "me/other"), HF_HUB_OFFLINE="1")
    assert (
        "hf://me/other: it was not fetched before, and HF_HUB_OFFLINE is set"
        in failed.communicate(timeout=120)[1]
    )


def test_pull_works_offline_and_misses_what_was_not_fetched(pushed, qsae, offline):
    qsae_core.load("hf://me/coder")
    qsae("pull", "me/coder", "--path", "both", "--out", "one")
    offline()
    pushed.close()
    qsae("pull", "me/coder", "--path", "both", "--out", "two")
    assert files("two") == files("one")
    error = qsae(
        "pull", "me/coder", "--path", "both", "--with", "evaluations", "--out", "three", code=2
    ).stderr
    assert "has no evaluations" in error


def test_offline_half_a_coder_is_none(pushed, offline):
    pushed.refuse["coder.safetensors"] = (403, {})
    with pytest.raises(qsae_core.QsaeError, match="your token may not do this"):
        qsae_core.load("hf://me/coder")
    offline()
    with pytest.raises(qsae_core.QsaeError, match=r"was not fetched before, and HF_HUB_OFFLINE is set"):
        qsae_core.load("hf://me/coder")


# --- other libraries' checkpoints, as their repositories have them

PLUGINS = pathlib.Path(__file__).resolve().parents[2]


def golden(*parts):
    """A folder of another plugin's tests."""
    folder = PLUGINS.joinpath(parts[0], "tests", "golden", *parts[1:])
    if not folder.is_dir():
        pytest.skip(f"the tests of {parts[0]} are not beside these")
    return folder


def upload(hub, name, folder, below):
    """What a golden folder of a format's tests has, as a repository."""
    data = {
        f"{below}{path}": content for path, content in files(folder).items() if path != "expected.safetensors"
    }
    assert data, folder
    hub.add(name, data | {"README.md": b"# theirs", "modeling.py": b"raise SystemExit"})


def source(folder):
    return json.loads(pathlib.Path(folder, "coder.json").read_text())["source"]


def test_a_checkpoint_is_imported_from_the_address_of_its_folder(hub, qsae):
    """The names in the path say which vectors it is for, in huggingface_hub's cache too."""
    (npz,) = golden("qsae-format-gemma-scope", "res").rglob("*.npz")
    repo = hub.add(
        "google/gemma-scope-2b-pt-res",
        {f"layer_{n}/width_16k/average_l0_71/params.npz": npz.read_bytes() for n in (19, 20)},
    )
    address = "hf://google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    qsae("import", address, "--out", "gemma")
    found = source("gemma")
    assert found["imported_from"]["path"] == address
    assert found["imported_from"]["files"]["params.npz"]["bytes"] == npz.stat().st_size
    assert (found["model"], found["layer"], found["source_sites"]) == (
        "google/gemma-2-2b",
        "20",
        ["20.resid_post"],
    )
    assert set(hub.sent) == {"layer_20/width_16k/average_l0_71/params.npz"}
    assert torch.equal(outputs(qsae_core.read_checkpoint(address)), outputs(qsae_core.load("gemma")))
    pinned = f"hf://google/gemma-scope-2b-pt-res@{repo.branches['main']}/layer_20/width_16k/average_l0_71/params.npz"
    assert torch.equal(outputs(qsae_core.read_checkpoint(pinned)), outputs(qsae_core.load("gemma")))


def test_of_a_file_what_lies_beside_it_is_fetched_too(hub, qsae):
    upload(hub, "Qwen/SAE", golden("qsae-formats-published", "qwen-scope", "checkpoint"), "")
    qsae("import", "hf://Qwen/SAE/layer3.sae.pt", "--out", "qwen")
    assert set(hub.sent) == {"layer3.sae.pt", "config.json"}  # and no other layer's
    assert set(source("qwen")["imported_from"]["files"]) == set(hub.sent)


def test_a_folder_of_several_is_imported_as_one_for_each(hub, qsae):
    upload(hub, "fnlp/saes", golden("qsae-formats-published", "llama-scope_set", "checkpoint"), "all/")
    qsae("import", "hf://fnlp/saes/all", "--out", "llama")
    assert not [path for path in hub.sent if path.endswith((".py", ".md"))]
    members = sorted(pathlib.Path("llama").glob("*/coder.json"))
    assert len(members) > 1
    for member in members:
        path = source(member.parent)["imported_from"]["path"]
        assert path.startswith("hf://fnlp/saes/all/")
        assert torch.equal(outputs(qsae_core.load(member.parent)), outputs(qsae_core.read_checkpoint(path)))
