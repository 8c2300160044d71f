"""Gemma Scope has no settings: the folders around a params.npz say what it is for."""

from __future__ import annotations

import os
import pathlib
import re
from dataclasses import dataclass

from qsae_core.contracts import Provenance

REPOSITORY = re.compile(r"(?:models--google--)?(gemma-scope-(2b|9b|27b)-(pt|it)-(res|att|mlp|transcoders))")
"""Also as the Hub's cache calls it."""
FOLDER = re.compile(
    r"(?:layer_(\d{1,4})|embedding)(?:/width_\d{1,9}[km]?)?(?:/(?:average_l0_\d{1,9}|canonical))?"
)
SITES = {"res": "resid_post", "mlp": "mlp_out"}
"""Kind of repository -> the site whose vectors it is for. Of ``att`` these are the heads' outputs before they
are joined, of ``transcoders`` what the MLP reads without the norm's weight, which have no site here."""
NO_SITE = {
    "att": "it is for the outputs of all heads, before the output projection: no site of a model here",
    "transcoders": "it reads what the MLP reads, but before the weight of the norm: not the site mlp_in",
    "embedding": (
        "it is for rows of the embedding matrix as they are stored, not for resid_pre, where they are "
        "multiplied by sqrt(d). SAELens folds that factor into W_enc and W_dec, and not into b_dec, which "
        "its reconstructions then have 1 / sqrt(d) of"
    ),
}
"""What a user who looks for the vectors should know."""


@dataclass(frozen=True)
class Folders:
    """The folders around a file."""

    repository: str | None = None
    """``gemma-scope-2b-pt-res``."""
    folder: str | None = None
    """``layer_20/width_16k/average_l0_71``, or less of it."""

    @classmethod
    def around(cls, file: pathlib.Path) -> Folders:
        """From the path of a file, as the user gave it."""
        parts = pathlib.Path(os.path.abspath(file)).parent.parts  # the Hub's cache has links, so not resolved
        found = [REPOSITORY.fullmatch(part) for part in parts]
        repository = next((match[1] for match in reversed(found) if match), None)
        tails = ("/".join(parts[-n:]) for n in (3, 2, 1))
        return cls(repository, next((tail for tail in tails if FOLDER.fullmatch(tail)), None))

    @classmethod
    def named(cls, path: str) -> Folders:
        """From ``str`` of other folders; of anything else none."""
        first, _, rest = path.partition("/")
        repository = first if REPOSITORY.fullmatch(first) else None
        folder = rest if repository else path
        return cls(repository, folder if FOLDER.fullmatch(folder) else None)

    @classmethod
    def of(cls, provenance: Provenance, width: str) -> Folders:
        """Where Google would have put an SAE for these vectors; nowhere, where there is no such place."""
        model = re.fullmatch(r"google/gemma-2-(2b|9b|27b)(-it)?", provenance.model or "")
        sites = {site: kind for kind, site in SITES.items()}
        if model is None or len(provenance.sources) != 1 or provenance.sources != provenance.targets:
            return cls()
        layer, _, site = provenance.sources[0].partition(".")
        if site not in sites:
            return cls()
        repository = f"gemma-scope-{model[1]}-{'it' if model[2] else 'pt'}-{sites[site]}"
        return cls(repository, f"layer_{layer}/width_{width}")

    def __str__(self) -> str:
        """``gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71``, as far as it is known."""
        return "/".join(part for part in (self.repository, self.folder) if part)

    @property
    def kind(self) -> str | None:
        """``res``, ``att``, ``mlp``, ``transcoders`` or ``embedding``; None where it is not known."""
        if (self.folder or "").startswith("embedding"):
            return "embedding"
        return self.repository.rpartition("-")[2] if self.repository else None

    @property
    def layer(self) -> str | None:
        """Its number, or ``embedding``."""
        match = FOLDER.fullmatch(self.folder or "")
        return None if match is None else "embedding" if match[1] is None else str(int(match[1]))

    def provenance(self) -> Provenance:
        """Which vectors it is for, as far as they have names here."""
        match = REPOSITORY.fullmatch(self.repository or "")
        if match is None:
            return Provenance()
        model = f"google/gemma-2-{match[2]}" + ("-it" if match[3] == "it" else "")
        kind, layer = self.kind, self.layer
        if kind in SITES and layer is not None:
            return Provenance.at(int(layer), SITES[kind], model=model)
        return Provenance(model)
