"""The judge ``endpoint``: a model behind an OpenAI-compatible URL. Imports no torch."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from qsae_evaluation_autointerp import AutointerpConfig, prompts
from qsae_evaluation_autointerp.answers import KeptAnswers
from qsae_evaluation_autointerp.judge import Example, Judge, JudgeError, Window

AGAIN = (408, 409, 429, 500, 502, 503, 504, 529)
"""HTTP statuses after which asking again may help."""
READ_AT_ONCE, LONGEST = 2**16, 2**24
"""Bytes of an answer."""
SHOWN = 200
"""Characters of an answer that an error shows."""


class EndpointJudge(Judge):
    """Asks for a chat completion: one for the explanation, one for some windows at a time.

    An answer that could be read is kept on disk and not asked for again.

    Raises:
        JudgeError: if the environment variable of the key is not set.
    """

    def __init__(self, config: AutointerpConfig) -> None:
        assert config.url is not None  # as AutointerpConfig checks
        self.config, self.url = config, f"{config.url.rstrip('/')}/chat/completions"
        self.name = f"{config.model} at {self.url}"
        self.kept = KeptAnswers(config.cache)
        self._key = _key(config.key_variable)
        self._opener = urllib.request.build_opener(_NoRedirect)

    def explain(self, examples: Sequence[Example]) -> str:
        """Its one line; empty where the answer is none."""
        request = self._request(prompts.explain(examples))
        answer, is_new = self._answer(request)
        found = prompts.read_explanation(answer)
        self._note(request, answer, bool(found), is_new)
        return found

    def detect(self, explanation: str, windows: Sequence[Window]) -> list[float | None]:
        """0 or 1 for each; None where an answer is no list of as many of these."""
        found: list[float | None] = []
        size = self.config.windows_per_call
        for some in (windows[start : start + size] for start in range(0, len(windows), size)):
            request = self._request(prompts.detect(explanation, some))
            answer, is_new = self._answer(request)
            read = prompts.read_list(answer, len(some))
            self._note(request, answer, None not in read, is_new)
            found += read
        return found

    def _request(self, prompt: prompts.Prompt) -> dict[str, Any]:
        messages = [{"role": role, "content": text} for role, text in prompt._asdict().items()]
        request: dict[str, Any] = {"model": self.config.model, "messages": messages}
        if self.config.temperature is not None:
            request["temperature"] = self.config.temperature
        return request

    def _note(self, request: dict[str, Any], answer: str, readable: bool, is_new: bool) -> None:
        if readable and is_new:
            self.kept.put(self.url, request, answer)
        elif not readable and self.unreadable is None:
            self.unreadable = answer

    def _answer(self, request: dict[str, Any]) -> tuple[str, bool]:
        """What it says, and whether it was asked for that now."""
        kept = self.kept.get(self.url, request)
        return (self._content(self._asked(request)), True) if kept is None else (kept, False)

    def _asked(self, request: dict[str, Any]) -> bytes:
        reason = ""
        for attempt in range(self.config.retries + 1):
            if attempt:
                time.sleep(self.config.backoff * 2 ** (attempt - 1))
            try:
                return self._sent(request)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {self._shown(error)}"
                if error.code not in AGAIN:
                    raise self._error(f"refuses what it is asked ({reason})") from error
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
                reason = str(getattr(error, "reason", error)) or type(error).__name__
        times = self.config.retries + 1
        raise self._error(f"does not answer, asked {times} time{'s' if times > 1 else ''} ({reason})")

    def _shown(self, error: urllib.error.HTTPError) -> str:
        """What the server says to it, without the key, which some repeat."""
        try:
            said = error.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        said = said.replace(self._key, "(key)") if self._key else said
        return " ".join(said.split())[:SHOWN] or str(error.reason)

    def _sent(self, request: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "qsae"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        sent = urllib.request.Request(self.url, json.dumps(request).encode(), headers, method="POST")
        deadline = time.monotonic() + self.config.timeout
        with self._opener.open(sent, timeout=self.config.timeout) as response:
            body = bytearray()
            while part := response.read1(READ_AT_ONCE):  # the socket's own timeout is that of each part
                body += part
                if len(body) > LONGEST:
                    raise self._error(f"gives more than {LONGEST:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer in {self.config.timeout:g} s")
        return bytes(body)

    def _content(self, body: bytes) -> str:
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            said = body[:SHOWN].decode("utf-8", "replace")
            raise self._error(f"answers with something else than a chat completion: {said!r}") from error
        return content if isinstance(content, str) else ""

    def _error(self, what: str) -> JudgeError:
        return JudgeError(
            f"the judge {self.config.model} {what}",
            where=self.url,
            allowed="a server that answers OpenAI's chat completions, and a model and key that it knows",
            next="mend url, model or key_variable, and repeat the command: what was answered is in "
            f"{self.kept.folder} and is not asked again",
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another address would be given the key, too."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: it is an error."""


def _key(variable: str | None) -> str | None:
    """Raises:
    JudgeError: if the variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise JudgeError(
            f"the environment variable {variable}, which key_variable names, is not set",
            where="evaluate: autointerp: key_variable",
            allowed="a variable that holds the endpoint's key",
            next=f"export {variable}=... and repeat the command",
        )
    return key
