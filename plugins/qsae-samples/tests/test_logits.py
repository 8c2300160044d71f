"""Which tokens an atom raises, beside the toy model's own arithmetic."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from qsae_samples.files import unpacked
from qsae_samples.logits import last_site, logit_arrays
from qsae_samples.text import Pieces

from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import LanguageModel, Site
from qsae_core.errors import DataError


def context(model, atoms, site="resid_post"):
    data = SimpleNamespace(language_model=lambda: model, target_sites=(Site(0, site),))
    coder = SimpleNamespace(n_latents=len(atoms), device=atoms.device, atoms_of=lambda some: atoms[some])
    return SimpleNamespace(data=data, coder=coder)


@pytest.mark.parametrize("n_atoms", [3, 9, 100])
def test_the_tokens_whose_rows_of_the_head_are_most_along_the_atom(n_atoms):
    model = ToyLanguageModel(16)
    atoms = torch.randn(n_atoms, 16, generator=torch.Generator().manual_seed(1))
    tokens = model.contexts(1, seed=0)
    found = logit_arrays(context(model, atoms), tokens, 4, Pieces(model.decode))
    # the toy model's logit of the token that follows t is the product with t's embedding
    expected = torch.empty(n_atoms, model.n_vocabulary)
    expected[:, model.successors] = atoms @ model.embedding_VD.T
    for side, largest in ((0, True), (1, False)):
        values, ids = expected.topk(4, largest=largest)
        assert torch.allclose(torch.from_numpy(found["logit_value"][:, side]), values, atol=1e-4)
        assert found["logit_ids"][found["logit_token"][:, side]].tolist() == ids.tolist()
    assert torch.allclose(torch.from_numpy(found["logit_mean"]), expected.mean(1), atol=1e-4)
    for number, row in enumerate(expected.double()):
        counts, _ = np.histogram(row.numpy(), bins=50)  # from the least to the largest
        apart = np.abs(found["logit_histogram"][number].astype(np.int64).cumsum() - counts.cumsum())
        assert apart.max() <= 1  # rounding at an edge
        assert found["logit_histogram"][number].sum() == model.n_vocabulary
    texts = unpacked(found["logit_text"])
    assert [text.strip() for text in texts] == [f"w{i}" for i in found["logit_ids"]]


def test_nothing_where_it_cannot_be_asked():
    model = ToyLanguageModel(16)
    atoms, tokens, pieces = torch.ones(2, 16), model.contexts(1, seed=0), Pieces(model.decode)
    assert logit_arrays(context(model, atoms), tokens, 0, pieces) == {}
    assert logit_arrays(context(model, atoms), None, 4, pieces) == {}
    assert logit_arrays(context(model, atoms, "mlp_in"), tokens, 4, pieces) == {}
    headless = SimpleNamespace(has_logits=False)
    assert logit_arrays(context(headless, atoms), tokens, 4, pieces) == {}


@pytest.mark.parametrize("n_layers", [1, 2, 3, 8, 30])
def test_the_last_layer_is_found(n_layers):
    def logits(tokens, edits):
        if next(iter(edits)).layer >= n_layers:
            raise DataError("there is no such layer")

    model: LanguageModel = SimpleNamespace(logits=logits)
    assert last_site(model, None) == Site(n_layers - 1, "resid_post")
