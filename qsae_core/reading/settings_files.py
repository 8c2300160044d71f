"""Small JSON and YAML files of strangers. Imports no torch."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import yaml

from qsae_core.errors import ArtifactError
from qsae_core.reading.files import the_file

MOST_BYTES = 2**22
"""Of a file of settings: published ones have a few thousand."""


class _Plain(yaml.SafeLoader):
    """YAML without references: a file of a kilobyte may stand for gigabytes by them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name), which is not read here")
        return super().compose_node(parent, index)


def json_settings(path: pathlib.Path) -> dict[str, Any]:
    """A JSON file that holds a mapping.

    Raises:
        ArtifactError: if it is missing, too large, or holds anything else; NaN and Infinity are no JSON.
    """
    return _mapping(path, "JSON", lambda text: json.loads(text, parse_constant=_no_number))


def yaml_settings(path: pathlib.Path) -> dict[str, Any]:
    """A YAML file that holds a mapping of what JSON can hold too.

    Raises:
        ArtifactError: if it is missing, too large, or holds anything else, or aliases.
    """
    return _mapping(path, "YAML", _yaml)


def _yaml(text: str) -> Any:
    return json.loads(json.dumps(yaml.load(text, Loader=_Plain), allow_nan=False))


def _mapping(path: pathlib.Path, language: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    allowed = f"a {language} file of at most {MOST_BYTES:,} bytes that holds a mapping"
    try:
        with the_file(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ArtifactError("is too large for a file of settings", where=str(path), allowed=allowed)
        found = parse(data.decode("utf-8"))
    except (OSError, ValueError, TypeError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())[:200]
        raise ArtifactError(f"is not valid {language} ({what})", where=str(path), allowed=allowed) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"is no mapping, but {type(found).__name__}", where=str(path), allowed=allowed)
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
