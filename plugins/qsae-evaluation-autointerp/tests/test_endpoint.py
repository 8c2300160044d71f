"""The judge ``endpoint`` against servers of this test's own, on this machine."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner
from qsae_evaluation_autointerp import AutointerpConfig, prompts
from qsae_evaluation_autointerp.detection import Task, judged_tasks
from qsae_evaluation_autointerp.endpoint import LONGEST, EndpointJudge
from qsae_evaluation_autointerp.judge import Example, JudgeError, Window

from qsae_cli.main import cli
from qsae_core.evaluation.stored import load_result

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(request, number of the request) -> HTTP status, and what is answered: text or a whole body."""


class Server(ThreadingHTTPServer):
    """Answers chat completions as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Reply = lambda request, number: (200, right(request))
        self.trickle: float | None = None
        """Seconds between parts of an answer; None: it is sent at once."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **request})
        self.server.headers.append(dict(self.headers))
        status, answer = self.server.reply(request, len(self.server.requests))
        body = {"choices": [{"message": {"content": answer}}]} if isinstance(answer, str) else answer
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if status in (301, 302, 307):
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", str(len(sent)))
        with contextlib.suppress(ConnectionError):  # who asked may have gone after a timeout
            self.end_headers()
            parts = (
                [sent] if self.server.trickle is None else [sent[i : i + 4] for i in range(0, len(sent), 4)]
            )
            for part in parts:
                self.wfile.write(part)
                time.sleep(self.server.trickle or 0)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


def asked(request: dict[str, Any]) -> str:
    return str(request["messages"][1]["content"])


def right(request: dict[str, Any]) -> str:
    """Explains a latent by its first marked token, and detects by looking for that token."""
    text = asked(request)
    if request["messages"][0]["content"] == prompts.EXPLAIN:
        found = re.search(f"{prompts.OPEN}(.*?){prompts.CLOSE}", text)
        assert found is not None
        return f"the word {found[1].strip()}"
    description, *texts = text.split("\n\nText ")
    word = description.split()[-1]
    return json.dumps([int(word in shown.split()) for shown in texts])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def judge(url: str, folder: pathlib.Path, **options: Any) -> EndpointJudge:
    quick = {"backoff": 0.001, "timeout": 5.0, "cache": str(folder), "model": "m", **options}
    return EndpointJudge(AutointerpConfig(judge="endpoint", url=url, **quick))


def window(text: str) -> Window:
    """A token a word."""
    words = [f" {word}" for word in text.split()]
    return Window(tuple(range(len(words))), tuple(words), 0)


def task(latent: int) -> Task:
    """A latent that fires on ``x1`` (of latent 1) and nowhere else; ten windows."""
    word = f"x{latent}"
    example = Example(window(f"a {word} b"), (0.0, 2.0, 0.0))
    windows = [window(f"c {word}" if i % 2 else f"c x{latent + 100}") for i in range(10)]
    return Task(latent, [example], windows, [bool(i % 2) for i in range(10)], 0)


def test_right_answers(server: Server, tmp_path: pathlib.Path) -> None:
    asked_one = judge(server.url, tmp_path)
    verdicts, fault = judged_tasks([task(0), task(1)], asked_one)
    assert fault is None
    assert [v.label for v in verdicts] == ["the word x0", "the word x1"]
    assert verdicts[0].own == [0.0, 1.0] * 5
    assert verdicts[1].own == [0.0, 1.0] * 5
    assert verdicts[0].control == verdicts[1].control == [0.0] * 10
    assert {r["path"] for r in server.requests} == {"/v1/chat/completions"}
    assert {(r["model"], r["temperature"]) for r in server.requests} == {("m", 0.0)}
    # of each: an explanation, two calls of five windows, and two for the control
    assert len(server.requests) == 2 * 5


def test_what_a_judge_is_shown() -> None:
    """Activations are told from 1 to 10 of the largest; what stands between the marks fires."""
    prompt = prompts.explain([Example(window("a b"), (4.0, 0.0)), Example(window("a"), (-1.0,))])
    assert prompt.user == "Text 1:\n⟦ a⟧ b\n(' a' 10)\n\nText 2:\n⟦ a⟧\n(' a' 2)"
    assert prompts.detect("words", [window("a"), window("b c")]).user == (
        "Description: words\n\nText 1:\n a\n\nText 2:\n b c"
    )


def test_what_was_answered_is_not_asked_again(server: Server, tmp_path: pathlib.Path) -> None:
    first = judged_tasks([task(0), task(1)], judge(server.url, tmp_path))
    n = len(server.requests)
    assert judged_tasks([task(0), task(1)], judge(server.url, tmp_path)) == first
    assert len(server.requests) == n
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or re.fullmatch(r"[0-9a-f]{64}\.json", file.name)
    # another model, another temperature, other text: asked
    judge(server.url, tmp_path, model="n").explain(task(0).examples)
    judge(server.url, tmp_path, temperature=None).explain(task(0).examples)
    judge(server.url, tmp_path).explain(task(2).examples)
    assert len(server.requests) == n + 3
    assert "temperature" not in server.requests[-2]


