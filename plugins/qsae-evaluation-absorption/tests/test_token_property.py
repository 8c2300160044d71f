"""Properties of tokens on a stream that is made here. Shapes: B tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qsae_evaluation_absorption import TokenPropertyAbsorptionConfig, concepts
from qsae_evaluation_absorption.token_property import KeptTokens, TokenPropertyAbsorption
from torch import Tensor

from qsae_core.contracts import CoderShape, EvaluationContext, Observation, Result, SparseCodes
from qsae_core.errors import DataError

KEYWORDS = ("if", "for", "not", "and", "in", "is", "def", "class", "while", "else")
WORDS = [
    *KEYWORDS,
    *(str(n) for n in range(10, 20)),
    *(f"{a}_{b}" for a in "ABC" for b in "XYZ"),
    *(f"__{a}" for a in "abcdefghij"),
    *(f"{a}{b}" for a in "xyz" for b in "qrstuv"),
]
TOKENS = [f"{space}{word}" for word in WORDS for space in ("", " ")]
HAS = np.array([concepts.properties(token) for token in TOKENS])
CHILD = 36
"""Latent of a dictionary with a row along the first dimension, where keywords are."""


def held(name: str, token: str) -> bool:
    return concepts.properties(token)[concepts.NAMES.index(name)]


@pytest.mark.parametrize(
    ("token", "names"),
    [
        ("for", {"keyword"}),
        (" None", {"keyword", "leading_space"}),
        (" Forest", {"leading_space", "starts_f"}),
        ("MAX_SIZE", {"upper_case", "starts_m"}),
        ("A", {"starts_a"}),
        (" 42", {"digit", "leading_space"}),
        ("4a", set()),
        ("__init__", {"dunder"}),
        ("  ", set()),
        ("\n", set()),
        ("", set()),
        ("é", set()),
        ("_x", set()),
    ],
)
def test_properties_by_hand(token, names):
    assert {name for name in concepts.NAMES if held(name, token)} == names


def stream(n: int = 600) -> tuple[Tensor, Tensor]:
    """Tokens in a random order, and their vectors: 4 in the dimension of each of the first 31 properties that
    they have, and a little noise, the same for each token."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, len(TOKENS), (n,), generator=generator)
    noise = 0.01 * torch.randn(len(TOKENS), 36, generator=generator)
    table = noise + 4 * torch.nn.functional.pad(torch.from_numpy(HAS).float(), (0, 5))
    return ids, table[ids]


def text_of(ids: Sequence[int]) -> str:
    return TOKENS[ids[0]]


def mute(ids: Sequence[int]) -> str:
    raise DataError("the tokenizer is not known")


def context_of(decode: Any = text_of, layers: int = 1) -> EvaluationContext:
    """A dictionary of a latent for each dimension, and a second one for the first 26."""
    atoms = torch.cat([torch.eye(36), torch.eye(36)[:26]])
    coder: Any = SimpleNamespace(
        shape=CoderShape(36, 36, layers, layers), n_latents=62, atoms=lambda: atoms, by_layer=lambda: ()
    )
    data: Any = SimpleNamespace(language_model=lambda: SimpleNamespace(decode=decode))
    return EvaluationContext(coder, data, list, 10**6, 64, "cpu")


def started(**options: int) -> KeptTokens:
    evaluation = TokenPropertyAbsorption(TokenPropertyAbsorptionConfig(**options))
    assert evaluation.unavailable(context_of()) is None
    return evaluation.start(context_of())


def observed(ids: Tensor, x: Tensor, first: int | None, absorbing: bool) -> Observation:
    """Keywords with a space in front are said by their child."""
    f = torch.cat([x.relu(), torch.zeros(len(x), 26)], 1)
    if absorbing:
        absorbed = torch.tensor([held("keyword", TOKENS[i]) and TOKENS[i][0] == " " for i in ids.tolist()])
        f[absorbed, CHILD], f[absorbed, 0] = 0.7 * f[absorbed, 0], 0.3 * f[absorbed, 0]
    codes = SparseCodes.from_dense(f)
    return Observation(x, x, codes, torch.ones(62), token_ids=ids, first=first)


def ran(batch_size: int, absorbing: bool = True, **options: int) -> Result:
    running = started(**options)
    ids, x = stream()
    for start in range(0, len(ids), batch_size):
        rows = slice(start, start + batch_size)
        running.update(observed(ids[rows], x[rows], start, absorbing))
    return running.result()


def row_of(result: Result, name: str) -> dict[str, object]:
    table = result.tables["concepts"]
    (row,) = [row for row in table.rows if row[0] == name]
    return dict(zip(table.columns, row, strict=True))


def test_a_latent_for_each_property_leaves_nothing_to_absorb():
    result = ran(64, absorbing=False)
    passed = result.values["concepts_passed"]
    assert passed is not None
    assert passed >= 5
    row = row_of(result, "keyword")
    assert row["main_latents"] == "[0]"
    assert (row["mean_absorption_fraction"], row["num_full_absorption"]) == (0, 0)


def test_keywords_that_a_child_says_are_absorbed():
    """Seven tenths of each keyword with a space."""
    result = ran(64)
    absorbed = [row for row in result.tables["absorbed"].rows if row[0] == "keyword"]
    assert absorbed
    assert {row[4] for row in absorbed} == {CHILD}
    assert {str(row[1])[1] for row in absorbed} == {" "}
    assert [float(row[2] or 0) for row in absorbed] == pytest.approx([0.7] * len(absorbed), abs=0.05)


def test_results_do_not_depend_on_the_batch_size():
    one, *others = [ran(size) for size in (1, 7, 64)]
    for other in others:
        assert other.values == pytest.approx(one.values, abs=1e-12)
        assert other.tables == one.tables


def test_parts_merge_into_the_whole_in_any_order():
    ids, x = stream()
    first, second = started(), started()
    second.update(observed(ids[:250], x[:250], 0, True))
    first.update(observed(ids[250:], x[250:], 250, True))
    first.merge(second)
    whole = ran(600)
    merged = first.result()
    assert merged.values == pytest.approx(whole.values, abs=1e-12)
    assert merged.tables == whole.tables


def test_of_each_token_the_first_places_are_kept():
    """Token 3 at places 0, 1, 2, 4 and token 5 at 3: two of each at most."""
    running = started(per_token=2)
    ids = torch.tensor([3, 3, 3, 5, 3])
    running.update(observed(ids[:1], torch.ones(1, 36), 0, False))
    running.update(observed(ids[1:], torch.ones(4, 36), 1, False))
    assert [place for part in running._parts for place in part.places] == [0, 1, 3]


def test_probes_are_tested_on_other_tokens_than_they_are_trained_on():
    """So a property that the vectors of its tokens do not share is none that the model has: each token has a
    direction of its own."""
    running = started()
    ids = torch.arange(len(TOKENS)).repeat(3)
    x = torch.nn.functional.one_hot(ids % 36, 36).float()[:, torch.randperm(36)]
    running.update(observed(ids, x, 0, False))
    assert running.result().values["token_property_absorption_fraction"] is None


def test_no_tokens_give_no_value():
    result = started().result()
    assert result.values["token_property_absorption_fraction"] is None
    assert result.reason == (
        "0 of 31 concepts pass (F1 of the dense probe > 0.6), and at least 5 have to: not applicable"
    )


def test_it_says_why_it_cannot_tell():
    evaluation = TokenPropertyAbsorption(TokenPropertyAbsorptionConfig())
    assert evaluation.unavailable(context_of(mute)) == "the tokenizer is not known"
    assert "one layer's vectors" in str(evaluation.unavailable(context_of(layers=2)))
