"""Which layers and sites a configuration names, and what results call them."""

from __future__ import annotations

from typing import NamedTuple

from qsae_core.contracts import Site
from qsae_core.errors import ConfigError
from qsae_data_lm import LmConfig


class Chosen(NamedTuple):
    """What is read in each forward pass."""

    sources: tuple[Site, ...]
    """What `x` is read from; several give `x` the shape [N, L, D]."""
    own_targets: tuple[Site, ...] = ()
    """What `y` is read from; none: `y` is `x`."""

    @property
    def targets(self) -> tuple[Site, ...]:
        """What `y` is read from."""
        return self.own_targets or self.sources


def chosen_sites(config: LmConfig, n_layers: int) -> Chosen:
    """The sites that a configuration names."""
    if config.layers is not None:
        layers = layer_list(config.layers, n_layers)
        source_layers = target_layers = layers
    else:
        middle = n_layers // 2
        own = config.source_layer if config.has_target else config.layer
        source_layers = [middle if own is None else own]
        target_layers = source_layers if config.target_layer is None else [config.target_layer]
    if not config.has_target:
        return Chosen(tuple(Site(layer, config.site or "resid_post") for layer in source_layers))
    sources = tuple(Site(layer, config.source_site or "mlp_in") for layer in source_layers)
    targets = tuple(Site(layer, config.target_site or "mlp_out") for layer in target_layers)
    return Chosen(sources, () if targets == sources else targets)


def layer_list(text: str, n_layers: int) -> list[int]:
    """`3,6,9`, `4-8` or `middle`, in ascending order; at least two.

    Raises:
        ConfigError: if there are fewer.
    """
    chosen: set[int] = set()
    if text == "middle":
        first = n_layers // 4
        chosen = set(range(first, first + max(2, n_layers // 2)))
    else:
        for part in text.split(","):
            start, _, end = part.partition("-")
            chosen |= set(range(int(start), int(end or start) + 1))
    if len(chosen) < 2:
        raise ConfigError(
            f"layers '{text}' names fewer than two layers",
            where="layers",
            allowed=f"at least two of 0 to {n_layers - 1}, such as 0,{n_layers - 1}",
            next="--layer N for a single one",
        )
    return sorted(chosen)


def path_name(chosen: Chosen) -> str:
    """`9`, `9-mlp_out`, `3-5-7`; with targets `8-8`, `8-9`, `8-8-mlp_in-resid_post`, `3-5-mlp_in-mlp_out`.

    The layers; then the sites, where they are not the usual ones: resid_post, or from mlp_in to mlp_out.
    """
    names = [str(site.layer) for site in chosen.sources]
    if not chosen.own_targets:
        sites, usual = [chosen.sources[0].name], ["resid_post"]
    elif len(names) > 1:
        sites, usual = [chosen.sources[0].name, chosen.targets[0].name], []
    else:
        names.append(str(chosen.targets[0].layer))
        sites, usual = [chosen.sources[0].name, chosen.targets[0].name], ["mlp_in", "mlp_out"]
    return "-".join(names if sites == usual else [*names, *sites])