def test_a_damaged_file_is_asked_for_again(server: Server, tmp_path: pathlib.Path) -> None:
    judge(server.url, tmp_path).explain(task(0).examples)
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"answer": ')
    assert judge(server.url, tmp_path).explain(task(0).examples) == "the word x0"
    assert len(server.requests) == 2
    assert json.loads(file.read_text())["answer"] == "the word x0"


@pytest.mark.parametrize(
    "answer",
    ["", "yes, no", "[0, 1]", "[0, 1, 2, 0, 1]", "[0,1,0,1,0] or [1,1,1,1,1]", "[0, 1, 0, 1, 0, 1]", "[]"],
)
def test_nonsense_has_failed(server: Server, tmp_path: pathlib.Path, answer: str) -> None:
    """It is not kept either: it is asked for again."""
    server.reply = lambda request, number: (200, answer)
    asked_one = judge(server.url, tmp_path)
    assert asked_one.detect("words", task(0).windows) == [None] * 10
    assert asked_one.unreadable == answer
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize(
    "answer", ["[0, 1, 0, 1, 0]", "Answer: [0,1,0,1,0,].", "```\n[ 0, 1, 0, 1, 0 ]\n```"]
)
def test_a_list_is_read(answer: str) -> None:
    assert prompts.read_list(answer, 5) == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_an_explanation_is_one_line() -> None:
    assert prompts.read_explanation("\n  words \n") == "words"
    assert prompts.read_explanation("I think:\nwords") == ""
    assert prompts.read_explanation(" \n") == ""


def test_content_that_is_none_has_failed(server: Server, tmp_path: pathlib.Path) -> None:
    server.reply = lambda request, number: (200, {"choices": [{"message": {"content": None}}]})
    assert judge(server.url, tmp_path).explain(task(0).examples) == ""


def test_errors_that_pass(server: Server, tmp_path: pathlib.Path) -> None:
    """500, 429, then an answer."""
    server.reply = lambda request, number: {1: (500, "oh"), 2: (429, "slow")}.get(
        number, (200, right(request))
    )
    assert judge(server.url, tmp_path).explain(task(0).examples) == "the word x0"
    assert len(server.requests) == 3


def test_errors_that_stay(server: Server, tmp_path: pathlib.Path) -> None:
    server.reply = lambda request, number: (503, b"no capacity")
    with pytest.raises(JudgeError) as caught:
        judge(server.url, tmp_path, retries=2).explain(task(0).examples)
    assert len(server.requests) == 3
    text = str(caught.value)
    assert f"{server.url}/chat/completions" in text
    assert "asked 3 times (HTTP 503: no capacity)" in text
    assert str(tmp_path) in text


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_is_refused_is_not_asked_again(server: Server, tmp_path: pathlib.Path, status: int) -> None:
    server.reply = lambda request, number: (status, b"no such model")
    with pytest.raises(JudgeError, match=f"refuses what it is asked .HTTP {status}: no such model"):
        judge(server.url, tmp_path).explain(task(0).examples)
    assert len(server.requests) == 1


def test_a_timeout(server: Server, tmp_path: pathlib.Path) -> None:
    def slow(request: dict[str, Any], number: int) -> tuple[int, str]:
        time.sleep(0.5 if number == 1 else 0)
        return 200, right(request)

    server.reply = slow
    assert judge(server.url, tmp_path, timeout=0.1).explain(task(0).examples) == "the word x0"
    server.requests.clear()
    with pytest.raises(JudgeError, match=r"does not answer, asked 1 time .*timed out"):
        judge(server.url, tmp_path, timeout=0.1, retries=0, model="n").explain(task(0).examples)


def test_an_answer_that_trickles_and_one_without_end(server: Server, tmp_path: pathlib.Path) -> None:
    """Each part comes in time; the whole of it does not, or is too much."""
    server.trickle = 0.04
    server.reply = lambda request, number: (200, right(request) + " " * 100)
    with pytest.raises(JudgeError, match=r"no whole answer in 0\.2 s"):
        judge(server.url, tmp_path, timeout=0.2, retries=0).explain(task(0).examples)
    server.trickle = None
    server.reply = lambda request, number: (200, b" " * (LONGEST + 1))
    with pytest.raises(JudgeError, match="gives more than"):
        judge(server.url, tmp_path).explain(task(0).examples)
    server.reply = lambda request, number: (200, b"[" * 100_000)
    with pytest.raises(JudgeError, match="something else than a chat completion"):
        judge(server.url, tmp_path).explain(task(0).examples)


