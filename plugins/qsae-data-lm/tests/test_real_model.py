"""A real model, downloaded or given by QSAE_TEST_MODEL (a directory)."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from qsae_data_lm import LmConfig
from qsae_data_lm.segments import whole_of
from qsae_data_lm.source import LmSource
from torch.nn.functional import cross_entropy

from qsae_core.contracts import Site
from qsae_core.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source() -> LmSource:
    model = os.environ.get("QSAE_TEST_MODEL", "HuggingFaceTB/SmolLM2-135M")
    try:
        return LmSource(LmConfig(model=model, layer=9, context=128, buffer_tokens=512, forward_tokens=512))
    except DataError as error:
        pytest.skip(str(error))


@torch.no_grad()
def test_it_predicts_text_and_its_layer_is_the_one_that_transformers_numbers_ten(source: LmSource) -> None:
    model = source.language_model()
    batch = next(source.held_out_contexts(100, 512))[0]
    counted = batch.counted[:, 1:]
    nats = cross_entropy(model.logits(batch)[:, :-1][counted], batch.ids[:, 1:][counted])
    assert nats < 3
    found = model.read(batch, [(9, "resid_post")])[9, "resid_post"]
    states = model.model(input_ids=batch.ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(found, states[10].float())


def test_it_resumes_bit_equal(source: LmSource) -> None:
    source.next_batch(600)
    state = source.state_dict()
    expected = source.next_batch(300).x
    source.load_state_dict(state)
    assert torch.equal(source.next_batch(300).x, expected)


@torch.no_grad()
def test_documents_of_a_context_are_read_as_if_alone(source: LmSource) -> None:
    model = source.language_model()
    last = Site(model.layout.n_layers - 1, "resid_post")
    model.check_segments(128)
    ids = next(source.held_out_contexts(100, 512))[0].ids[:1]
    segments = (torch.arange(128) >= 50).long()[None]
    found = model.read(replace(whole_of(ids), segments=segments), [last])[last]
    alone = torch.cat(
        [model.read(whole_of(ids[:, part]), [last])[last] for part in (slice(50), slice(50, None))], 1
    )
    together = model.read(whole_of(ids), [last])[last]
    error, seen = ((x - alone).norm(dim=-1)[:, 50:] / alone.norm(dim=-1)[:, 50:] for x in (found, together))
    assert error.max() < 0.05  # of bf16; 3e-6 in fp32
    assert seen.max() > 0.5
