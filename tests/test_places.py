"""Which places of a language model are read: the options, the sites that they name, and results' folders."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qsae_core import PlacesConfig
from qsae_core.contracts import ChosenSites, Site, chosen_sites
from qsae_core.errors import ConfigError, DataError


def chosen(there=range(12), /, **options):
    return chosen_sites(PlacesConfig(**options), there)


def words(sites):
    return " ".join(map(str, sites))


@pytest.mark.parametrize(
    ("options", "sources", "targets", "folder"),
    [
        ({}, "6.resid_post", "6.resid_post", "6"),
        ({"layer": 9}, "9.resid_post", "9.resid_post", "9"),
        ({"layer": 9, "site": "mlp_out"}, "9.mlp_out", "9.mlp_out", "9-mlp_out"),
        ({"source_layer": 8}, "8.mlp_in", "8.mlp_out", "8-8"),
        ({"source_layer": 8, "target_layer": 9}, "8.mlp_in", "9.mlp_out", "8-9"),
        ({"target_site": "resid_post"}, "6.mlp_in", "6.resid_post", "6-6-mlp_in-resid_post"),
        ({"layers": "3,5"}, "3.resid_post 5.resid_post", "3.resid_post 5.resid_post", "3-5"),
        ({"layers": "5,3-4", "site": "mlp_in"}, *["3.mlp_in 4.mlp_in 5.mlp_in"] * 2, "3-4-5-mlp_in"),
        ({"layers": "3,5", "source_site": "mlp_in"}, "3.mlp_in 5.mlp_in", "3.mlp_out 5.mlp_out",
         "3-5-mlp_in-mlp_out"),
        ({"layers": [0, 11]}, "0.resid_post 11.resid_post", "0.resid_post 11.resid_post", "0-11"),
        # any set of places; where the other options could say it, the folder is theirs
        ({"sites": "9.mlp_out"}, "9.mlp_out", "9.mlp_out", "9-mlp_out"),
        ({"sites": "8.mlp_in", "target_sites": "8.mlp_out"}, "8.mlp_in", "8.mlp_out", "8-8"),
        ({"sites": "8.mlp_in,9.resid_mid"}, *["8.mlp_in 9.resid_mid"] * 2, "8.mlp_in-9.resid_mid"),
        ({"sites": ["9.resid_mid", "8.mlp_in"]}, *["9.resid_mid 8.mlp_in"] * 2, "9.resid_mid-8.mlp_in"),
        ({"sites": "3.mlp_in,5.mlp_in,5.resid_mid"}, *["3.mlp_in 5.mlp_in 5.resid_mid"] * 2,
         "3-5.mlp_in-5.resid_mid"),
        ({"sites": "3.mlp_in,5.mlp_in", "target_sites": "5.mlp_out"}, "3.mlp_in 5.mlp_in", "5.mlp_out",
         "3-5.mlp_in-to-5.mlp_out"),
        ({"sites": "5.resid_post,3.resid_post"}, *["5.resid_post 3.resid_post"] * 2, "5-3.resid_post"),
        # several sites of the layers that are given
        ({"sites": "mlp_in,mlp_out"}, *["6.mlp_in 6.mlp_out"] * 2, "6.mlp_in-6.mlp_out"),
        ({"layers": "3,5", "sites": "mlp_in,mlp_out"}, *["3.mlp_in 3.mlp_out 5.mlp_in 5.mlp_out"] * 2,
         "3.mlp_in-3.mlp_out-5.mlp_in-5.mlp_out"),
        ({"layer": 9, "sites": "resid_post"}, "9.resid_post", "9.resid_post", "9"),
        ({"layers": "3,5", "sites": "mlp_in", "target_sites": "mlp_out"}, "3.mlp_in 5.mlp_in",
         "3.mlp_out 5.mlp_out", "3-5-mlp_in-mlp_out"),
        ({"sites": "8.mlp_in", "target_sites": "8.mlp_in"}, "8.mlp_in", "8.mlp_in", "8-mlp_in"),
    ],
)  # fmt: skip
def test_the_sites_that_options_name_and_the_folder_of_results(options, sources, targets, folder):
    found = chosen(**options)
    assert (words(found.sources), words(found.targets), found.path_name) == (sources, targets, folder)
    assert bool(found.own_targets) == (sources != targets)  # without targets of their own, y is x
    assert found.all == tuple(dict.fromkeys(found.sources + found.targets))


def test_folders_keep_places_apart():
    """All sets of at most three places of two layers and two sites, on either side, that need a list."""
    places = [f"{layer}.{site}" for layer in (8, 9) for site in ("mlp_in", "mlp_out")]
    sides = [[a] for a in places] + [[a, b] for a in places for b in places if a != b]
    sides += [[a, b, c] for a in places for b in places for c in places if len({a, b, c}) == 3]
    found = [chosen(sites=s, target_sites=t) for s in sides for t in sides]
    listed = [c for c in found if "." in c.path_name]
    assert len(listed) > 1500
    assert len({c.path_name for c in listed}) == len(set(listed)) == len(listed)


def test_what_is_not_said_is_in_the_middle_of_the_layers_that_there_are():
    stored = (2, 5, 7, 11)
    assert chosen(stored).sources == (Site(7, "resid_post"),)
    assert chosen(stored, source_site="mlp_in").targets == (Site(7, "mlp_out"),)
    assert [site.layer for site in chosen(stored, layers="middle").sources] == [5, 7]
    assert [site.layer for site in chosen(range(30), layers="middle").sources] == list(range(7, 22))
    with pytest.raises(ConfigError) as caught:
        chosen(stored, layers="5")
    assert caught.value.allowed == "at least two of 2, 5, 7, 11, such as 2,11"
    with pytest.raises(ConfigError) as caught:
        chosen(range(3), layers="1-1")
    assert caught.value.allowed == "at least two of 0 to 2, such as 0,2"
    with pytest.raises(ConfigError) as caught:
        chosen([4], layers="middle")
    assert caught.value.allowed == "nothing: layer 4 is the only one"


@pytest.mark.parametrize("other", ["layer", "layers", "site", "source_layer", "target_site"])
@pytest.mark.parametrize("given", [{"sites": "1.mlp_in"}, {"sites": "1.mlp_in", "target_sites": "1.mlp_out"}])
def test_places_are_named_in_one_way(given, other):
    value = {"layer": 1, "layers": "1,2", "source_layer": 1}.get(other, "mlp_out")
    with pytest.raises(ValidationError, match=f"sites and {other} cannot be given together"):
        PlacesConfig(**given, **{other: value})


@pytest.mark.parametrize(
    "sites", ["8", "8.", "mlp_in,8.mlp_in", "8.mlp", "8.mlp_in,", "8.mlp_in, 9.mlp_in", "-1.mlp_in"]
)
def test_what_is_no_place_is_refused(sites):
    for name in ("sites", "target_sites"):
        with pytest.raises(ValidationError, match=name):
            PlacesConfig(**{"sites": "1.mlp_in", name: sites})


def test_a_place_twice_and_targets_alone_are_refused():
    with pytest.raises(ValidationError, match=r"sites names a place twice: 8.mlp_in,08.mlp_in"):
        PlacesConfig(sites="8.mlp_in,08.mlp_in")
    with pytest.raises(ValidationError, match="target_sites says what to reconstruct, but not from what"):
        PlacesConfig(target_sites="8.mlp_in")


def test_sites_and_target_sites_are_written_in_one_way():
    with pytest.raises(ValidationError, match="sites and target_sites are written in two ways"):
        PlacesConfig(sites="mlp_in", target_sites="8.mlp_out")
    with pytest.raises(ValidationError, match="sites and source_layer cannot be given together"):
        PlacesConfig(sites="mlp_in", source_layer=3)


def test_a_side_has_one_width():
    sites = ChosenSites((Site(0, "mlp_in"), Site(1, "mlp_in")), (Site(2, "mlp_out"),))
    assert sites.widths(lambda site: 8 if site.layer < 2 else 12) == (8, 12)
    assert ChosenSites(sites.sources).widths(lambda site: 8) == (8, 8)
    with pytest.raises(DataError, match=r"these have several: 0\.mlp_in 8, 1\.mlp_in 16"):
        sites.widths(lambda site: 8 * (site.layer + 1))