def test_what_is_no_chat_completion(server: Server, tmp_path: pathlib.Path) -> None:
    server.reply = lambda request, number: (200, b"<html>hello</html>")
    with pytest.raises(JudgeError, match="something else than a chat completion: '<html>hello"):
        judge(server.url, tmp_path).explain(task(0).examples)


def test_the_key_goes_to_the_url_and_nowhere_else(
    server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    judge(server.url, tmp_path, key_variable="MY_KEY").explain(task(0).examples)
    assert server.headers[0]["Authorization"] == "Bearer sesame"
    assert all("sesame" not in file.read_text() for file in tmp_path.rglob("*.json"))
    judge(server.url, tmp_path).explain(task(1).examples)
    assert "Authorization" not in server.headers[1]
    # a redirection is not followed: it could lead to another server
    server.reply = lambda request, number: (302, b"")
    with pytest.raises(JudgeError, match="HTTP 302"):
        judge(server.url, tmp_path, key_variable="MY_KEY").explain(task(2).examples)
    assert len(server.requests) == 3
    server.reply = lambda request, number: (401, b"wrong key sesame")
    with pytest.raises(JudgeError) as caught:
        judge(server.url, tmp_path, key_variable="MY_KEY").explain(task(2).examples)
    assert "sesame" not in str(caught.value)


def test_a_key_that_is_not_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(JudgeError, match="MY_KEY"):
        judge("http://127.0.0.1:1/v1", tmp_path, key_variable="MY_KEY")


def test_down_at_the_fifth_of_ten_latents(server: Server, tmp_path: pathlib.Path) -> None:
    """Four are kept, with three controls: the first one's is the last one's explanation."""

    def until_the_fifth(request: dict[str, Any], number: int) -> tuple[int, Any]:
        return (503, b"gone") if "x4" in asked(request) else (200, right(request))

    server.reply = until_the_fifth
    verdicts, fault = judged_tasks([task(j) for j in range(10)], judge(server.url, tmp_path))
    assert [v.task.latent for v in verdicts] == [0, 1, 2, 3]
    assert all(v.own == [0.0, 1.0] * 5 for v in verdicts)
    assert [v.control is None for v in verdicts] == [True, False, False, False]
    assert isinstance(fault, JudgeError)
    assert server.url in str(fault)
    assert "repeat the command" in str(fault)
    # once it is up again, only what was not answered is asked
    server.reply = lambda request, number: (200, right(request))
    before = len(server.requests)
    verdicts, fault = judged_tasks([task(j) for j in range(10)], judge(server.url, tmp_path))
    assert (len(verdicts), fault) == (10, None)
    assert len(server.requests) - before == 6 * 5 + 2


def test_no_server(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JudgeError, match="Connection refused"):
        judge("http://127.0.0.1:9/v1", tmp_path, retries=1).explain(task(0).examples)


def test_the_command_keeps_four_of_ten_and_fails(server: Server, tmp_path: pathlib.Path) -> None:
    """The columns and labels of four latents are stored; the error names the URL, and the exit status is 2.

    Repeated once the judge is up, the command asks for the others alone.
    """
    train = shlex.split(
        "train --steps 20 --batch-size 256 --eval-tokens 8192 --eval-every 0 --sae topk --n-latents 256 "
        "--k 8 --buffer-tokens 4096 --threads 1 --eval reconstruction --name it"
    )
    result = CliRunner().invoke(cli, [*train, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (run,) = tmp_path.glob("it/*/*")
    options = (
        f"judge: endpoint, url: '{server.url}', model: m, latents: 10, retries: 0, cache: '{tmp_path / 'c'}'"
    )
    command = ["evaluate", str(run), "--set", f"evaluate=[reconstruction, {{use: autointerp, {options}}}]"]
    explained = []

    def down_at_the_fifth(request: dict[str, Any], number: int) -> tuple[int, Any]:
        if request["messages"][0]["content"] == prompts.EXPLAIN:
            explained.append(number)
        return (503, b"gone") if len(explained) > 4 else (200, right(request))

    server.reply = down_at_the_fifth
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert f"{server.url}/chat/completions: the judge m does not answer" in " ".join(result.stderr.split())
    assert "repeat the command" in result.stderr
    stored, _ = load_result(run / "evaluations" / "autointerp")
    assert int((~stored.per_latent["score"].isnan()).sum()) == len(stored.tables["labels"].rows) == 4
    assert load_result(run / "evaluations" / "reconstruction")[0].values["fvu"] is not None
    before = len(server.requests)
    server.reply = lambda request, number: (200, right(request))
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    stored, _ = load_result(run / "evaluations" / "autointerp")
    assert len(stored.tables["labels"].rows) == 10
    assert len(server.requests) - before == 6 * 9 + 4
