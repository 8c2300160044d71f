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
    target: Site | None
    """What `y` is read from; None: `y` is `x`."""

    @property
    def targets(self) -> tuple[Site, ...]:
        """What `y` is read from."""
        return self.sources if self.target is None else (self.target,)


def chosen_sites(config: LmConfig, n_layers: int) -> Chosen:
    """The sites that a configuration names."""
    middle = n_layers // 2
    if config.has_target:
        layer = middle if config.source_layer is None else config.source_layer
        target_layer = layer if config.target_layer is None else config.target_layer
        source = Site(layer, config.source_site or "mlp_in")
        target = Site(target_layer, config.target_site or "mlp_out")
        return Chosen((source,), None if source == target else target)
    site = config.site or "resid_post"
    if config.layers is not None:
        return Chosen(tuple(Site(layer, site) for layer in layer_list(config.layers, n_layers)), None)
    return Chosen((Site(middle if config.layer is None else config.layer, site),), None)


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
    """`9`, `9-mlp_out`, `3-5-7`; with a target `8-8`, `8-9`, `8-8-mlp_in-resid_post`.

    The layers; then the sites, where they are not the usual ones: resid_post, or from mlp_in to mlp_out.
    """
    names = [str(site.layer) for site in chosen.sources]
    if chosen.target is None:
        sites, usual = [chosen.sources[0].name], ["resid_post"]
    else:
        names.append(str(chosen.target.layer))
        sites, usual = [chosen.sources[0].name, chosen.target.name], ["mlp_in", "mlp_out"]
    return "-".join(names if sites == usual else [*names, *sites])
