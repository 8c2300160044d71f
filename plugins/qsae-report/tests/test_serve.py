"""What a served report answers: a small coder of the built-in language model, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from qsae_report.serve.asked import STRONGEST, Asked
from qsae_report.serve.serving import LARGEST_BODY, Server
from qsae_splice.opened import open_coder

from qsae_cli.commands import recorded_data
from qsae_cli.main import cli
from qsae_core import load
from qsae_core.contracts import Site, TokenBatch

FEW = "--steps 20 --batch-size 256 --eval-tokens 256 --eval reconstruction --n-latents 64 --k 24 --threads 1"
TEXT = "--data lm --model builtin --context 64 --buffer-tokens 1024"
PROMPT = "def open(path):"
MEASURED = 512
ADDED = {"latent": 3, "op": "add", "value": 1.5, "unit": "norm", "positions": "generated"}


def train(folder: Path, *arguments: str) -> Path:
    """The folder of a run."""
    given = ["train", *FEW.split(), *TEXT.split(), *arguments, "--name", "x", "--out", str(folder)]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 0, result.output
    (run,) = folder.glob("x/*/*")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("run"), "--sae", "topk", "--layer", "1")


class Client:
    """Somebody who asks a server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def request(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> tuple[int, Any]:
        """The status, and what was answered; a header of None is not sent."""
        sent = {"Host": f"127.0.0.1:{self.server.server_port}", "Content-Type": "application/json"}
        sent |= {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.read()
        is_json = bool(found) and answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(found) if is_json else found.decode()

    def post(self, path: str, body: object, **headers: str | None) -> tuple[int, Any]:
        return self.request("POST", path, json.dumps(body).encode(), **headers)

    def latents(self, text: str) -> list[dict[str, Any]]:
        status, found = self.post("/api/latents", {"text": text})
        assert status == 200, found
        return found["tokens"]

    def steer(self, *edits: dict[str, Any], **others: Any) -> dict[str, Any]:
        body = {"prompt": PROMPT, "edits": edits, "max_new_tokens": 6, **others}
        status, found = self.post("/api/steer", body)
        assert status == 200, found
        return found


def serving(asked: Asked) -> Iterator[Client]:
    with Server(0) as server:
        server.page, server.asked = b"<!doctype html><title>a report</title>", asked
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()


def opened(run: Path, layer: str | None = None) -> Asked:
    return Asked(open_coder(run, recorded_data({"path": run}), "cpu"), layer, MEASURED)


@pytest.fixture(scope="module")
def client(run) -> Iterator[Client]:
    yield from serving(opened(run))


def by_hand(asked: Asked, coder: Any, text: str, site: Site) -> list[list[tuple[int, float]]]:
    """The latents of each token behind BOS, from the dense codes of the model's vectors."""
    model = asked.opened.model
    ids = torch.tensor([[0, *model.tokenizer.encode(text, add_special_tokens=False)]])
    real = torch.ones_like(ids, dtype=torch.bool)
    x_TD = model.read(TokenBatch(ids, ids != 0, real), [site])[site][0, 1:]
    with torch.no_grad():
        dense = coder.encode(x_TD).to_dense()
    found = []
    for row in dense:
        active = sorted(row.nonzero()[:, 0].tolist(), key=lambda j: -abs(float(row[j])))
        found.append([(j, float(row[j])) for j in active])
    return found


def test_latents_are_those_of_the_models_vectors(client, run) -> None:
    tokens = client.latents(PROMPT + " € x")
    assert "".join(token["text"] for token in tokens[1:]) == PROMPT + " € x"
    assert tokens[0] == {"text": "<|bos|>", "bytes": None, "special": True, "active": 0, "latents": []}
    expected = by_hand(client.server.asked, load(run), PROMPT + " € x", Site(1, "resid_post"))
    assert len(expected) == len(tokens) - 1
    assert max(map(len, expected)) > STRONGEST  # k is 24
    for token, pairs in zip(tokens[1:], expected, strict=True):
        assert (token["special"], token["active"]) == (False, len(pairs))
        assert [j for j, _ in token["latents"]] == [j for j, _ in pairs[:STRONGEST]]
        assert [v for _, v in token["latents"]] == pytest.approx([v for _, v in pairs[:STRONGEST]], abs=1e-5)


def test_special_tokens_in_a_text_have_no_latents(client) -> None:
    tokens = client.latents("a<|bos|>b")
    assert [(token["text"], token["special"]) for token in tokens] == [
        ("<|bos|>", True),
        ("a", False),
        ("<|bos|>", True),
        ("b", False),
    ]
    assert [bool(token["latents"]) for token in tokens] == [False, True, False, True]


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.5, "seed": 7}])
def test_steering_is_that_of_the_command(client, run, drawn) -> None:
    given = ["splice", run, "--prompt", PROMPT, "--steer", "3:add=1.5norm@generated", "--ablate", 5]
    given += ["--max-new-tokens", 6, "--measure-tokens", MEASURED, "--compare", "--json"]
    given += [part for name, value in drawn.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(cli, [str(part) for part in given])
    (expected,) = json.loads(result.stdout)["texts"]
    found = client.steer(ADDED, {"latent": 5, "op": "ablate"}, **drawn)
    for name in ("prompt", "steered", "unsteered", "shift", "notes"):
        assert found[name] == expected[name], name
    assert found["steered"] != found["unsteered"]
    steps = expected["steps"]
    assert [step["kl"] for step in found["steps"]] == [step["kl"] for step in steps]
    assert found["kl"] == pytest.approx(sum(step["kl"] for step in steps if not step["prompt"]) / 6)
    for mine, its in zip(found["steps"], steps, strict=True):
        assert mine["activations"] == its["activations"].get("1.resid_post", {})
        assert mine["shift"] == its["shift"].get("1.resid_post")
    assert "".join(step["text"] for step in found["steps"] if not step["prompt"]) == found["steered"]


def test_without_edits_both_texts_are_the_same(client) -> None:
    found = client.steer(temperature=1.0)
    assert found["steered"] == found["unsteered"] != ""
    assert found["shift"] == {"mean": None, "largest": None, "vectors": 0}
    assert found["kl"] == 0


def test_several_at_once_are_answered_as_one_after_the_other(client) -> None:
    edits = [(), ({"latent": 3, "op": "set", "value": 2, "unit": "norm"},), (ADDED,), ()]
    alone = [client.steer(*each) for each in edits]
    assert alone[0]["steered"] != alone[1]["steered"]
    with ThreadPoolExecutor(len(edits)) as pool:
        together = list(pool.map(lambda each: client.steer(*each), edits))
    assert together == alone


def test_of_several_layers_one_is_asked(tmp_path) -> None:
    run = train(tmp_path, "--sae", "topk", "--layers", "1,2", "--per-layer")
    for layer, site in (("2", Site(2, "resid_post")), (None, Site(1, "resid_post"))):
        asked = opened(run, layer)
        first = asked.latents(PROMPT)["tokens"][1]["latents"][0]
        place = asked.opened.places[layer or "1"]
        assert first[0] == by_hand(asked, place.coder, PROMPT, site)[0][0][0]
        for client in serving(asked):
            edited = client.steer({"latent": first[0], "op": "add", "value": 1.0})
            before, after = edited["steps"][1]["activations"][str(first[0])]
            assert before == pytest.approx(first[1])
            assert after > before
    with pytest.raises(Exception, match="there is no coder of layer 3"):
        opened(run, "3")


def test_a_transcoder_reads_its_source_and_changes_its_target(tmp_path) -> None:
    run = train(tmp_path, "--transcoder", "transcoder", "--source-layer", "1", "--target-layer", "1")
    asked = opened(run)
    first = asked.latents(PROMPT)["tokens"][1]["latents"][0]
    (expected, *_), *_ = by_hand(asked, load(run), PROMPT, Site(1, "mlp_in"))
    assert first == pytest.approx(expected)
    for client in serving(asked):
        step = client.steer({"latent": first[0], "op": "scale", "value": 3})["steps"][1]
        assert step["activations"][str(first[0])] == pytest.approx([first[1], 3 * first[1]])


def test_the_page_is_at_the_root(client) -> None:
    status, found = client.request("GET", "/", Content_Length=None, Content_Type=None)
    assert (status, found) == (200, "<!doctype html><title>a report</title>")
    assert client.request("GET", "/?x=1", Host="LOCALHOST:9")[0] == 200  # a forwarded port


def test_head_is_what_get_answers_without_its_body(client) -> None:
    for path, status in (("/", 200), ("/report.html", 404), ("/api/latents", 405)):
        connection = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=60)
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        if status == 200:
            assert int(answer.headers["Content-Length"]) == len(client.server.page)
    assert client.request("HEAD", "/", Host="evil.example")[0] == 403


