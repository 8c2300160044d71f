"""The HTTP server of ``qsae report --serve``: one page and two questions, for this machine alone.

A page of another site that is open in the same browser can reach 127.0.0.1 too. It is kept out by the names
under which this server lets itself be called (a foreign name that leads here is no way round), by the origin
of requests, and by a content type that no page may send to another origin unasked.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from qsae_core.errors import ConfigError, QsaeError
from qsae_report.serve.asked import Asked, open_asked
from qsae_report.serve.bodies import parsed, read_continuation, read_text

HOST = "127.0.0.1"
NAMES = re.compile(r"(?:localhost|127\.0\.0\.1)(?::\d+)?", re.IGNORECASE)
"""What this server may be called; any port, since one may be forwarded."""
LARGEST_BODY = 64 * 1024
DRAINED = 16 * LARGEST_BODY
"""Bytes of a refused body that are read all the same, so that whoever sends them sees the answer."""
DIGITS = 19
"""Of a number of bytes, fewer than these."""
SECONDS = 30
"""That a browser may take to send a request."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
QUESTIONS: dict[str, Callable[[Asked, dict[str, Any]], dict[str, Any]]] = {
    "/api/latents": lambda asked, body: asked.latents(read_text(body)),
    "/api/steer": lambda asked, body: asked.steered(read_continuation(body)),
}


class RefusedError(QsaeError):
    """A request that is answered with a status of its own."""

    def __init__(self, status: HTTPStatus, what: str, *, where: str, allowed: str) -> None:
        super().__init__(what, where=where, allowed=allowed)
        self.status = status


class Server(ThreadingHTTPServer):
    """A page, and a coder that it asks.

    Args:
        port: 0: one that is free.

    Raises:
        ConfigError: if the port cannot be had.
    """

    daemon_threads = True
    page = b""
    asked: Asked

    def __init__(self, port: int) -> None:
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port} cannot be had: {getattr(error, 'strerror', None) or error}",
                where="--port",
                allowed="a port from 1 to 65535 that is free; 0: one that is",
                next="--port 0",
            ) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no fault."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "qsae", ""
    timeout = SECONDS

    def do_HEAD(self) -> None:
        """What GET answers, without its body."""
        self.do_GET()

    def do_GET(self) -> None:
        """The page."""
        try:
            self._check_names()
            if self._path() in QUESTIONS:
                raise RefusedError(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    f"{self.command} asks nothing",
                    where=self._path(),
                    allowed="POST",
                )
            if self._path() != "/":
                raise self._nothing_here()
        except RefusedError as error:
            self._answer_error(error)
            return
        self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        """A question, and its answer as JSON."""
        try:
            body = self._body()
            self._check_names()
            question = QUESTIONS.get(self._path())
            if question is None:
                raise self._nothing_here()
            self._check_kind()
            found = json.dumps(question(self.server.asked, parsed(body)), allow_nan=False)
        except QsaeError as error:
            self._answer_error(error)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # whatever it is, it is this request's, and the server goes on
            traceback.print_exc()
            what = f"the server failed: {type(error).__name__}: {error}"
            self._answer_json(
                HTTPStatus.INTERNAL_SERVER_ERROR, {"what": what, "next": "its terminal says where"}
            )
        else:
            self._answer(HTTPStatus.OK, "application/json", found.encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not listed."""

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _body(self) -> bytes:
        """What was sent; read before anything is refused, or the refusal would not arrive."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < DIGITS):
            raise RefusedError(
                HTTPStatus.LENGTH_REQUIRED,
                "it is not said how long the body is",
                where="Content-Length",
                allowed="a number of bytes",
            )
        body = self.rfile.read(min(int(length), LARGEST_BODY))
        if int(length) > LARGEST_BODY:
            self.rfile.read(min(int(length) - LARGEST_BODY, DRAINED))
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {int(length):,} bytes",
                where="Content-Length",
                allowed=f"{LARGEST_BODY:,} bytes",
            )
        return body

    def _check_names(self) -> None:
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        if len(hosts) != 1 or not NAMES.fullmatch(hosts[0]):
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f"the server is not called {', '.join(hosts) or 'nothing'}",
                where="Host",
                allowed="localhost, 127.0.0.1",
            )
        own = f"http://{hosts[0].lower()}"
        if any(origin.lower() != own for origin in origins):
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f"pages of {', '.join(origins)} may not ask",
                where="Origin",
                allowed=own,
            )

    def _check_kind(self) -> None:
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the body is {self.headers.get('Content-Type', 'of no type')}",
                where="Content-Type",
                allowed="application/json",
            )

    def _nothing_here(self) -> RefusedError:
        allowed = f"GET /, {', '.join(f'POST {path}' for path in QUESTIONS)}"
        return RefusedError(
            HTTPStatus.NOT_FOUND, "there is nothing here", where=self._path(), allowed=allowed
        )

    def _answer_error(self, error: QsaeError) -> None:
        status = error.status if isinstance(error, RefusedError) else HTTPStatus.BAD_REQUEST
        names = ("what", "where", "allowed", "next")
        self._answer_json(status, {name: getattr(error, name) for name in names})

    def _answer_json(self, status: HTTPStatus, found: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(found).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(
    path: pathlib.Path,
    html: Callable[[], str],
    *,
    port: int,
    layer: str | None,
    tokenizer: str | None,
    device: str,
) -> None:
    """What ``qsae_report.serve.run`` says."""
    with Server(port) as server:
        click.echo("making the page ...", err=True)
        server.page = html().encode("utf-8")
        click.echo("loading the coder and its language model ...", err=True)
        server.asked = open_asked(path, layer, tokenizer, device)
        click.echo(f"{server.address}  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.asked.end()
            click.echo("ended")
