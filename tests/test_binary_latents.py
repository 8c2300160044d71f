"""Latents of one bit: values, gradients against float64, biases from a sample, rules level by level."""

import pytest
import torch
from qsae_sparsity import L0Config
from qsae_sparsity.l0 import L0

from qsae_core.coders.binary_latents import SPEED, BinaryLatents
from qsae_core.coders.level_rules import LevelRules
from qsae_core.component import ComponentConfig
from qsae_core.conformance.reference_parts import L1, PlainConfig, TopK, TopKConfig
from qsae_core.contracts.codes import SparseCodes, join_latents, split_latents
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError


def make(*magnitudes):
    latents = BinaryLatents(len(magnitudes))
    latents.base.copy_(torch.tensor(magnitudes))
    return latents


def test_a_latent_has_its_magnitude_or_nothing():
    z = torch.tensor([[0.0, -0.1, 3.0], [-2.0, 5.0, -1e-9]])
    assert make(2.0, 3.0, 4.0)(z).tolist() == [[2.0, 0.0, 4.0], [0.0, 3.0, 0.0]]
    entries = make(2.0, 3.0, 4.0)(torch.tensor([1.0, 1.0]), torch.tensor([2, 0], dtype=torch.int32))
    assert entries.tolist() == [4.0, 2.0]


def test_rules_rank_by_pre_activations_and_only_training_sees_what_is_off():
    latents = make(1.0, 1.0, 1.0, 1.0)
    z = torch.tensor([[30.0, 40.0, -1.0, 0.5]])  # sigma(30) and sigma(40) are both 1 in float32
    ranking = latents.train().candidates(z)
    assert ranking.argsort(descending=True).tolist() == [[1, 0, 3, 2]]
    assert (ranking > 0).all()
    assert (latents.eval().candidates(z) > 0).tolist() == [[True, True, False, True]]
    # a value is that of the step wherever a rule looked
    assert latents(z).tolist() == [[1.0, 1.0, 0.0, 1.0]]


def test_the_gradient_of_a_bit_is_that_of_the_logistic_function():
    latents = make(2.0, 3.0)
    z = torch.tensor([[0.3, -1.2]], requires_grad=True)
    weights = torch.tensor([[5.0, -7.0]])
    (latents(z) * weights).sum().backward()
    exact = z.detach().double().requires_grad_()
    (torch.sigmoid(exact) * torch.tensor([2.0, 3.0]).double() * weights.double()).sum().backward()
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=1e-5, atol=0)
    # d/d log_magnitude of 10 * 5 * m b: only the latent that is on
    assert latents.log_magnitude.grad.tolist() == pytest.approx([SPEED * 5.0 * 2.0, 0.0])


def test_part_of_the_latents_numbered_from_zero():
    latents = make(1.0, 2.0, 3.0)
    part = latents.part(slice(1, 3))
    z = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    assert part(z).tolist() == [[2.0, 0.0], [2.0, 3.0]]
    assert part(torch.tensor([1.0]), torch.tensor([1])).tolist() == [3.0]
    assert not list(part.parameters())


def codes_of(dense):
    return SparseCodes.from_dense(torch.tensor(dense))


