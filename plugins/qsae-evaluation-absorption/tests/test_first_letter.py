"""First letters asked of a language model whose word vectors are known. Shapes: B prompts, T positions."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from qsae_evaluation_absorption import AbsorptionConfig
from qsae_evaluation_absorption.first_letter import MIN_LETTERS, Absorption
from qsae_evaluation_absorption.prompts import Vocabulary, beginning, prompts
from torch import Tensor

from qsae_core import CoderConfig, ComponentConfig
from qsae_core.coders import MatrixCoder
from qsae_core.contracts import (
    Batch,
    CoderShape,
    DataSource,
    Edits,
    EvaluationContext,
    LanguageModel,
    LossOutput,
    Parts,
    Result,
    Site,
    SparseCodes,
    TokenBatch,
)
from qsae_core.errors import DataError

SITE = Site(0, "resid_post")
LETTERS = string.ascii_lowercase
FRAME = ["<bos>", "\n", " has the first letter:", *(f" {c}" for c in string.ascii_uppercase)]
WORDS = [f" {a}{b}{c}" for a in LETTERS for b in "abcdefghij" for c in "wxyz"]
TEXTS = [*FRAME, *WORDS]
FIRST = len(FRAME)


class Speller(LanguageModel):
    """A word's vector is 4 times its first letter's direction, and its second letter's."""

    name, forward_positions, predicts_next = "speller", 500, True  # type: ignore[assignment]

    def __init__(self) -> None:
        self.texts = TEXTS
        self.seen: list[list[int]] = []

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        self.seen += batch.ids.tolist()
        found = torch.zeros(*batch.ids.shape, 36)
        last = found[:, -1]
        for b, token in enumerate(batch.ids[:, -1].tolist()):
            text = TEXTS[token].lower()
            last[b, LETTERS.index(text[1])] = 4.0
            if text[2:]:
                last[b, 26 + "abcdefghij".index(text[2])] = 1.0
        return {site: found for site in sites}

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        return torch.zeros(*batch.ids.shape, len(self.texts))

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        return "".join(self.texts[int(i)] for i in ids)

    def encode(self, text: str) -> list[int]:
        return [self.texts.index(text)] if text in self.texts else []


class Source(DataSource):
    """Contexts that begin with token 0, which does not count."""

    source_sites = target_sites = (SITE,)  # type: ignore[assignment]
    d_in = d_out = 36

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(ComponentConfig())
        self.model = model

    def language_model(self) -> LanguageModel:
        return self.model

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        ids = torch.tensor([[0, FIRST, FIRST + 1]])
        tokens = TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))
        x = self.model.read(tokens, [SITE])[SITE][tokens.counted]
        yield tokens, Batch(x, x, ids[tokens.counted])

    def next_batch(self, size: int) -> Batch:
        raise NotImplementedError

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


class Dictionary(MatrixCoder):
    """A latent for each dimension, and one for each first letter before an ``a``: where it is ``absorbing``,
    that one says seven tenths of the letter."""

    def __init__(self, absorbing: bool = False, norm: float = 1.0, layers: int = 1) -> None:
        parts = Parts(*[None] * len(Parts._fields))  # type: ignore[arg-type]
        super().__init__(CoderConfig(n_latents=62), CoderShape(36, 36, layers, layers), parts)
        self.absorbing, self.norm = absorbing, norm

    def encode(self, x: Tensor) -> SparseCodes:
        f = torch.cat([x, torch.zeros(len(x), 26)], 1)
        if self.absorbing:
            rows, letters = (x[:, :26] * (x[:, 26:27] > 0)).nonzero(as_tuple=True)
            f[rows, 36 + letters] = 0.7 * f[rows, letters]
            f[rows, letters] *= 0.3
        return SparseCodes.from_dense(f / self.norm)

    def decode(self, codes: SparseCodes) -> Tensor:
        return codes.to_dense() @ self.atoms()

    def atoms(self) -> Tensor:
        return self.norm * torch.cat([torch.eye(36), torch.eye(36)[:26]])

    def atom_norms(self) -> Tensor:
        return torch.full((62,), self.norm)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


def asked(
    coder: Dictionary, batch_size: int = 64, model: LanguageModel | None = None, **options: Any
) -> Result:
    evaluation = Absorption(AbsorptionConfig(**options))
    data = Source(model or Speller())
    context = EvaluationContext(coder, data, list, 100, batch_size, "cpu")
    assert evaluation.unavailable(context) is None
    return evaluation.start(context).result()


def test_words_are_letters_behind_one_space_or_none():
    vocabulary = Vocabulary(["<s>", "cat", " Cat", "  cat", " ", "", "c4t", "é", "Z", "a b"])
    assert [vocabulary.texts[i] for i in vocabulary.words()] == ["cat", " Cat", "Z"]
    assert [vocabulary.letter(i) for i in vocabulary.words()] == ["c", "c", "z"]


