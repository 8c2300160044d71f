"""Addresses of the Hugging Face Hub: ``hf://user/repo[@revision][/path]``, as in huggingface_hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from qsae_hub.errors import HubError

SCHEME = "hf://"
ALLOWED = "hf://USER/REPO, hf://USER/REPO/PATH or hf://USER/REPO@REVISION/PATH"
OTHER_KINDS = ("datasets", "spaces", "buckets", "kernels")
"""What huggingface_hub puts before the user where a repository holds no model."""

_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Address:
    """A folder of a model repository."""

    repo: str
    """``user/repo``."""
    revision: str | None = None
    """A branch, a tag or a commit; None: ``main``."""
    path: str = ""
    """The folder in it; empty: the repository itself."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """From an address.

        Raises:
            HubError: if it is none, with what one looks like.
        """
        rest = text.removeprefix(SCHEME).rstrip("/")
        user, _, rest = rest.partition("/")
        if user in OTHER_KINDS:
            raise HubError(f"is of {user}; coders are in repositories of models", where=text, allowed=ALLOWED)
        named, _, path = rest.partition("/")
        repo, at, revision = named.partition("@")
        if at and not revision:
            raise HubError("has no revision behind '@'", where=text, allowed=ALLOWED)
        return cls.of(f"{user}/{repo}", unquote(revision) or None, path, where=text)

    @classmethod
    def of(cls, repo: str, revision: str | None, path: str, *, where: str) -> Address:
        """From its parts, checked.

        Raises:
            HubError: for a name that the Hub does not allow, or a path that leads out of the repository.
        """
        names = repo.split("/")
        if len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
            raise HubError(
                f"{repo!r} is no name of a repository",
                where=where,
                allowed="USER/NAME: letters, digits, single '-', '_' and '.', 96 characters each at most",
            )
        parts = path.strip("/").split("/") if path.strip("/") else []
        if not is_inside("/".join(parts)):
            raise HubError(f"{path!r} is no path in a repository", where=where, allowed="FOLDER/FOLDER")
        return cls(repo, revision, "/".join(parts))

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"{SCHEME}{self.repo}{revision}" + (f"/{self.path}" if self.path else "")

    def within(self, name: str) -> str:
        """A path from the top of the repository, from one below this folder."""
        return f"{self.path}/{name}" if self.path else name

    def below(self, path: str) -> str | None:
        """The other way round; None for a path that is not below this folder."""
        start = f"{self.path}/" if self.path else ""
        return path.removeprefix(start) if path.startswith(start) else None


def is_inside(path: str) -> bool:
    """Whether a relative path stays below the folder that it is taken from; the empty one does."""
    parts = path.split("/") if path else []
    return all(part not in ("", ".", "..") and not set(part) & set("\\\0") for part in parts) and not (
        parts and parts[0].endswith(":")
    )
