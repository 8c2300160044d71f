"""Where a model is, and what it is called. Imports no torch."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from qsae_core.errors import DataError

BUILTIN = Path(__file__).with_name("builtin")
_HUB_ID = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?")
_LONGEST_ID = 96
"""Characters that the hub allows."""


class Place(NamedTuple):
    """What transformers is to load."""

    path: str
    """A directory, or a Hugging Face id."""
    gguf_file: str | None = None
    """A file in that directory that holds model and tokenizer, instead of the usual ones."""
    revision: str | None = None
    """Of an id: a branch, a tag or a commit; None: `main`."""

    @property
    def options(self) -> dict[str, str]:
        """The arguments for `from_pretrained` besides the path."""
        given = {"gguf_file": self.gguf_file, "revision": self.revision}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def is_local(self) -> bool:
        """Whether it is a directory, or a file in one, and no id."""
        return self.gguf_file is not None or Path(self.path).is_dir()

    @property
    def directory(self) -> Path | None:
        """The local directory whose files are to be looked at; None for an id or a GGUF file."""
        path = Path(self.path)
        return path if path.is_dir() and self.gguf_file is None else None


def locate(model: str) -> Place:
    """Where a model is.

    Raises:
        DataError: if `model` is no place that could hold one, or a directory without a model's config.
    """
    path = BUILTIN if model == "builtin" else Path(model).expanduser()
    there = os.path.exists(path)  # pathlib's raises where a name is too long
    if there and path.is_file() and path.suffix == ".gguf":
        require("reading a .gguf file", "gguf", "gguf", "accelerate")
        return Place(str(path.parent), path.name)
    if there and path.is_dir():
        if not (path / "config.json").is_file():
            held = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
            raise DataError(
                f"{path} is no model: it has no config.json (it holds {held})",
                where="data.model",
                allowed="what save_pretrained writes: config.json, tokenizer.json, *.safetensors",
            )
        return Place(str(path))
    found = None if there else _HUB_ID.fullmatch(model)
    if found is None or len(found[1]) > _LONGEST_ID:
        raise DataError(
            f"{path} is a file, not a model" if there else f"there is no directory {path}",
            where="data.model",
            allowed="builtin, a model directory, a .gguf file, or a Hugging Face id (EleutherAI/pythia-70m, "
            "or EleutherAI/pythia-70m@step3000 for a revision)",
        )
    return Place(found[1], revision=found[2])


def require(what: str, extra: str, *libraries: str) -> None:
    """Refuse what needs libraries that are not installed.

    Args:
        what: needs them, for the message.
        extra: of this distribution, which brings them.

    Raises:
        DataError: which names them.
    """
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    if missing:
        raise DataError(
            f"{what} needs {' and '.join(f'`{library}`' for library in missing)}, which is not installed",
            where="data.model",
            next=f"pip install 'qsae-data-lm[{extra}]'",
        )


def short_name(model: str) -> str:
    """For paths and tables: `HuggingFaceTB/SmolLM2-135M` and `models/smollm2-135m/` are `smollm2-135m`."""
    name = model if model == "builtin" else Path(model).expanduser().resolve().name.removesuffix(".gguf")
    # other scripts stay: `slug` keeps names apart of which a folder's name cannot hold all letters
    return re.sub(r"[^a-z0-9.\u0080-\U0010ffff]+", "-", name.lower()).strip("-")