def test_a_prompt_is_ten_lines_of_other_words_and_the_word():
    model = Speller()
    vocabulary = Vocabulary(model.texts)
    words = vocabulary.words()
    asked = (words, vocabulary, model.encode, [0])
    (ids,) = prompts([FIRST], *asked, seed=3)
    lines = model.decode(ids).split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("<bos>", WORDS[0], 12)
    for line in lines[1:-1]:
        word, letter = line.split(" has the first letter: ")
        assert word in TEXTS
        assert word != WORDS[0]
        assert letter == word[1].upper()
    assert len(set(lines[1:-1])) == 10
    assert list(prompts([FIRST], *asked, seed=4)) != [ids]
    few = range(FIRST, FIRST + 11)  # all of which are drawn
    (ids,) = prompts([FIRST], few, *asked[1:], seed=3)
    assert sorted(token for token in ids[:-1] if token >= FIRST) == [*few][1:]


def test_a_prompt_begins_as_contexts_of_the_data_do():
    assert beginning(Source(Speller())) == [0]


def test_a_dictionary_of_letters_absorbs_nothing():
    result = asked(Dictionary(), words=None)
    assert result.values["letters_passed"] == 26
    assert result.values["mean_absorption_fraction_score"] == 0
    assert result.values["mean_full_absorption_score"] == 0
    assert result.values["mean_num_split_features"] == 1
    assert result.values["main_latents_fire"] == 1
    assert result.chance["mean_absorption_fraction_score"] == 1  # random latents say nothing of the letter
    assert result.per_latent["main_of"].tolist() == [1.0] * 26 + [0.0] * 36


@pytest.mark.parametrize("norm", [1.0, 4.0])
def test_words_whose_letter_a_child_says_are_absorbed(norm):
    """Of the words with the second letter a, whose child says seven tenths. The main latent still fires, so
    that its F1 is 1 and the child no split; p is 4 times u's part along the letter, and a little more."""
    result = asked(Dictionary(absorbing=True, norm=norm), words=None)
    assert result.values["letters_passed"] == 26
    assert result.values["mean_num_split_features"] == 1
    absorbed = [str(row[1]).strip("'") for row in result.tables["absorbed"].rows]
    fractions = [float(row[2] or 0) for row in result.tables["absorbed"].rows]
    assert len(absorbed) > 10
    assert {word[2] for word in absorbed} == {"a"}
    assert [row[4] for row in result.tables["absorbed"].rows] == [36 + LETTERS.index(w[1]) for w in absorbed]
    assert fractions == pytest.approx([0.7] * len(absorbed), abs=0.05)
    assert result.values["mean_full_absorption_score"] == 0


def test_results_do_not_depend_on_the_batch_size():
    one, *others = [asked(Dictionary(absorbing=True), size, words=200) for size in (1, 7, 64)]
    for other in others:
        assert other.values == one.values
        assert other.tables == one.tables


def test_the_seed_draws_the_words():
    model = Speller()
    asked(Dictionary(), model=model, words=50)
    asked(Dictionary(), model=model, words=50)
    asked(Dictionary(), model=model, words=50, seed=1)
    runs = [[tuple(row) for row in model.seen if len(row) > 3][50 * i : 50 * i + 50] for i in range(3)]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 50
    assert {row[-1] for row in runs[0]} != {row[-1] for row in runs[2]}


def test_fewer_than_twenty_letters_give_no_value():
    """30 words have few letters in common between train and test."""
    result = asked(Dictionary(), words=30)
    assert result.values["mean_absorption_fraction_score"] is None
    passed = result.values["letters_passed"]
    assert passed is not None
    assert passed < MIN_LETTERS
    assert str(result.reason).startswith(f"{passed:.0f} of 26 letters pass")
    assert len(result.tables["letters"].rows) == 26


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"predicts_next": False}, "encoder"),
        ({"has_logits": False}, "without its head"),
        ({"texts": WORDS}, "cannot spell"),
    ],
)
def test_it_says_why_it_cannot_ask(change, says):
    model = type("Changed", (Speller,), {k: v for k, v in change.items() if k != "texts"})()
    model.texts = change.get("texts", model.texts)
    context = EvaluationContext(Dictionary(), Source(model), list, 100, 64, "cpu")
    assert says in str(Absorption(AbsorptionConfig()).unavailable(context))


def test_it_needs_the_texts_of_tokens():
    class Mute(Speller):
        def decode(self, ids: Sequence[int] | Tensor) -> str:
            raise DataError("the tokenizer is not known")

    context = EvaluationContext(Dictionary(), Source(Mute()), list, 100, 64, "cpu")
    assert Absorption(AbsorptionConfig()).unavailable(context) == "the tokenizer is not known"


def test_a_coder_of_several_layers_is_not_asked():
    context = EvaluationContext(Dictionary(layers=2), Source(Speller()), list, 100, 64, "cpu")
    assert "one layer's vectors" in str(Absorption(AbsorptionConfig()).unavailable(context))


def test_vectors_stand_in_the_order_of_the_words():
    """Words of both sides, read in groups by length."""
    evaluation = Absorption(AbsorptionConfig(words=60))
    context = EvaluationContext(Dictionary(), Source(Speller()), list, 100, 64, "cpu")
    running = evaluation.start(context)
    rows = [[0, 1, FIRST + 5], [FIRST + 800], [0, FIRST + 13], [FIRST]]
    x, codes = running._read(rows)
    wanted = [WORDS[row[-1] - FIRST] for row in rows]
    assert [LETTERS[int(np.argmax(v))] for v in x] == [word[1] for word in wanted]
    assert [LETTERS[int(np.argmax(v))] for v in codes.toarray()] == [word[1] for word in wanted]