def test_a_part_of_a_character_is_told_by_its_bytes(client) -> None:
    tokens = client.latents("€")[1:]
    assert [token["text"] for token in tokens] == ["", "", "€"]
    assert bytes.fromhex("".join(token["bytes"] for token in tokens)) == "€".encode()


def test_a_latent_that_there_is_not_is_refused_before_units_are_measured(client, monkeypatch) -> None:
    def measured(*_: Any) -> None:
        raise AssertionError("units were measured")

    monkeypatch.setattr(client.server.asked.opened, "scaled", measured)
    edit = {"latent": 64, "op": "add", "value": 1, "unit": "max"}
    status, error = client.post("/api/steer", {"prompt": PROMPT, "edits": [edit]})
    assert (status, error["allowed"]) == (400, "0 to 63")
    assert error["what"] == "there is no latent 64: the coder has 64"


REFUSED = [
    (403, "Host", "/api/latents", {"Host": "evil.example"}),
    (403, "Host", "/api/latents", {"Host": "127.0.0.1.evil.example:80"}),
    (403, "Host", "/api/latents", {"Host": None}),
    (403, "Origin", "/api/latents", {"Origin": "https://evil.example"}),
    (403, "Origin", "/api/latents", {"Origin": "null"}),
    (403, "Origin", "/api/latents", {"Origin": "http://localhost:1"}),
    (415, "Content-Type", "/api/latents", {"Content_Type": "text/plain"}),
    (415, "Content-Type", "/api/latents", {"Content_Type": None}),
    (411, "Content-Length", "/api/latents", {"Content_Length": None}),
    (411, "Content-Length", "/api/latents", {"Content_Length": "-1"}),
    (411, "Content-Length", "/api/latents", {"Content_Length": "9" * 5000}),
    (404, "/api/else", "/api/else", {}),
]


