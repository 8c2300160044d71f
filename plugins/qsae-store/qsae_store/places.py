"""Which of a store's places are read."""

from __future__ import annotations

from qsae_core import PlacesConfig
from qsae_core.contracts import ChosenSites, Site, chosen_sites
from qsae_core.errors import DataError
from qsae_store.manifest import Manifest
from qsae_store.plan import StoredPlace


def stored_sites(options: PlacesConfig, manifest: Manifest) -> ChosenSites:
    """The sites that the options name; those that the harvest's own source read, where they name none.

    Where a layer is said and no site, it is the one that is stored of all layers.

    Raises:
        DataError: if one of them is not stored.
    """
    plan = manifest.plan
    by_name = {place.name: Site(place.layer, place.site) for place in plan.places}
    if all(getattr(options, name) is None for name in PlacesConfig.model_fields):
        sources, targets = (tuple(by_name[name] for name in side) for side in (plan.sources, plan.targets))
        return ChosenSites(sources, targets)
    names = {place.site for place in plan.places}
    if len(names) == 1 and options.site is None and options.sites is None and not options.has_target:
        options = options.model_copy(update={"site": names.pop()})
    chosen = chosen_sites(options, sorted({place.layer for place in plan.places}))
    flags = (
        "--source-layer, --source-site, --target-layer and --target-site"
        if options.has_target
        else "--layer and --site"
    )
    for site in chosen.all:
        if str(site) not in by_name:
            raise DataError(
                f"{site} is not stored",
                where=f"{type(options).__name__.removesuffix('Config').lower()} of {manifest.model['name']}",
                allowed=_listed(plan.places),
                next=f"choose of these with {flags}, or harvest it too, with qsae cache into another folder",
            )
    return chosen


def _listed(places: tuple[StoredPlace, ...]) -> str:
    return ", ".join(place.name for place in places)
