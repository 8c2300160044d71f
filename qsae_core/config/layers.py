"""One source of configuration (a file, the flags, ``--set``) as a tree that knows where its values stand."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from qsae_core.errors import ConfigError, did_you_mean
from qsae_core.kinds import LIST_SLOTS, SLOTS

RECORD_KEYS = frozenset(
    {"versions", "git", "started_at", "completed_at", "status", "process", "data_record"}
    | {"active_kernels", "quantized_from", "screens"}
)
"""What a run's ``config.json`` holds beside the configuration; skipped when it is read back."""
SECTIONS = (*SLOTS, *LIST_SLOTS, "train", "run")
LIST_FLAGS = {"metrics": "metric", "evaluate": "eval", "trackers": "tracker"}
"""Flag (repeatable) of each list section."""


@dataclass(frozen=True)
class Layer:
    """One source of configuration; later layers win over earlier ones.

    Attributes:
        tree: section -> block, as in YAML.
        name: what errors call it: the file's path, or what the values come from; of style `set` the flag.
        style: how a place in it is written: ``my.yaml: sparsity.k``, ``--sparsity.k``, ``--set sparsity.k``.
        fallback: its options for a component do not outlive that component's choice: where a later layer
            chooses another one, they are left out. (A user's own options stay where the other has them too.)
    """

    tree: Mapping[str, Any]
    name: str = "config"
    style: Literal["file", "flags", "set"] = "file"
    fallback: bool = False

    def place(self, *path: str) -> str:
        """Where a key stands, as the user would look for it."""
        if self.style == "file":
            return f"{self.name}: {'.'.join(path)}" if path else self.name
        if self.style == "set":
            return f"{self.name} {'.'.join(path)}"
        return flag(*path)


def flag(*path: str) -> str:
    """The long flag of a key: ``("encoder_quantizer", "n_bits") -> --encoder-quantizer.n-bits``."""
    head = LIST_FLAGS.get(path[0], path[0])
    return "--" + ".".join([head, *path[1:]]).replace("_", "-")


def read_layer(path: str | pathlib.Path) -> Layer:
    """Read a YAML or JSON file of the configuration.

    Raises:
        ConfigError: if it cannot be read or parsed (with the line), or is no mapping of known sections.
    """
    name = str(path)
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the configuration cannot be read: {error.strerror}", where=name, next="qsae train --config FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the configuration is not UTF-8 text", where=name) from error
    tree = _parse_json(text, name) if name.endswith(".json") else parse_yaml(text, name)
    return checked_layer(tree if tree is not None else {}, name)


def checked_layer(tree: Any, name: str) -> Layer:
    """A layer from a parsed tree; an unknown section is an error, a record key is left to its reader."""
    if not isinstance(tree, Mapping):
        raise ConfigError(
            f"a configuration is a mapping of sections, not {type(tree).__name__}",
            where=name,
            allowed=", ".join(SECTIONS),
        )
    for section in tree:
        if section not in RECORD_KEYS:
            check_section(section, name)
    return Layer(tree, name)


def check_section(section: Any, where: str, known: Sequence[str] = SECTIONS) -> None:
    """Refuse a section that is none of the known ones."""
    if section not in known:
        raise ConfigError(
            f"unknown section {str(section)!r}{did_you_mean(str(section), known)}",
            where=where,
            allowed=", ".join(known),
            next=f"correct the name, or leave {str(section)!r} out",
        )


class _Loader(yaml.SafeLoader):
    """YAML's core schema (1.2): ``1e-4`` is a number, ``on`` and ``12:30`` are text, a key stands once."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))  # not PyYAML's, which reads 010 as octal


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str, name: str) -> Any:
    """The value of a YAML text; a syntax error names the line and column."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}: line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=place) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=name) from error


def _parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, name))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"not valid JSON: {error.msg}", where=f"{name}: line {error.lineno}, column {error.colno}"
        ) from error


def _once(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise ConfigError(f"{key!r} stands twice", where=name)
        tree[key] = value
    return tree
