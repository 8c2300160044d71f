"""The nested groups of a MatryoshkaBatchTopKSAE in the coder that qsae has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsae_core.runs import load_plugins

NESTED = "matryoshka"


def components(name: str, kept: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The SAE ``matryoshka`` with the file's groups, where it is installed; of another class, nothing.

    Without it the coder is a jumprelu of the same function, and the groups are kept with the settings alone.
    """
    if name != "MatryoshkaBatchTopKSAE" or NESTED not in load_plugins().registry.names("sae"):
        return {}
    return {"sae": {"use": NESTED, "group_sizes": kept["group_sizes"]["value"]}}
