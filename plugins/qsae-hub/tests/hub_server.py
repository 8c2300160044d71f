"""The part of the Hub's API that huggingface_hub uses, over HTTP, with repositories in memory.

Large files are behind a redirect to another host (``localhost`` where the Hub is ``127.0.0.1``), as on the
Hub, and come in parts where a Range asks for them. What goes wrong is set in ``Hub``'s fields.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

OWNER, READER = "token-of-owner", "token-of-reader"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str, size: int) -> bool:
    """What .gitattributes of a new repository says of safetensors files, and the Hub of any large one."""
    return path.endswith((".safetensors", ".npz", ".pt")) or size > 10_000_000


@dataclass
class Repo:
    """A model repository: branch -> commit -> path -> bytes."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes | None], message: str = "", branch: str = "main") -> str:
        """Add files, or remove those that are None; the new commit's name."""
        before = self.commits[self.branches[branch]] if branch in self.branches else {}
        after = {path: data for path, data in {**before, **files}.items() if data is not None}
        name = hashlib.sha1(f"{len(self.commits)}{branch}{sorted(after)}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = after, name
        self.messages.append(message)
        return name

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]


class Hub:
    """The server, its repositories, what it was asked, and what goes wrong."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.uploaded: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.sent: dict[str, int] = {}
        """Path -> bytes of it that went out."""
        self.cut_after: dict[str, int] = {}
        """Path -> bytes after which the connection breaks, once."""
        self.hang_after: dict[str, int] = {}
        """Path -> bytes after which nothing more comes, once."""
        self.released = threading.Event()
        """Ends the hanging."""
        self.corrupt: dict[str, int] = {}
        """Path -> after how many answers a byte of it is changed on the way."""
        self.etags: dict[str, str] = {}
        """Path -> another checksum than that of its bytes, of which only its own address speaks."""
        self.no_ranges = False
        self.listed_besides: list[dict[str, Any]] = []
        """Entries of every listing that there are no files for."""
        self.refuse: dict[str, tuple[int, dict[str, str]]] = {}
        """A part of an address -> status and headers of every answer."""
        self.connections: list[socket.socket] = []
        self.before_commit: Any = None
        """Called once when a commit comes in."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.cdn = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> Repo:
        """A repository with files, at its second commit."""
        repo = self.repos[name] = Repo(**options)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        if files:
            repo.commit(dict(files), "files")
        return repo

    def asked(self, method: str, part: str = "") -> list[str]:
        """The addresses of requests so far."""
        return [url for verb, url, _ in self.requests if verb == method and part in url]

    def close(self) -> None:
        self.released.set()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that is there while the block runs."""
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def _respond(self) -> None:
        self.hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for part, (status, headers) in self.hub.refuse.items():
                if part in self.path:
                    return self._send(status, json.dumps({"error": "refused"}).encode(), headers)
            self._route([unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")])
        except RefusedError as error:
            headers = {"X-Error-Message": error.message} | (
                {"X-Error-Code": error.code} if error.code else {}
            )
            self._send(error.status, json.dumps({"error": error.message}).encode(), headers)

    def _route(self, parts: list[str]) -> None:
        if parts == ["api", "repos", "create"]:
            return self._create()
        if parts == ["api", "validate-yaml"]:
            return self._validate()
        if parts[0] in ("cdn", "storage", "verify"):
            return {"cdn": self._cdn, "storage": self._put, "verify": self._verify}[parts[0]](parts)
        if parts[0] == "api":
            name, action, rest = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "revision", parts[5:]
            repo = self._repo(name)
            if action in ("preupload", "commit", "branch") and self._token() != OWNER:
                raise RefusedError(403, "You don't have the required permissions to do this")
            return getattr(self, f"_{action}")(name, repo, rest)
        name = "/".join(parts[:2])
        if name.endswith(".git"):
            return self._batch()
        return self._resolve(name, self._repo(name), parts[3], "/".join(parts[4:]))

    # --- who asks for what

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _repo(self, name: str) -> Repo:
        if self._token() not in (None, OWNER, READER):
            raise RefusedError(401, "Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self._token() is None):
            # who is not logged in does not learn whether there is a private one
            raise RefusedError(401 if self._token() is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.commits[commit]

    # --- reading

    def _revision(self, name: str, repo: Repo, rest: list[str]) -> None:
        commit, files = self._files(repo, rest[0] if rest else "main")
        siblings = [{"rfilename": path} for path in files]
        self._json(
            {"id": name, "modelId": name, "sha": commit, "private": repo.private, "gated": repo.gated}
            | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
        )

    def _tree(self, name: str, repo: Repo, rest: list[str]) -> None:
        _, files = self._files(repo, rest[0])
        folder = "/".join(rest[1:])
        below = {p: d for p, d in files.items() if not folder or p.startswith(f"{folder}/")}
        if folder and not below:
            raise RefusedError(404, f"{folder} does not exist", "EntryNotFound")
        assert parse_qs(urlsplit(self.path).query)["recursive"][0].lower() == "true"
        entries: list[dict[str, Any]] = list(self.hub.listed_besides)
        folders = {p.rsplit("/", n)[0] for p in below for n in range(1, p.count("/") + 1)}
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": p} for p in sorted(folders)]
        for path, data in sorted(below.items()):
            entry: dict[str, Any] = {"type": "file", "oid": git_sha1(data), "size": len(data), "path": path}
            if is_large(path, len(data)):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def _resolve(self, name: str, repo: Repo, revision: str, path: str) -> None:
        if repo.gated and self._token() != OWNER:
            raise RefusedError(403 if self._token() else 401, "Access to model is restricted", "GatedRepo")
        commit, files = self._files(repo, revision)
        if path not in files:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        data, headers = files[path], {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if is_large(path, len(data)):
            headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            headers["Location"] = f"{self.hub.cdn}/cdn/{name}/{commit}/{path}"
            return self._send(302, b"", headers)
        etag = self.hub.etags.get(path, git_sha1(data))
        return self._part(path, data, headers | {"ETag": f'"{etag}"'})

    def _cdn(self, parts: list[str]) -> None:
        repo = self.hub.repos["/".join(parts[1:3])]
        path = "/".join(parts[4:])
        self._part(path, repo.commits[parts[3]][path], {})

    def _part(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        """The file, or what the Range asks for; cut or changed where that is to go wrong."""
        sent = len([url for url in self.hub.asked("GET", path) if "/cdn/" in url or "/resolve/" in url])
        if path in self.hub.corrupt and sent > self.hub.corrupt[path]:
            data = bytes([data[0] ^ 1]) + data[1:]
        asked, status = self.headers.get("Range"), 200
        total, start = len(data), 0
        if asked and not self.hub.no_ranges:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= total:
                self._send(416, b"", {"Content-Range": f"bytes */{total}"})
                return
            data, status = data[start:], 206
            headers = headers | {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        if self.command == "HEAD":
            self._send(status, data, headers)
            return
        hang = self.hub.hang_after.pop(path, None)
        cut = self.hub.cut_after.pop(path, None) if hang is None else hang
        self._send(status, data, headers, only=cut)
        self.hub.sent[path] = self.hub.sent.get(path, 0) + (len(data) if cut is None else cut)
        if hang is not None:
            self.hub.released.wait(30)

    # --- writing

    def _create(self) -> None:
        asked = json.loads(self.body)
        if self._token() != OWNER:
            raise RefusedError(
                401 if self._token() is None else 403, "You don't have the rights to create a model"
            )
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            raise RefusedError(409, "You already created this model repo")
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.add(name, {}, private=bool(private))
        self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        errors = [{"message": '"license" must be one of [mit]'}] if "license: none-such" in content else []
        self._json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def _branch(self, name: str, repo: Repo, rest: list[str]) -> None:
        branch = "/".join(rest)
        if branch in repo.branches:
            raise RefusedError(409, "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        self._json({})

    def _preupload(self, name: str, repo: Repo, rest: list[str]) -> None:
        _, files = self._files(repo, rest[0])
        modes = []
        for file in json.loads(self.body)["files"]:
            path, there = file["path"], files.get(file["path"])
            large = is_large(path, file["size"])
            oid = None if there is None else sha256(there) if large else git_sha1(there)
            mode = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            modes.append(mode | ({"oid": oid} if oid else {}))
        self._json({"files": modes})

    def _batch(self) -> None:
        if self._token() != OWNER:
            raise RefusedError(403, "You don't have the required permissions to do this")
        objects = []
        for file in json.loads(self.body)["objects"]:
            oid = file["oid"]
            if oid not in self.hub.uploaded:
                verify = {"href": f"{self.hub.url}/verify"}
                file["actions"] = {"upload": {"href": f"{self.hub.url}/storage/{oid}"}, "verify": verify}
            objects.append(file)
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, parts: list[str]) -> None:
        assert sha256(self.body) == parts[1]
        self.hub.uploaded[parts[1]] = self.body
        self._send(200, b"", {})

    def _verify(self, parts: list[str]) -> None:
        asked = json.loads(self.body)
        if len(self.hub.uploaded[asked["oid"]]) != asked["size"]:
            raise RefusedError(400, "size differs")
        self._json({})

    def _commit(self, name: str, repo: Repo, rest: list[str]) -> None:
        if self.hub.before_commit is not None:
            self.hub.before_commit()
            self.hub.before_commit = None
        self._files(repo, rest[0])
        lines = [json.loads(line) for line in self.body.splitlines()]
        header, changes = lines[0]["value"], {}
        if header.get("parentCommit", repo.branches[rest[0]]) != repo.branches[rest[0]]:
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changes[value["path"]] = self.hub.uploaded[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                changes[value["path"]] = None
        commit = repo.commit(changes, header["summary"], rest[0])
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    # --- answers

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str], only: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[:only])
        if only is not None:
            self.close_connection = True
