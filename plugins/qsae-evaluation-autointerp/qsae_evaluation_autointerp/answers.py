"""Answers of an endpoint, kept on disk: what was answered is not asked again. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import platformdirs

from qsae_core.errors import ArtifactError
from qsae_core.runs import atomic_file, read_json


class KeptAnswers:
    """One file an answer, named by the hash of the URL and the request.

    Args:
        folder: where; None: in the user's cache.
    """

    def __init__(self, folder: str | None) -> None:
        default = platformdirs.user_cache_path("qsae") / "judge-answers"
        self.folder = default if folder is None else pathlib.Path(folder)

    def get(self, url: str, request: Mapping[str, Any]) -> str | None:
        """The answer; None where there is none, or its file is damaged."""
        try:
            answer = read_json(self._file(url, request))["answer"]
        except (ArtifactError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, url: str, request: Mapping[str, Any], answer: str) -> None:
        """Keep an answer, whole or not at all.

        Raises:
            UnwritableError: for what the disk refuses.
        """
        with atomic_file(self._file(url, request)) as temporary:
            temporary.write_text(_canonical({"url": url, "request": request, "answer": answer}), "utf-8")

    def _file(self, url: str, request: Mapping[str, Any]) -> pathlib.Path:
        name = hashlib.sha256(_canonical({"url": url, "request": request}).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)
