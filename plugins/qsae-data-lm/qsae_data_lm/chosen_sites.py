"""Which layers and sites a configuration names, and what results call them."""

from __future__ import annotations

from qsae_core.errors import ConfigError
from qsae_data_lm import LmConfig
from qsae_data_lm.hooks import Site


def chosen_sites(config: LmConfig, n_layers: int) -> tuple[tuple[Site, ...], Site]:
    """What is read for x, and for y."""
    if config.layers is not None:
        sites = tuple((layer, config.site) for layer in layer_list(config.layers, n_layers))
        return sites, sites[-1]
    layer = n_layers // 2 if config.layer is None else config.layer
    target_layer = layer if config.target_layer is None else config.target_layer
    return ((layer, config.site),), (target_layer, config.target_site or config.site)


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


def path_name(sites: tuple[Site, ...], target: Site) -> str:
    """`9`, `9-mlp_out`, `9-mlp_in-mlp_out`, `3-5-7`: the layer, and the site where it is not resid_post."""
    names = [str(layer) for layer, _ in sites]
    if sites[0][1] != "resid_post" or (len(sites) == 1 and target != sites[0]):
        names.append(sites[0][1])
    if len(sites) == 1 and target != sites[0]:
        names += [str(target[0]), target[1]] if target[0] != sites[0][0] else [target[1]]
    return "-".join(names)
