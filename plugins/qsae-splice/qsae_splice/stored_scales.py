"""What is known of a stored coder's scales: from the samples of its run, or measured on held-out vectors."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import torch
from qsae_samples import Samples
from torch import Tensor

from qsae_core import Run
from qsae_core.contracts import Batch, DataSource, Site
from qsae_core.errors import ConfigError
from qsae_splice.places import Place
from qsae_splice.scales import Scales, measure


def known_largest(place: Place) -> tuple[dict[int, float], str] | None:
    """Latent -> its largest activation in the samples of the coder's run, and which these are; None where it
    has none. ``qsae samples`` collects them, as does the evaluation ``samples``.

    Raises:
        ConfigError: if they are of another coder.
        ArtifactError: if they were damaged.
    """
    file = next((file for file in _files(place.folder) if file.is_file()), None)
    if file is None:
        return None
    samples = Samples.load(file)
    if samples.n_latents != place.coder.n_latents:
        raise ConfigError(
            f"samples of {samples.n_latents:,} latents, and the coder has {place.coder.n_latents:,}",
            where=str(file),
            next="qsae samples collects them anew; or remove them, and the unit max is measured",
        )
    largest = dict(enumerate(map(float, samples.arrays["largest"])))
    return largest, f"{samples.n_tokens:,} tokens of {file}"


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Where samples of a run's final coder may be, those of ``qsae samples`` first."""
    for run, below in ((Run(folder.parent.parent), ()), (Run(folder.parent.parent.parent), (folder.name,))):
        if run.final.joinpath(*below) == folder and run.config_file.is_file():
            layer = pathlib.Path("layers", *below) if below else pathlib.Path()
            places = [run.path / "samples" / layer, run.evaluations / layer / "samples"]
            return [place / "samples.safetensors" for place in places]
    return []


def measured_scales(place: Place, data: DataSource, n_tokens: int) -> Scales:
    """The scales of a coder's latents, on the data's held-out part."""
    if not place.own_data:
        return measure(place.coder, _read(place, data, n_tokens))
    model, number = data.language_model(), place.number
    assert model is not None
    batches = data.held_out(n_tokens, min(n_tokens, model.forward_positions))
    return measure(place.coder, (b if number is None else b.layer(number) for b in batches))


def _read(place: Place, data: DataSource, n_tokens: int) -> Iterator[Batch]:
    """Vectors of the same tokens at other sites than the data's."""
    model, left = data.language_model(), n_tokens
    assert model is not None
    sites = tuple(dict.fromkeys((*place.sources, *place.targets)))
    for tokens, _ in data.held_out_contexts(n_tokens, model.forward_positions):
        found = model.read(tokens, sites)
        sides = [_joined(found, side, tokens.counted)[:left] for side in (place.sources, place.targets)]
        yield Batch(*sides)
        left -= len(sides[0])


def _joined(found: dict[Site, Tensor], sites: Sequence[Site], counted_BT: Tensor) -> Tensor:
    """``[N, D]`` of one site, ``[N, L, D]`` of several, at the counted positions."""
    vectors = [found[site][counted_BT.to(found[site].device)] for site in sites]
    return vectors[0] if len(vectors) == 1 else torch.stack(vectors, dim=1)