def test_codes_are_split_by_latents_and_joined_again():
    codes = codes_of([[1.0, 0.0, 2.0, 3.0], [0.0, 4.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    first, second = split_latents(codes, (1, 4))
    assert first.to_dense().tolist() == [[1.0], [0.0], [0.0]]
    assert second.to_dense().tolist() == [[0.0, 2.0, 3.0], [4.0, 0.0, 5.0], [0.0, 0.0, 0.0]]
    joined = join_latents([first, second])
    assert joined.n_latents == 4
    assert torch.equal(joined.to_dense(), codes.to_dense())
    assert torch.equal(joined.offsets, codes.offsets)


def test_joined_codes_of_fixed_length_know_it():
    one = SparseCodes.from_top_k(torch.tensor([[1], [0]]), torch.tensor([[1.0], [2.0]]), 2)
    two = SparseCodes.from_top_k(torch.tensor([[2, 0], [1, 2]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]), 3)
    joined = join_latents([one, two])
    assert (joined.k, joined.n_latents) == (3, 5)
    assert joined.to_dense().tolist() == [[0.0, 1.0, 4.0, 0.0, 3.0], [2.0, 0.0, 0.0, 5.0, 6.0]]


def test_the_first_tokens_of_codes():
    codes = codes_of([[1.0, 0.0], [2.0, 3.0], [0.0, 4.0]])
    assert codes.first(2).to_dense().tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert codes.first(9).to_dense().tolist() == codes.to_dense().tolist()


class Cheapest(SparsityRule):
    """The n largest of a batch, to see that a rule decides over its own group alone."""

    def begin_batch(self, batch_size):
        self.size = batch_size

    def select(self, latents_BF, importance_F=None):
        return SparseCodes.from_dense(latents_BF)

    def finish_batch(self, codes, importance_F=None):
        largest = codes.values.argmax()
        offsets = torch.zeros_like(codes.offsets)
        offsets[int(codes.rows[largest]) + 1 :] = 1
        return SparseCodes(
            codes.indices[largest][None], codes.values[largest][None], offsets, codes.n_latents
        )


class OfBatch(Cheapest):
    """Its k is an average over a batch, so that the rule itself takes any number."""

    counts = "k"


def test_each_level_has_its_own_rule():
    rules = LevelRules(lambda n: TopK(TopKConfig(k=1), n), (2, 4))
    codes = rules.select(torch.tensor([[3.0, 4.0, 1.0, 2.0], [9.0, 1.0, 8.0, 1.0]]))
    assert codes.to_dense().tolist() == [[0.0, 4.0, 0.0, 2.0], [9.0, 0.0, 8.0, 0.0]]
    assert (rules.fixed_k, rules.max_l0(), codes.k) == (2, 2, 2)

    batch = LevelRules(lambda n: Cheapest(ComponentConfig(), n), (2, 4))
    assert (batch.fixed_k, batch.max_l0()) == (None, None)
    batch.begin_batch(2)
    kept = batch.finish_batch(batch.select(torch.tensor([[3.0, 4.0, 1.0, 2.0], [9.0, 1.0, 8.0, 1.0]])))
    assert kept.to_dense().tolist() == [[0.0, 0.0, 0.0, 0.0], [9.0, 0.0, 8.0, 0.0]]


def test_a_level_s_rule_keeps_its_share():
    rules = LevelRules(lambda n: TopK(TopKConfig(k=2), n), (4, 8, 16), shares=(1, 1, 2))
    assert [(rule.fixed_k, rule.n_latents) for rule in rules.each] == [(2, 4), (2, 4), (4, 8)]
    assert rules.fixed_k == 8
    third = LevelRules(lambda n: TopK(TopKConfig(k=1), n), (4, 8), shares=(1, 1 / 3))
    assert [rule.fixed_k for rule in third.each] == [1, 1]  # at least one
    targets = LevelRules(lambda n: L0(L0Config(target=3.0), n), (4, 12), shares=(1, 2))
    assert [rule.config.target for rule in targets.each] == [3.0, 6]
    priced = LevelRules(lambda n: L0(L0Config(coefficient=0.5), n), (4, 12), shares=(1, 2))
    assert [(rule.config.target, rule.config.coefficient) for rule in priced.each] == [(None, 0.5)] * 2


def test_a_level_that_is_too_small_for_its_rule_is_named():
    def refusal(make, **options):
        with pytest.raises(ConfigError) as caught:
            LevelRules(make, (4, 8, 16), **options).check_counts()
        return str(caught.value)

    its_own = "level 1 of 3 has 4 of the 16 latents and a sparsity rule of its own: "
    many = refusal(lambda n: OfBatch(TopKConfig(k=5), n), shares=(1, 1, 2))
    assert f"{its_own}k = 5 active latents per token, but there are only 4 latents" in many
    assert many.startswith("k: ")
    assert "allowed: 1 to 4\n  next:    give --sparsity.k of at most 4" in many

    def whole_groups(n):
        if n % 4 == 0:
            return OfBatch(TopKConfig(k=1), n)
        raise ConfigError(f"{n} latents do not divide")

    with pytest.raises(
        ConfigError, match=r"level 2 of 2 has 3 of the 7 latents(.|\n)*3 latents do not divide"
    ):
        LevelRules(whole_groups, (4, 7))
    LevelRules(lambda n: OfBatch(TopKConfig(k=4), n), (4, 8, 16), shares=(1, 1, 2)).check_counts()


def test_a_level_s_penalty_has_a_weight():
    codes = codes_of([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    norms = torch.tensor([1.0, 2.0, 4.0])
    # 0.01 / 2 tokens * (1 * 1 + 3 * 2) on the first level, 0.01 / 2 * 2 * 4 on the second
    rules = LevelRules(lambda n: L1(PlainConfig(), n), (2, 3), (1.0, 2.5))
    assert rules.penalty(codes, norms).item() == pytest.approx(0.035 + 2.5 * 0.04)
    free = LevelRules(lambda n: TopK(TopKConfig(k=1), n), (2, 3))
    assert free.penalty(codes, norms) is None
