"""Which places of a language model a data source reads: options of every such source. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import field_validator, model_validator

from qsae_core.component import ComponentConfig, option
from qsae_core.errors import OptionsError, exclusive

SiteName = Literal["resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post"]
"""In the order in which a model computes them."""
SITE_NAMES: tuple[str, ...] = get_args(SiteName)

TWO_LAYERS, TWO_SITES = ("source_layer", "target_layer"), ("source_site", "target_site")
ONE_SITE = ("site", *TWO_LAYERS, *TWO_SITES)
ONE_BY_ONE = ("layer", "layers", *ONE_SITE)
PLACES = (
    "layer (or layers) and site, where the vector that is read is also to be reconstructed; or source_layer, "
    "source_site, target_layer and target_site, for a transcoder from one place to another (or layers, "
    "source_site and target_site, for transcoders within each of them); or sites and target_sites, for any "
    "set of places"
)
_NAME = f"({'|'.join(SITE_NAMES)})"
_SITES = rf"^(\d+\.{_NAME}(,\d+\.{_NAME})*|{_NAME}(,{_NAME})*)$"
_SITES_ALLOWED = (
    "places as LAYER.SITE, such as 8.mlp_in,9.resid_mid; or sites alone, such as mlp_in,mlp_out, of the "
    f"layers that are given; sites: {', '.join(SITE_NAMES)}"
)


class PlacesConfig(ComponentConfig):
    """Options of a source of a language model's vectors: at which places ``x`` is read, and at which ``y``.

    ``qsae_core.contracts.chosen_sites`` turns them into sites.
    """

    layer: int | None = option(None, "layer to read, counted from 0; none: the middle one", ge=0)
    site: SiteName | None = option(None, "where in the layer to read; none: resid_post")
    source_layer: int | None = option(
        None, "layer of the vector to encode, for transcoders; none: the middle one", ge=0
    )
    source_site: SiteName | None = option(None, "site of the vector to encode, for transcoders; none: mlp_in")
    target_layer: int | None = option(
        None, "layer of the vector to reconstruct, for transcoders; none: `source_layer`", ge=0
    )
    target_site: SiteName | None = option(
        None, "site of the vector to reconstruct, for transcoders; none: mlp_out"
    )
    layers: str | None = option(
        None,
        "several layers to read at once, for coders that take them or for a coder of each (`--per-layer`): "
        "numbers and ranges (`3,6,9`, `4-8`), or `middle`, the middle half; replaces `layer`",
        allowed="a list of layer numbers and ranges, such as 4,5,6 or 4-6; or middle",
        pattern=r"^(middle|\d+(-\d+)?(,\d+(-\d+)?)*)$",
    )
    sites: str | None = option(
        None,
        "any places to read at once, in this order: `8.mlp_in,9.resid_mid`; or several sites of the layer, "
        "or of each of the layers, that are given: `mlp_in,mlp_out`",
        allowed=_SITES_ALLOWED,
        pattern=_SITES,
    )
    target_sites: str | None = option(
        None,
        "any places to reconstruct, for transcoders: `9.mlp_out`, or `mlp_out` of the layers that are given; "
        "none: those of `sites`",
        allowed=_SITES_ALLOWED,
        pattern=_SITES,
    )

    @field_validator("layers", "sites", "target_sites", mode="before")
    @classmethod
    def _list_as_text(cls, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return ",".join(map(str, given))
        return str(given) if isinstance(given, int) else given

    @model_validator(mode="after")
    def _one_way_to_name_places(self) -> PlacesConfig:
        if self.layers is not None and self.layer is not None:
            raise exclusive("layer", "layers")
        of_both = (*TWO_LAYERS, *TWO_SITES)
        apart = {"layer": of_both, "site": of_both, "layers": TWO_LAYERS}
        for name in ("sites", "target_sites"):
            apart[name] = ONE_BY_ONE if names_layers(getattr(self, name)) else ONE_SITE
        for one, others in apart.items():
            for other in others:
                if getattr(self, one) is not None and getattr(self, other) is not None:
                    raise exclusive(one, other, allowed=PLACES)
        if self.target_sites is not None and self.sites is None:
            raise OptionsError("target_sites says what to reconstruct, but not from what", allowed=PLACES)
        if self.target_sites and names_layers(self.sites) != names_layers(self.target_sites):
            raise OptionsError("sites and target_sites are written in two ways", allowed=_SITES_ALLOWED)
        for name in ("sites", "target_sites"):
            places = [place.lstrip("0") for place in (getattr(self, name) or "").split(",")]
            if len(set(places)) < len(places):
                raise OptionsError(f"{name} names a place twice: {getattr(self, name)}", allowed="each once")
        return self

    @property
    def has_target(self) -> bool:
        """Whether one vector is encoded and another is to be reconstructed."""
        return any(getattr(self, name) is not None for name in (*TWO_LAYERS, *TWO_SITES, "target_sites"))


def names_layers(sites: str | None) -> bool:
    """Whether ``sites`` are places with their layers (``8.mlp_in``), not sites of layers that are given."""
    return "." in (sites or "")
