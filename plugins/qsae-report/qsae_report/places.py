"""Where the coders of a report are, and whether all is there that a report needs. Imports no torch."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from qsae_samples import FILE

from qsae_core import Run
from qsae_core.errors import ArtifactError, ConfigError, QsaeError
from qsae_core.runs import FLOAT_TWIN, artifact_folder, member_folders, set_folder, slug
from qsae_report.command import FILE as REPORT

FOLDER = "samples"
"""Of a run, where its samples are."""


class Place(NamedTuple):
    """Where a coder is, and what is stored about it."""

    root: pathlib.Path
    """Below which evaluations and samples are: the run's folder, or the coder's."""
    folder: pathlib.Path
    """Of ``coder.json``."""
    layer: str | None
    others: list[str]
    """Layers that have coders of their own."""
    run: Run | None

    def below(self, kind: str, *, twin: bool = False) -> pathlib.Path:
        """Where what is stored of this coder is, or of its float twin."""
        place = self.root / kind / FLOAT_TWIN if twin else self.root / kind
        return place if self.layer is None else place / "layers" / slug(self.layer)

    def samples(self, *, twin: bool = False) -> pathlib.Path:
        """The file of ``qsae samples``; where that is not there, what an evaluation of that name has left."""
        file = self.below(FOLDER, twin=twin) / FILE
        evaluated = self.below("evaluations", twin=twin) / FOLDER / FILE
        return evaluated if evaluated.is_file() and not file.is_file() else file


def find(path: pathlib.Path, layer: str | None = None) -> Place:
    """The place of the coder that a user means.

    Args:
        layer: None: of several, the first with samples, or the first.
    """
    several = set_folder(path)
    run = Run(path) if Run(path).config_file.is_file() else None
    if several is None:
        if layer is not None:
            raise ConfigError(
                f"there is one coder, and none of a layer {layer!r}",
                where=str(path),
                next="leave --layer out",
            )
        folder = artifact_folder(path)
        return Place(path if run else folder, folder, None, [], run)
    members = member_folders(several)
    if layer is not None and layer not in members:
        raise ConfigError(f"there is no layer {layer!r}", where="--layer", allowed=", ".join(members))
    root = path if run else several
    sampled = [name for name in members if Place(root, root, name, [], run).samples().is_file()]
    chosen = layer or (sampled or list(members))[0]
    return Place(root, members[chosen], chosen, [name for name in members if name != chosen], run)


def run_of(folder: pathlib.Path, layer: str | None) -> pathlib.Path:
    """The run whose ``checkpoints/final``, or a layer of that, a folder is; else the folder of the coders."""
    coders = folder if layer is None else folder.parent
    run = coders.parent.parent
    return run if Run(run).config_file.is_file() and Run(run).final == coders else coders


def check(
    path: pathlib.Path,
    compare: pathlib.Path | None,
    layer: str | None,
    *,
    written: bool,
    with_samples: bool,
) -> None:
    """Refuse what no report can be made of, and say all that is missing at once.

    Args:
        written: whether the report goes into the folder ``path`` since no other place is named.
        with_samples: whether examples are asked for.

    Raises:
        QsaeError: of the one thing that is missing, or of all.
    """
    faults: list[QsaeError] = []
    place = _found(path, layer, faults)
    if place is not None and written and place.run is None:
        faults.append(_no_place(path, place))
    if place is not None and with_samples and not place.samples().is_file():
        faults.append(no_samples(place))
    if compare is not None:
        _found(compare, layer, faults)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError(
            "; ".join(_said(fault, path) for fault in faults),
            where=str(path),
            allowed="; ".join(dict.fromkeys(fault.allowed for fault in faults if fault.allowed)) or None,
            next="; ".join(dict.fromkeys(fault.next for fault in faults if fault.next)) or None,
        )


def _said(fault: QsaeError, path: pathlib.Path) -> str:
    return fault.what if fault.where in (None, str(path)) else f"{fault.where}: {fault.what}"


def _found(path: pathlib.Path, layer: str | None, faults: list[QsaeError]) -> Place | None:
    try:
        return find(path, layer)
    except QsaeError as fault:
        faults.append(fault)
        return None


def _no_place(path: pathlib.Path, place: Place) -> ConfigError:
    coder = place.folder if place.layer is None else place.folder.parent
    run = run_of(coder, None)
    own = "" if run == coder else f", or the report of its run: qsae report {run}"
    return ConfigError(
        "it is no run's folder, so where the report goes has to be said",
        where=str(path),
        allowed=f"--out FILE{own}",
        next=f"--out {REPORT}",
    )


def no_samples(place: Place) -> ArtifactError:
    """That there are none, and the two ways out."""
    return ArtifactError(
        "there are no samples of where its latents fire",
        where=str(place.root),
        allowed=f"{FOLDER}/{FILE}, or a report without examples: --without-samples",
        next=collect(place),
    )


def collect(place: Place) -> str:
    """The command that collects them."""
    out = "" if place.run is not None else f" --out {place.root / FOLDER}"
    return f"qsae samples {place.root}{out}"
