"""Tokens that are a part of a character: what the file says of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qsae_samples.assembled import _of_text
from qsae_samples.files import packed, unpacked
from qsae_samples.logits import logit_arrays
from qsae_samples.records import Example
from qsae_samples.samples import Samples
from qsae_samples.text import Pieces

from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import Site

EURO = "€".encode()  # three bytes


class Bytes(ToyLanguageModel):
    """A model whose token 1 is the first two bytes of a character."""

    def partial_bytes(self, token: int) -> bytes | None:
        return EURO[:2] if token == 1 else None


def test_raised_tokens_have_their_bytes() -> None:
    model = Bytes(16)
    data = SimpleNamespace(language_model=lambda: model, target_sites=(Site(0, "resid_post"),))
    atoms = torch.randn(40, 16)
    coder = SimpleNamespace(n_latents=40, device=atoms.device, atoms_of=lambda some: atoms[some])
    context: Any = SimpleNamespace(data=data, coder=coder)
    found = logit_arrays(context, model.contexts(1, seed=0), 9, Pieces(model.decode))
    assert dict(zip(found["logit_ids"].tolist(), unpacked(found["logit_bytes"]), strict=True))[1] == "e282"
    assert sorted(set(unpacked(found["logit_bytes"]))) == ["", "e282"]


def test_tokens_of_windows_have_their_bytes_where_the_text_does_not_tell() -> None:
    part: Any = SimpleNamespace(ids=torch.tensor([5, 1, 2, 1]), pieces=["a", "", "€", "\ufffd"])
    found = _of_text([part], Bytes(4))
    kept = zip(unpacked(found["vocabulary_text"]), unpacked(found["vocabulary_bytes"]), strict=True)
    assert dict(kept) == {"a": "", "": "e282", "€": "", "\ufffd": "e282"}


@pytest.mark.parametrize(("stored", "first"), [(True, r"b'\xe2\x82'"), (False, "'\ufffd'")])
def test_a_raised_token_as_a_literal(stored: bool, first: str) -> None:
    arrays = {
        "logit_ids": np.array([7, 8]),
        "logit_text": packed(["\ufffd", " a"]),
        "logit_token": np.array([[[0, 1], [1, 0]]]),
        "logit_value": np.array([[[2.5, 1.0], [-1.0, -2.0]]]),
        **({"logit_bytes": packed(["e282", ""])} if stored else {}),
    }
    raised, _ = Samples(arrays, {})._logits(0)
    assert raised is not None
    assert [(token.token_id, token.value) for token in raised] == [(7, 2.5), (8, 1.0)]
    assert [token.literal for token in raised] == [first, "' a'"]


def test_the_token_of_an_example_is_the_character_that_it_is_a_part_of() -> None:
    def about(peak: int, pieces: list[str]) -> str:
        nothing = np.zeros(len(pieces), dtype=np.float32)
        return Example(0, pieces, nothing, nothing.astype(np.uint32), peak, 0, 0, 0).token

    pieces = ["a", "", "", "€", "b", ""]
    assert [about(peak, pieces) for peak in range(6)] == ["a", "€", "€", "€", "b", ""]
