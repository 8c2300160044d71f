"""``qsae push``: what goes to the Hub, in one commit, and what it refuses."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import pytest
import yaml
from hub_server import READER

OWN = ["checkpoints/final/coder.json", "checkpoints/final/coder.safetensors", "config.json", "metrics.json"]


def pushed(hub, name="me/coder"):
    """What a repository has beside what a new one begins with."""
    return {path: data for path, data in hub.repos[name].files.items() if path != ".gitattributes"}


@pytest.fixture
def copy(run, tmp_path):
    """The run where it may be changed."""
    return pathlib.Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_run_is_one_commit_of_the_coder_its_records_and_a_card(hub, qsae, run):
    said = qsae("push", run, "me/coder").stdout
    repo, found = hub.repos["me/coder"], pushed(hub)
    assert repo.messages == ["initial commit", "ternary (ste) with qsae"]
    assert sorted(found) == sorted([*OWN, "README.md"])
    for name in OWN:
        if name != "config.json":
            assert found[name] == (run / name).read_bytes(), name
    record = json.loads((run / "config.json").read_text())
    assert "host" in record.pop("process")  # of the machine, and nobody else's business
    assert json.loads(found["config.json"]) == record
    assert not repo.private
    assert f"5 files to upload, {sum(map(len, found.values())):,} bytes" in said
    assert "to me/coder, a new public repository, branch main" in said
    assert 'load it: qsae_core.load("hf://me/coder")' in said
    assert f"{hub.url}/me/coder/commit/{repo.branches['main']}" in said
    assert set(hub.uploaded.values()) == {found["checkpoints/final/coder.safetensors"]}  # by LFS


def test_what_is_large_or_private_goes_there_where_it_is_asked_for(hub, qsae, run):
    said = qsae("push", run, "me/coder").stdout
    parts = ("evaluations", "metrics", "float-twin", "masters", "checkpoints")
    for part in parts:
        assert f"not uploaded: {part}, " in said
    qsae("push", run, "me/coder", *(word for part in parts for word in ("--with", part)))
    files = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()}
    assert set(pushed(hub)) == files | {"README.md"}
    size = sum(f.stat().st_size for f in (run / "checkpoints" / "float_twin").rglob("*"))
    assert f"not uploaded: float-twin, {size:,} bytes (--with float-twin)" in said


def test_the_second_time_nothing_is_uploaded(hub, qsae, run):
    qsae("push", run, "me/coder")
    before = len(hub.repos["me/coder"].commits)
    asked = len(hub.asked("POST"))
    said = qsae("push", run, "me/coder").stdout
    assert "0 files to upload, 0 bytes" in said
    assert "nothing was uploaded, since it is all there already" in said
    assert (len(hub.repos["me/coder"].commits), len(hub.asked("POST"))) == (before, asked)


def test_what_a_dry_run_says_and_does_not_do(hub, qsae, run):
    said = qsae("push", run, "me/coder", "--dry-run").stdout
    assert "nothing was uploaded: --dry-run" in said
    assert "checkpoints/final/coder.safetensors" in said
    assert hub.repos == {}
    assert hub.asked("POST") == []


def test_json_says_the_same(hub, qsae, run):
    told = json.loads(qsae("push", run, "me/coder", "--path", "a/b", "--json").stdout)
    found = pushed(hub)
    assert told["address"] == "hf://me/coder/a/b"
    assert {file["path"]: file["bytes"] for file in told["files"]} == {p: len(d) for p, d in found.items()}
    assert {file["change"] for file in told["files"]} == {"new"}
    assert told["bytes"] == sum(map(len, found.values()))
    assert set(told["left_out"]) == {"evaluations", "metrics", "float-twin", "masters", "checkpoints"}


def test_several_coders_live_in_one_repository(hub, qsae, run, other, each):
    qsae("push", run, "me/many", "--path", "layer-9/4bit")
    qsae("push", other, "me/many", "--path", "layer-9/float")
    said = qsae("push", each, "me/many", "--path", "both").stdout
    assert 'qsae_core.load_set("hf://me/many/both")' in said
    found = pushed(hub, "me/many")
    assert {f"layer-9/4bit/{name}" for name in OWN} | {f"layer-9/float/{name}" for name in OWN} < set(found)
    assert "both/checkpoints/final/coders.json" in found
    card = found["README.md"].decode()
    rows = [line.split(" | ")[:2] for line in card.splitlines() if line.startswith(("| layer-9", "| both"))]
    assert rows == [
        ["| both", "topk (none)"],
        ["| layer-9/4bit", "ternary (ste)"],
        ["| layer-9/float", "topk (none)"],
    ]
    assert card.count("\n## `") == 3


def test_a_stored_coder_without_its_run_is_pushed_too(hub, qsae, run):
    qsae("push", run / "checkpoints" / "final", "me/coder")
    found = pushed(hub)
    assert sorted(found) == [*sorted(["README.md", *OWN[:2]])]
    card = found["README.md"].decode()
    assert "| architecture | ternary, sparsity topk (k = 4), activation relu |" in card
    assert "FVU" not in card  # what it came to is the run's to say


def test_a_private_repository_and_one_that_is_public_already(hub, qsae, run):
    qsae("push", run, "me/coder", "--private")
    assert hub.repos["me/coder"].private
    hub.add("me/public", {"README.md": b"x"})
    error = qsae("push", run, "me/public", "--private", code=2).stderr
    assert "me/public: is public, and --private is for a repository that is made now" in error
    assert set(pushed(hub, "me/public")) == {"README.md"}


def test_another_branch(hub, qsae, run, other):
    qsae("push", other, "me/coder")
    on_main = dict(hub.repos["me/coder"].files)
    error = qsae("push", run, "me/coder", "--revision", "v2", code=2).stderr  # it begins as main is
    assert "hf://me/coder@v2: holds another coder" in error
    said = qsae("push", run, "me/coder", "--revision", "v2", "--path", "two", "--message", "second").stdout
    assert "branch v2, a new branch" in said
    repo = hub.repos["me/coder"]
    assert repo.files == on_main
    assert set(repo.commits[repo.branches["v2"]]) == set(on_main) | {f"two/{name}" for name in OWN}
    assert repo.messages[-1] == "second"
    assert '"hf://me/coder@v2"' in repo.commits[repo.branches["v2"]]["README.md"].decode()


# --- what is there already


def test_another_coder_stays_unless_overwrite_says_otherwise(hub, qsae, run, other, each):
    qsae("push", run, "me/coder", "--with", "evaluations", "--with", "masters")
    qsae("push", each, "me/coder", "--path", "both")
    before = pushed(hub)
    error = qsae("push", other, "me/coder", code=2).stderr
    assert "hf://me/coder: holds another coder, or something else of the same names: " in error
    assert "--overwrite puts this one in its place" in error
    assert pushed(hub) == before
    said = qsae("push", other, "me/coder", "--overwrite").stdout
    after = pushed(hub)
    kept = {path: data for path, data in before.items() if path.startswith("both/")}
    assert {path: data for path, data in after.items() if path.startswith("both/")} == kept
    assert set(after) == set(kept) | {*OWN, "README.md"}  # nothing is left of the one that was there
    assert after["metrics.json"] == (other / "metrics.json").read_bytes()
    assert "checkpoints/final/masters.safetensors" in said
    assert "removed" in said


def test_the_same_coder_is_brought_up_to_date(hub, qsae, copy):
    qsae("push", copy, "me/coder", "--with", "evaluations")
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["coders"]["coder"]["evaluations"]["reconstruction"] |= {"fvu": 0.125, "n_tokens": 4096.0}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    qsae("push", copy, "me/coder")
    found = pushed(hub)
    assert json.loads(found["metrics.json"]) == metrics
    assert "evaluations/reconstruction/result.json" in found  # of the same coder
    assert "| 0.1250 |" in found["README.md"].decode()
    assert "| 4,096 |" in found["README.md"].decode()


def test_files_of_something_else_are_not_taken_for_a_coder(hub, qsae, run):
    model = {
        "config.json": b'{"model_type": "llama"}',
        "evaluations/mmlu.json": b"{}",
        "README.md": b"# mine",
    }
    hub.add("me/llama", dict(model))
    error = qsae("push", run, "me/llama", code=2).stderr
    assert "or something else of the same names: config.json" in error
    qsae("push", run, "me/llama", "--path", "sae")
    after = pushed(hub, "me/llama")
    assert {path: after[path] for path in model} == model
    qsae("push", run, "me/llama", "--overwrite")
    assert pushed(hub, "me/llama")["evaluations/mmlu.json"] == b"{}"  # no coder's, and of another name


def test_a_card_that_a_person_changed_stays(hub, qsae, run, other):
    qsae("push", run, "me/coder", "--license", "mit")
    written = pushed(hub)["README.md"]
    qsae("push", other, "me/coder", "--path", "b")
    again = pushed(hub)["README.md"]
    assert again != written
    assert yaml.safe_load(again.decode().split("---")[1])["license"] == "mit"  # as it was said before
    changed = again.replace(b"# coder", b"# The coder of my thesis")
    hub.repos["me/coder"].commit({"README.md": changed})
    done = qsae("push", other, "me/coder", "--path", "c")
    assert (
        "README.md was written or changed by hand, and stays; --overwrite-card writes it anew" in done.stderr
    )
    assert pushed(hub)["README.md"] == changed
    assert "c/config.json" in pushed(hub)
    qsae("push", other, "me/coder", "--path", "c", "--overwrite-card")
    assert b"thesis" not in pushed(hub)["README.md"]


def test_a_card_is_written_though_another_coders_records_are_damaged(hub, qsae, run):
    end = "checkpoints/final/coder.json"
    records = {
        f"a/{end}": b"{",
        "a/metrics.json": b"[]",
        f"b/{end}": b'{"config": 3}',
        "c/config.json": b"\xff",
    }
    deep = b'{"coders": {"coder": {"evaluations": {"x": {"fvu": "low|"}}, "artifact": [], "measured": 1}}}'
    hub.add(
        "me/coder",
        records
        | {f"c/{end}": b"[1]", "b/metrics.json": deep, "b/config.json": b'{"sae": {"use": "x|<b>`"}}'},
    )
    qsae("push", run, "me/coder", "--path", "d")
    card = pushed(hub)["README.md"].decode()
    assert "| b | x\\|&lt;b>' |" in card
    assert card.count("\n## `") == 4


# --- what is refused before anything is sent


def test_a_run_that_has_not_ended(hub, qsae, copy):
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | {"completed_at": None, "status": "stopped"}))
    error = qsae("push", copy, "me/coder", code=2).stderr
    assert "its run has not come to an end (status: stopped)" in error
    assert "--resume" in error
    assert hub.requests == []


def test_an_altered_coder(hub, qsae, copy):
    file = copy / "checkpoints" / "final" / "coder.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert (
        "the contents do not match the checksum in its header"
        in qsae("push", copy, "me/coder", code=2).stderr
    )
    assert hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "me/coder"], "nothing: there is no such file or folder"),
        ([".", "me/coder"], "holds no trained coder"),
        (["RUN", "coder"], "coder: 'coder' is no name of a repository"),
        (["RUN", "me/a--b"], "'me/a--b' is no name of a repository"),
        (["RUN", "hf://me/coder"], "'hf://me/coder' is no name of a repository"),
        (["RUN", "me/coder", "--path", "../x"], "'../x' is no path in a repository"),
        (["RUN/checkpoints/final", "me/coder", "--with", "evaluations"], "has no evaluations"),
    ],
)
def test_what_is_no_coder_and_no_repository(hub, qsae, run, arguments, message):
    error = qsae("push", *(a.replace("RUN", str(run)) for a in arguments), code=2).stderr
    assert message in error
    assert hub.requests == []


# --- what the Hub refuses


def test_without_a_token_and_with_one_that_may_not_write(hub, qsae, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    error = qsae("push", run, "me/coder", code=2).stderr
    assert "hf://me/coder: your token may not do this" in error
    assert "You don't have the rights to create a model" in error
    assert "https://huggingface.co/settings/tokens" in error
    hub.add("me/coder", {})
    assert "your token may not do this" in qsae("push", run, "me/coder", code=2).stderr
    monkeypatch.setenv("HF_TOKEN", "nonsense")
    error = qsae("push", run, "me/coder", code=2).stderr
    assert "your token is not accepted (Invalid credentials" in error
    assert "hf auth login" in error
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in qsae("push", run, "me/new", code=2).stderr


def test_somebody_else_commits_meanwhile(hub, qsae, run):
    repo = hub.add("me/coder", {"a.txt": b"a"})
    hub.before_commit = lambda: repo.commit({"b.txt": b"b"})
    error = qsae("push", run, "me/coder", code=2).stderr
    assert "somebody else has changed it meanwhile (A commit has happened since" in error
    assert "next:    push again" in error
    assert set(pushed(hub)) == {"a.txt", "b.txt"}
    assert len(hub.asked("PUT")) == 1
    qsae("push", run, "me/coder")
    assert {"a.txt", "b.txt", "config.json"} < set(pushed(hub))
    assert len(hub.asked("PUT")) == 1  # the large file was there already


def test_a_header_that_the_hub_does_not_take(hub, qsae, run):
    error = qsae("push", run, "me/coder", "--license", "none-such", code=2).stderr
    assert '"license" must be one of [mit]' in error
    assert pushed(hub) == {}


def test_an_upload_that_breaks_off(hub, qsae, run):
    hub.refuse["/storage/"] = (403, {"X-Error-Message": "the storage says no"})
    error = qsae("push", run, "me/coder", code=2).stderr
    assert "Error while uploading 'checkpoints/final/coder.safetensors'" in error
    assert "next:    push again; what was uploaded is kept" in error
    assert pushed(hub) == {}


def test_offline(hub, qsae, run, offline):
    offline()
    error = qsae("push", run, "me/coder", code=2).stderr
    assert "hf://me/coder: HF_HUB_OFFLINE is set, and this needs the Hub" in error


def test_no_network(hub, qsae, run):
    hub.close()
    error = qsae("push", run, "me/coder", code=2).stderr
    assert f"the Hub at {hub.url} cannot be reached" in error
    assert "next:    run the same command again" in error
    assert "HF_HUB_OFFLINE" not in error  # which is for reading


@pytest.mark.parametrize("reason", ["HF_HUB_OFFLINE is set", "cannot be reached"])
def test_a_dry_run_needs_no_network(hub, qsae, run, offline, reason):
    if reason.startswith("HF_HUB_OFFLINE"):
        offline()
    hub.close()
    found = qsae("push", run, "me/coder", "--path", "a", "--private", "--dry-run")
    assert "qsae: note: what is in me/coder already is not known: " in found.stderr
    assert reason in found.stderr
    assert "to me/coder, branch main\n" in found.stdout  # new or not, who knows
    for name in OWN[:2]:
        size = (run / name).stat().st_size
        assert re.search(rf"^a/{name} +{size:,}  \?$", found.stdout, re.MULTILINE), found.stdout
    assert "nothing was uploaded: --dry-run" in found.stdout
    told = json.loads(qsae("push", run, "me/coder", "--dry-run", "--json").stdout)
    assert {file["change"] for file in told["files"]} == {None}
