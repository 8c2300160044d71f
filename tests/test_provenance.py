"""Which vectors a coder is for, as data sources say it and as they are asked for it."""

from __future__ import annotations

import pytest

from qsae_core.contracts import Provenance

PLACES = {
    "one": Provenance("m", ("9.resid_post",), ("9.resid_post",)),
    "transcoder": Provenance("m", ("3.mlp_in",), ("4.mlp_out",)),
    "several": Provenance("m", ("0.mlp_in", "1.mlp_in"), ("0.mlp_out", "1.mlp_out")),
    "crosscoder": Provenance("m", ("0.resid_post", "1.resid_post"), ("0.resid_post", "1.resid_post")),
    "no model": Provenance(None, ("9.resid_pre",), ("9.resid_pre",)),
}


@pytest.mark.parametrize("name", PLACES)
def test_options_of_the_data_say_what_they_were_made_of(name):
    block = PLACES[name].data_block()
    assert block is not None
    assert Provenance.of_data_block(block) == PLACES[name]


def test_options_that_leave_places_open():
    assert Provenance.of_data_block({"use": "lm", "model": "m", "layer": None}) == Provenance("m")
    assert Provenance.of_data_block({"use": "lm", "layers": "0-3", "layer": None}) == Provenance()
    assert Provenance.of_data_block({"use": "tensors", "path": "x.npy"}) == Provenance()
    named = Provenance("m", ("2.resid_post",), ("2.resid_post",))
    assert Provenance.of_data_block({"use": "lm", "model": "m", "layer": 2, "site": None}) == named
