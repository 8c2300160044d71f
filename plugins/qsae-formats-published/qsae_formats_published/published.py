"""What the formats here share: a mapping of names, files that are read alone, and hooks as sites.

Shapes: D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

import abc
import pathlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from qsae_core.contracts import Checkpoint, CheckpointFormat, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import is_file_in

FIELDS = ("W_enc", "b_enc", "W_dec", "b_dec")
SITES = {f"hook_{site}": site for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}
"""TransformerLens' name within a block -> the site of the same vectors, in a model that is not processed."""
HOOK = re.compile(r"blocks\.(0|[1-9]\d{0,3})\.(\S+)")


class Published(CheckpointFormat):
    """A format that is read: its library trains no more, or is not public. A subclass gives names and what
    the file computes."""

    names: ClassVar[tuple[str, str, str, str]]
    """Of the tensors ``W_enc``, ``b_enc``, ``W_dec``, ``b_dec``."""
    turned: ClassVar[frozenset[str]] = frozenset()
    """Which of them are the other way round: with a column for each latent."""
    more: ClassVar[frozenset[str]] = frozenset()
    """Further tensors that there may be."""
    elsewhere: ClassVar[str] = "saelens or dictionary-learning, which have ReLU, JumpReLU and TopK coders"
    """Formats that are written, for such coders."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether names, shapes and settings are those of this format."""
        try:
            return self.is_it(path)
        except (ArtifactError, OSError):
            return False

    @abc.abstractmethod
    def is_it(self, path: pathlib.Path) -> bool:
        """``recognizes``, and may raise an ArtifactError where it is not."""

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """Refuse."""
        raise ArtifactError(
            "files in this format are read, and not written", where=str(path), allowed=self.elsewhere
        )

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """Refuse."""
        self.write(next(iter(checkpoints.values())), path)

    # --- tensors

    def fits(self, tensors: Mapping[str, Any]) -> bool:
        """Whether these are the names, and the shapes are those of one coder."""
        if not set(self.names) <= tensors.keys() or not tensors.keys() <= {*self.names, *self.more}:
            return False
        shapes = {field: self._shape(field, tensors[name]) for field, name in self._named()}
        encoder, decoder = shapes["W_enc"], shapes["W_dec"]
        if len(encoder) != 2 or len(decoder) != 2:
            return False
        return shapes["b_enc"] == (encoder[0],) == (decoder[0],) and shapes["b_dec"] == (decoder[1],)

    def matrices(self, tensors: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Field of ``DenseForm`` -> tensor with a row for each latent.

        Raises:
            ArtifactError: unless they fit.
        """
        if not self.fits(tensors):
            found = {name: list(getattr(value, "shape", [])) for name, value in tensors.items()}
            raise ArtifactError(
                f"its tensors are {found}"[:400],
                where=where,
                allowed=f"{', '.join(self.names)} of one coder, as this format has them",
            )
        return {field: self._rows(field, tensors[name]) for field, name in self._named()}

    def _named(self) -> zip[tuple[str, str]]:
        return zip(FIELDS, self.names, strict=True)

    def _rows(self, field: str, tensor: Tensor) -> Tensor:
        return tensor.T if field in self.turned and tensor.dim() == 2 else tensor

    def _shape(self, field: str, tensor: Any) -> tuple[int, ...]:
        return tuple(self._rows(field, tensor).shape) if isinstance(tensor, Tensor) else ()


# --- settings


def whole_number(settings: Mapping[str, Any], key: str, where: str, least: int = 1) -> int:
    """A setting that is one.

    Raises:
        ArtifactError: if it is not.
    """
    value = settings.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArtifactError(f"{key} is {value!r}", where=where, allowed=f"a whole number from {least} on")
    return value


def flag(settings: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
    """A setting that is true or false.

    Raises:
        ArtifactError: if it is neither.
    """
    value = settings.get(key, default)
    if not isinstance(value, bool):
        raise ArtifactError(f"{key} is {value!r}", where=where, allowed="true or false")
    return value


def check_size(settings: Mapping[str, Any], key: str, size: int, where: str) -> None:
    """Compare a size that settings say, where they do, with that of the tensors.

    Raises:
        ArtifactError: if it is another one.
    """
    if key in settings and settings[key] != size:
        raise ArtifactError(f"{key} is {settings[key]!r}, and the tensors say {size}", where=where)


def places_of(hook_in: Any, hook_out: Any, model: str | None) -> Provenance:
    """Which vectors a coder is for, from TransformerLens' names of hooks; where both are known."""
    places = []
    for hook in (hook_in, hook_out):
        named = HOOK.fullmatch(hook) if isinstance(hook, str) else None
        if named is None or named[2] not in SITES:
            return Provenance()
        places.append(f"{named[1]}.{SITES[named[2]]}")
    return Provenance(model, (places[0],), (places[1],))


def only_file(path: pathlib.Path, suffixes: tuple[str, ...]) -> pathlib.Path:
    """The file itself, or the one of such a name in a folder.

    Raises:
        ArtifactError: if there is none, or several.
    """
    if not path.is_dir():
        return path
    found = [p for p in sorted(path.iterdir()) if p.suffix in suffixes and is_file_in(path, p.name)]
    if len(found) != 1:
        raise ArtifactError(f"has {len(found)} files {' or '.join(suffixes)}", where=str(path), allowed="one")
    return found[0]
