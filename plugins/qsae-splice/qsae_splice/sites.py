"""Where a coder reads and writes in a language model, or in a model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from qsae_core.contracts import LanguageModel, Site, SparseCoder
from qsae_core.errors import ConfigError
from qsae_splice.core_models import read_site
from qsae_splice.modules import ModuleSite, read_module_site

AnySite = Site | ModuleSite | str


class Sites(NamedTuple):
    """Of one coder, in its own order."""

    targets: tuple[Site | ModuleSite, ...]
    sources: tuple[Site | ModuleSite, ...]


def read_sites(
    model: LanguageModel | nn.Module,
    coder: SparseCoder,
    site: AnySite | Sequence[AnySite],
    source: AnySite | Sequence[AnySite] | None,
) -> Sites:
    """The sites of a coder in a model.

    Args:
        site: what it writes to.
        source: what it reads; None: the same.

    Raises:
        ConfigError: if the model has no such site, or the coder reads and writes otherwise.
    """
    targets = _read(model, site)
    sites = Sites(targets, targets if source is None else _read(model, source))
    if coder.by_layer() or coder.chooses_layer:
        raise ConfigError(
            f"{type(coder).__name__} is a set of coders, each of one layer"
            if coder.by_layer()
            else f"{type(coder).__name__} writes to one of several layers, another one for each token",
            allowed="each of them alone (coders.by_layer())"
            if coder.by_layer()
            else "a coder of fixed sites",
        )
    wanted = coder.shape.layers_out, coder.shape.layers_in
    if (len(sites.targets), len(sites.sources)) != wanted:
        raise ConfigError(
            f"{type(coder).__name__} reads {wanted[1]} and writes {wanted[0]} layers, and there are "
            f"{len(sites.sources)} sites to read and {len(sites.targets)} to change",
            where="site, source",
            allowed="a site for each",
        )
    if coder.is_autoencoder != (sites.sources == sites.targets):
        what = "an SAE reads what it changes" if coder.is_autoencoder else "a transcoder reads another site"
        read, changed = (", ".join(map(str, side)) for side in (sites.sources, sites.targets))
        raise ConfigError(
            f"{what}, and this is to read {read} and to change {changed}",
            where="source",
            allowed="None" if coder.is_autoencoder else "the site that it was trained to read",
        )
    return sites


def is_untouched(coder: SparseCoder, sites: Sites) -> bool:
    """Whether some output of a coder hangs on what is computed after it, so that no single pass has its codes
    in time: they are those of a pass before, over the same text."""
    if len(sites.targets) == 1:
        return False
    pairs = [(sites.sources[j], n, j) for n in range(len(sites.targets)) for j in coder.layers_read(n)]
    return any(_is_later(source, sites.targets[n], j > n) for source, n, j in pairs)


def _is_later(source: Site | ModuleSite, target: Site | ModuleSite, listed_later: bool) -> bool:
    if isinstance(source, Site) and isinstance(target, Site):
        return source.is_after(target)
    return listed_later


def _read(
    model: LanguageModel | nn.Module, place: AnySite | Sequence[AnySite]
) -> tuple[Site | ModuleSite, ...]:
    is_one = isinstance(place, str | ModuleSite) or (len(place) == 2 and isinstance(place[0], int))
    places = (place,) if is_one else tuple(place)
    if isinstance(model, LanguageModel):
        return tuple(read_site(each) for each in places)
    return tuple(read_module_site(each, model) for each in places)