@pytest.mark.parametrize(("status", "where", "path", "headers"), REFUSED)
def test_requests_of_others_are_refused(client, status, where, path, headers) -> None:
    found, error = client.post(path, {"text": "a"}, **headers)
    assert (found, error["where"]) == (status, where)
    assert set(error) == {"what", "where", "allowed", "next"}
    assert error["allowed"]
    own = f"http://127.0.0.1:{client.server.server_port}"
    assert client.post("/api/latents", {"text": "a"}, Origin=own)[0] == 200


def test_pages_of_others_do_not_get_the_report(client) -> None:
    assert client.request("GET", "/", Host="evil.example")[0] == 403
    assert client.request("GET", "/report.html")[0] == 404
    assert client.request("GET", "/api/latents")[0] == 405


def test_a_body_that_is_too_long_is_refused_once_it_is_sent(client) -> None:
    """Else whoever still sends meets a closed connection, and no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=60)
    connection.putrequest("POST", "/api/latents")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(4 * LARGEST_BODY))
    connection.endheaders()
    for _ in range(4):
        connection.send(b"a" * LARGEST_BODY)
        time.sleep(0.1)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["where"]) == (413, "Content-Length")


FAULTS = [
    ("/api/latents", {"text": "x " * 2000}, "text", "256 tokens"),  # what the built-in model takes
    ("/api/steer", {"prompt": PROMPT, "max_new_tokens": 300}, "prompt", "256 tokens"),
    ("/api/steer", {"prompt": PROMPT, "edits": [{"latent": 64, "op": "ablate"}]}, "64:ablate@all", "0 to 63"),
    ("/api/steer", {"prompt": PROMPT, "edits": [{"latent": 1, "op": "ad"}]}, "body: edits[0]", "add, set"),
]


@pytest.mark.parametrize(("path", "body", "where", "allowed"), FAULTS)
def test_what_the_model_cannot_be_asked(client, path, body, where, allowed) -> None:
    status, error = client.post(path, body)
    assert (status, error["where"]) == (400, where)
    assert allowed in error["allowed"]
    assert client.latents("a")[1]["latents"]


def test_a_fault_of_the_server_does_not_end_it(client, monkeypatch, capsys) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(client.server.asked, "latents", lambda text: 1 / 0)
        status, error = client.post("/api/latents", {"text": "a"})
    assert status == 500
    assert "ZeroDivisionError" in error["what"]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert client.latents("a")


def test_a_text_ends_with_the_server(run) -> None:
    asked = opened(run)
    asked.end()
    with pytest.raises(Exception, match="the server has ended"):
        asked.latents("a")
