"""Which sites a data source's options name, and what results call them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from qsae_core.contracts.language_model import Site
from qsae_core.errors import ConfigError, DataError
from qsae_core.places import PlacesConfig, names_layers


class ChosenSites(NamedTuple):
    """What is read of each token."""

    sources: tuple[Site, ...]
    """What ``x`` is read from; several give ``x`` the shape ``[B, L, D]``."""
    own_targets: tuple[Site, ...] = ()
    """What ``y`` is read from; none: ``y`` is ``x``."""

    @property
    def targets(self) -> tuple[Site, ...]:
        """What ``y`` is read from."""
        return self.own_targets or self.sources

    @property
    def all(self) -> tuple[Site, ...]:
        """Each site of either side once, sources first."""
        return tuple(dict.fromkeys([*self.sources, *self.own_targets]))

    def widths(self, width_of: Callable[[Site], int]) -> tuple[int, int]:
        """``d_in`` and ``d_out``, which may differ.

        Raises:
            DataError: if the sites of one side have several widths.
        """
        return _one_width(self.sources, width_of), _one_width(self.targets, width_of)

    @property
    def path_name(self) -> str:
        """``9``, ``9-mlp_out``, ``3-5-7``; with targets ``8-8``, ``8-9``, ``8-8-mlp_in-resid_post``,
        ``3-5-mlp_in-mlp_out``; any others ``3-5.mlp_in-6.resid_mid``, ``3-5.mlp_in-to-5.mlp_out``.

        The layers; then the sites, where they are not the usual ones: resid_post, or from mlp_in to mlp_out.
        Where sites of one side differ, or the layers of several, each stands behind its layers.
        """
        if not _is_plain(self):
            sides = [self.sources, self.own_targets] if self.own_targets else [self.sources]
            return "-to-".join(map(_listed, sides))
        names = [str(site.layer) for site in self.sources]
        if not self.own_targets:
            sites, usual = [self.sources[0].name], ["resid_post"]
        elif len(names) > 1:
            sites, usual = [self.sources[0].name, self.targets[0].name], []
        else:
            names.append(str(self.targets[0].layer))
            sites, usual = [self.sources[0].name, self.targets[0].name], ["mlp_in", "mlp_out"]
        return "-".join(names if sites == usual else [*names, *sites])


def chosen_sites(config: PlacesConfig, layers: Sequence[int]) -> ChosenSites:
    """The sites that a configuration names; whether they exist is for the source to say.

    Args:
        layers: those that there are, ascending; what is not said is the middle one, and ``middle`` is the
            middle half of them.

    Raises:
        ConfigError: if ``layers`` of the configuration names fewer than two.
    """
    middle = layers[len(layers) // 2]
    if config.sites is not None:
        several = None if config.layers is None else _layers(config.layers, layers)
        given = several or [middle if config.layer is None else config.layer]
        sources, targets = (
            _sites(text, given) for text in (config.sites, config.target_sites or config.sites)
        )
        return ChosenSites(sources, () if targets == sources else targets)
    if config.layers is not None:
        source_layers = target_layers = _layers(config.layers, layers)
    else:
        own = config.source_layer if config.has_target else config.layer
        source_layers = [middle if own is None else own]
        target_layers = source_layers if config.target_layer is None else [config.target_layer]
    if not config.has_target:
        return ChosenSites(tuple(Site(layer, config.site or "resid_post") for layer in source_layers))
    sources = tuple(Site(layer, config.source_site or "mlp_in") for layer in source_layers)
    targets = tuple(Site(layer, config.target_site or "mlp_out") for layer in target_layers)
    return ChosenSites(sources, () if targets == sources else targets)


def _sites(text: str, layers: Sequence[int]) -> tuple[Site, ...]:
    """``8.mlp_in,9.resid_mid``; or ``mlp_in,mlp_out`` of the layers, layer by layer."""
    if not names_layers(text):
        return tuple(Site(layer, name) for layer in layers for name in text.split(","))
    pairs = (place.split(".") for place in text.split(","))
    return tuple(Site(int(layer), name) for layer, name in pairs)


def _layers(text: str, there: Sequence[int]) -> list[int]:
    """``3,6,9``, ``4-8`` or ``middle``, ascending; at least two."""
    chosen: set[int] = set()
    if text == "middle":
        first = len(there) // 4
        chosen = set(there[first : first + max(2, len(there) // 2)])
    else:
        for part in text.split(","):
            start, _, end = part.partition("-")
            chosen |= set(range(int(start), int(end or start) + 1))
    if len(chosen) < 2:
        example = ",".join(map(str, sorted({there[0], there[-1]})))
        raise ConfigError(
            f"layers '{text}' names fewer than two layers",
            where="data.layers",
            allowed=f"at least two of {_words(there)}, such as {example}"
            if len(there) > 1
            else f"nothing: layer {there[0]} is the only one",
            next="--layer N for a single one",
        )
    return sorted(chosen)


def _words(layers: Sequence[int]) -> str:
    whole = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))


def _one_width(sites: Sequence[Site], width_of: Callable[[Site], int]) -> int:
    widths = {site: width_of(site) for site in sites}
    if len(set(widths.values())) > 1:
        raise DataError(
            "places that are read together have one width, and these have several: "
            + ", ".join(f"{site} {width}" for site, width in widths.items()),
            where="data",
            allowed="places of one width on a side; the two sides of a transcoder may differ",
            next="choose among those of one width with --sites and --target-sites",
        )
    return widths[sites[0]]


def _is_plain(chosen: ChosenSites) -> bool:
    """Whether a layer (or ascending layers) and a site for each side say it all."""
    sources, targets = chosen.sources, chosen.targets
    layers = [site.layer for site in sources]
    one_name = all(len({site.name for site in side}) == 1 for side in (sources, targets))
    one_each = len(sources) == len(targets) == 1
    return one_name and layers == sorted(set(layers)) and (one_each or layers == [s.layer for s in targets])


def _listed(sites: Sequence[Site]) -> str:
    """``3-5.mlp_in-6.resid_mid``: layers one after another, and behind them their site."""
    runs = [(name, list(run)) for name, run in groupby(sites, key=lambda site: site.name)]
    return "-".join("-".join(str(site.layer) for site in run) + f".{name}" for name, run in runs)
