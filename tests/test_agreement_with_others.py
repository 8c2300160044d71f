"""Metrics beside those of sae-lens 6.54 and SAEBench 0.6.0: the same where theirs are right, and both numbers
where they are not. Their formulas are written anew here, each with the function that it states."""

from __future__ import annotations

import argparse
import contextlib
import math
from typing import Any

import pytest
import torch
from qsae_evaluation_loss_recovered import LossRecoveredConfig
from qsae_evaluation_loss_recovered.evaluation import LossRecovered
from qsae_evaluation_loss_recovered.scoring import Totals
from qsae_evaluation_reconstruction import ReconstructionEvaluationConfig
from qsae_evaluation_reconstruction.evaluation import ReconstructionEvaluation
from qsae_metrics import ReconstructionConfig, SparsityConfig
from qsae_metrics.reconstruction import Reconstruction
from qsae_metrics.sparsity import Sparsity
from torch import Tensor

from qsae_core.coder_options import CoderConfig
from qsae_core.component import ComponentConfig
from qsae_core.conformance.evaluation import SHAPE, ReferenceCoder, ReferenceMetric
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.conformance.toy_data import ToyData
from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import Evaluation, Observation, SparseCodes, measure
from qsae_core.evaluation.evaluate import Outcome, evaluate
from qsae_core.evaluation.of_layers import WHOLE

Vectors = tuple[Tensor, Tensor]
"""x and x_hat of one batch."""


def ours(*batches: Vectors, codes: Tensor | None = None, legacy: bool = False) -> dict[str, float | None]:
    """Values of ``reconstruction`` and, of codes whose atoms are unit vectors, of ``sparsity``."""
    metrics: list[Any] = [Reconstruction(ReconstructionConfig(legacy=legacy))]
    metrics += [] if codes is None else [Sparsity(SparsityConfig())]
    sizes = [len(x) for x, _ in batches]
    parts = torch.zeros(sum(sizes), 1).split(sizes) if codes is None else codes.split(sizes)
    return measure(metrics, [observed(*batch, part) for batch, part in zip(batches, parts, strict=True)])


def observed(x: Tensor, x_hat: Tensor, latents: Tensor) -> Observation:
    return Observation(x, x_hat, SparseCodes.from_dense(latents.float()), torch.ones(latents.shape[1]))


def random_batches() -> list[Vectors]:
    """Of 40, 7 and 64 tokens, with a mean far from zero and an error that shrinks."""
    generator = torch.Generator().manual_seed(0)
    mean = 5 * torch.randn(12, generator=generator)
    batches = []
    for size in (40, 7, 64):
        x = mean + torch.randn(size, 12, generator=generator)
        batches.append((x, 0.9 * x + 0.3 * torch.randn(size, 12, generator=generator)))
    return batches


def random_codes(n_tokens: int = 111) -> Tensor:
    """20 latents, some of which never fire; negative values too."""
    generator = torch.Generator().manual_seed(1)
    fires = torch.rand(n_tokens, 20, generator=generator) < torch.linspace(0, 0.4, 20)
    return fires * torch.randn(n_tokens, 20, generator=generator)


KNOWN = (torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
"""The mean of x is (1, 2), the squares about it sum to 10, those of the error to 2."""


# --- where they are right


def explained_variance(batches: list[Vectors]) -> float:
    """sae-lens ``evals.ExplainedVarianceCalculator``: 1 - E||x - x_hat||^2 / (E||x||^2 - ||E x||^2)."""
    x, x_hat = (torch.cat(parts).double() for parts in zip(*batches, strict=True))
    variance = x.square().sum(1).mean() - x.mean(0).square().sum()
    return float(1 - (x - x_hat).square().sum(1).mean() / variance)


def test_explained_variance_is_that_of_sae_lens() -> None:
    values = ours(*random_batches())
    assert values["explained_variance"] == pytest.approx(explained_variance(random_batches()), rel=1e-10)
    assert values["fvu"] == pytest.approx(1 - explained_variance(random_batches()), rel=1e-10)
    assert ours(KNOWN)["explained_variance"] == pytest.approx(0.8)


def test_explained_variance_legacy_is_that_of_both() -> None:
    """Both, ``get_sparsity_and_variance_metrics``: each token by its deviation from its batch's mean."""
    per_token = [
        1 - (x - x_hat).square().sum(1) / (x - x.mean(0)).square().sum(1)
        for x, x_hat in ((x.double(), x_hat.double()) for x, x_hat in random_batches())
    ]
    values = ours(*random_batches(), legacy=True)
    assert values["explained_variance_legacy"] == pytest.approx(float(torch.cat(per_token).mean()), rel=1e-10)


def test_errors_and_norms_are_those_of_sae_lens() -> None:
    """sae-lens ``get_sparsity_and_variance_metrics``: ``mse``, ``cossim``, ``l2_ratio``."""
    x, x_hat = (torch.cat(parts).double() for parts in zip(*random_batches(), strict=True))
    values = ours(*random_batches())
    norms = x.norm(dim=1), x_hat.norm(dim=1)
    assert values["mse"] == pytest.approx(float((x - x_hat).square().sum(1).mean()), rel=1e-10)
    assert values["cosine"] == pytest.approx(float(((x * x_hat).sum(1) / (norms[0] * norms[1])).mean()))
    assert values["l2_ratio"] == pytest.approx(float((norms[1] / norms[0]).mean()), rel=1e-10)


def bias_of_batch(x: Tensor, x_hat: Tensor) -> float:
    """Both, ``get_sparsity_and_variance_metrics``: E||x_hat||^2 / E<x, x_hat> of one batch."""
    return float(x_hat.double().square().sum(1).mean() / (x.double() * x_hat.double()).sum(1).mean())


def test_relative_reconstruction_bias_of_one_batch_is_that_of_both() -> None:
    (batch, *_) = random_batches()
    assert ours(batch)["relative_reconstruction_bias"] == pytest.approx(bias_of_batch(*batch), rel=1e-10)


def test_sparsity_is_that_of_sae_lens() -> None:
    """sae-lens ``get_sparsity_and_variance_metrics``: ``l0`` counts what is not 0, ``l1`` sums magnitudes
    (of unit atoms), ``feature_density`` is the share of tokens; SAEBench ``calculate_misc_metrics``:
    ``freq_over_1_percent``, ``freq_over_10_percent``, ``frac_alive``."""
    codes = random_codes()
    values = ours(*random_batches(), codes=codes)
    fires = (codes != 0).double()
    density = fires.mean(0)
    assert values["l0"] == pytest.approx(float(fires.sum(1).mean()))
    assert values["l1"] == pytest.approx(float(codes.double().abs().sum(1).mean()))
    assert values["dead_fraction"] == pytest.approx(1 - float((density > 0).double().mean()))
    assert values["density_over_1pct"] == pytest.approx(float((density > 0.01).double().mean()))
    assert values["density_over_10pct"] == pytest.approx(float((density > 0.1).double().mean()))
    middle = density[density > 0].log10().quantile(0.5)
    assert values["log10_density_p50"] == pytest.approx(float(middle))


def kl_of_ours(p: Tensor, q: Tensor) -> float | None:
    totals, targets = Totals(), torch.zeros(len(p), dtype=torch.int64)
    totals.add([q.log_softmax(-1)], targets, [p.log_softmax(-1)])
    return totals.mean_kl(len(p))


def test_kl_is_that_of_sae_lens() -> None:
    """sae-lens ``evals._kl``: sum p (log p - log q), log q from log-softmax."""
    generator = torch.Generator().manual_seed(2)
    p, q = (torch.randn(9, 30, generator=generator).double() for _ in range(2))
    theirs = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    assert kl_of_ours(p.float(), q.float()) == pytest.approx(float(theirs), rel=1e-5)


# --- where they are not: SAEBench 0.6.0 (a) to (j), sae-lens 6.54 (f) and (g)


def test_a_explained_variance_is_centred() -> None:
    """SAEBench averages x^2 where the mean of x belongs, over all dimensions: 1 - R / (S - (S / d)^2)."""
    x, x_hat = KNOWN
    S, R = float(x.square().sum(1).mean()), float((x - x_hat).square().sum(1).mean())
    assert pytest.approx(16 / 15) == 1 - R / (S - (S / 2) ** 2)
    assert ours(KNOWN)["explained_variance"] == pytest.approx(0.8)
    assert ours((10 * x, 10 * x_hat))["explained_variance"] == pytest.approx(0.8)
    S, R = 100 * S, 100 * R
    assert pytest.approx(1 + 100 / 249_000) == 1 - R / (S - (S / 2) ** 2)  # its unit matters


def test_b_mse_is_divided_by_the_tokens_once() -> None:
    x, x_hat = KNOWN
    theirs = ((x - x_hat).square().sum(1) / len(x)).mean()
    assert (float(theirs), ours(KNOWN)["mse"]) == (0.5, 1.0)


SIGNED = torch.tensor([[-1.0, 0.0, 2.0]])
ONE = (torch.ones(1, 2), torch.ones(1, 2))


def test_c_l1_is_a_sum_of_magnitudes() -> None:
    assert (float(SIGNED.sum(1).mean()), ours(ONE, codes=SIGNED)["l1"]) == (1.0, 3.0)


def test_d_kl_is_finite_where_a_probability_underflows() -> None:
    p, q = torch.tensor([[0.0, -200.0]]), torch.tensor([[-200.0, 0.0]])
    theirs = (p.softmax(-1) * (p.softmax(-1).log() - q.softmax(-1).log())).sum()
    assert math.isnan(float(theirs))
    assert kl_of_ours(p, q) == pytest.approx(200)


def test_e_negative_values_count_in_the_density_too() -> None:
    """The first latent fires with -1, the third with 2: two of three are alive, and L0 is 2."""
    assert (SIGNED > 0).double().mean(0).tolist() == [0, 0, 1]
    values = ours(ONE, codes=SIGNED)
    assert (values["l0"], values["dead_fraction"]) == (2, pytest.approx(1 / 3))
    assert values["log10_density_p05"] == 0  # every latent that fires has the density 1


def test_f_what_is_not_defined_is_none_and_not_minus_one() -> None:
    """Both, ``replace_nans_with_negative_one``: firings / prompts of a dead latent."""
    heuristic = torch.zeros(1) / torch.zeros(1)
    assert [-1.0 if math.isnan(v) else v for v in heuristic.tolist()] == [-1.0]
    values = ours(ONE, codes=torch.zeros(1, 3))
    assert values["log10_density_p50"] is None
    assert values["explained_variance"] is None  # of a single vector


def test_h_the_bias_is_pooled_before_it_is_divided() -> None:
    first, second = (torch.ones(1, 1), torch.ones(1, 1)), (10 * torch.ones(1, 1), 5 * torch.ones(1, 1))
    assert (bias_of_batch(*first) + bias_of_batch(*second)) / 2 == 0.75
    assert ours(first, second)["relative_reconstruction_bias"] == pytest.approx(26 / 51)


# --- what is about whole evaluations: a toy model whose contexts begin with a special token


def toy() -> tuple[ReferenceCoder, ToyData]:
    data = ToyData(SHAPE, model=ToyLanguageModel(SHAPE.d_in))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        coder = ReferenceCoder(CoderConfig(n_latents=32), SHAPE, plain_parts(k=4))
        coder.initialize(data.next_batch(256))
    return coder.eval(), data


def found(*evaluations: Evaluation, n_tokens: int = 64) -> list[Outcome]:
    coder, data = toy()
    named = {str(number): evaluation for number, evaluation in enumerate(evaluations)}
    metrics = [ReferenceMetric(ComponentConfig())]
    outcomes = evaluate(coder, data, named, lambda: metrics, n_tokens=n_tokens, batch_size=32)
    return list(outcomes[WHOLE].values())


def test_g_zeros_replace_the_vectors_that_the_coder_replaces() -> None:
    """Both, ``get_recons_loss``: zeros stand at special tokens too, where the coder leaves vectors alone."""
    (outcome,) = found(LossRecovered(LossRecoveredConfig()))
    _, data = toy()
    model = ToyLanguageModel(SHAPE.d_in)
    (tokens,) = [tokens for tokens, _ in data.held_out_contexts(64, 10_000)]
    vectors = model.read(tokens, [model.SITE])[model.SITE]

    def mean_ce(zeroed: Tensor, scored: Tensor) -> float:
        logits = model._predicted(vectors.masked_fill(zeroed[..., None], 0.0))[:, :-1]
        ce = -logits.log_softmax(-1).gather(2, tokens.ids[:, 1:, None])[..., 0]
        return float(ce[scored].mean())

    everywhere, all_scored = torch.ones_like(tokens.counted), torch.ones_like(tokens.counted[:, 1:])
    counted = tokens.counted[:, :-1] & tokens.counted[:, 1:]
    assert outcome.result is not None
    zero = outcome.result.values["ce_zero"]
    clean = outcome.result.values["ce_clean"]
    assert zero is not None
    assert clean is not None
    assert zero == pytest.approx(mean_ce(tokens.counted, counted), rel=1e-5)
    theirs = mean_ce(everywhere, all_scored) - mean_ce(~everywhere, all_scored)
    alike = mean_ce(tokens.counted, all_scored) - mean_ce(~everywhere, all_scored)
    assert abs(theirs - alike) > 0.1  # special tokens alone make that much of the ablation's damage
    assert zero - clean != pytest.approx(theirs, rel=1e-2)


def test_i_tokens_that_are_left_out_are_not_counted() -> None:
    """SAEBench ``run_evals``, ``token_stats``: context size x batches x contexts of a batch."""
    (outcome,) = found(ReconstructionEvaluation(ReconstructionEvaluationConfig()))
    theirs = ToyLanguageModel.context * 8
    assert outcome.result is not None
    assert (theirs, outcome.result.values["n_tokens"]) == (72, 64)


class Faulty(ReconstructionEvaluation):
    """Raises something that no user can mend."""

    def start(self, context: Any) -> Any:
        raise RuntimeError("of its own making")


def test_j_a_fault_is_told_and_takes_nothing_else_with_it() -> None:
    """SAEBench ``multiple_evals`` logs an exception and goes on to the next SAE: nothing is written of this
    one, whatever was found before. Its flags are ``store_true``, so one whose default is true stays so."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compute_l2_norms", action="store_true", default=True)
    assert parser.parse_args([]).compute_l2_norms is True
    theirs: list[float] = []
    with contextlib.suppress(Exception):
        theirs = [1.0 / len(theirs)]
    config = ReconstructionEvaluationConfig()
    broken, sound = found(Faulty(config), ReconstructionEvaluation(config))
    assert theirs == []
    assert broken.result is None
    assert "of its own making" in str(broken.unavailable)
    assert sound.result is not None
    assert set(sound.result.values) == {"mse", "n_tokens"}  # the metrics that were chosen, and no others


# --- sae-lens itself, where it is installed


@pytest.mark.slow
def test_sae_lens_itself_gives_the_same() -> None:
    """``get_sparsity_and_variance_metrics`` and ``_kl`` on a standard SAE; the first token is left out."""
    sae_lens = pytest.importorskip("sae_lens")
    evals = pytest.importorskip("sae_lens.evals")
    scaler = pytest.importorskip("sae_lens.training.activation_scaler").ActivationScaler()
    config = sae_lens.StandardSAEConfig(d_in=6, d_sae=16)
    config.metadata.hook_name = "blocks.0.hook_resid_post"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sae = sae_lens.StandardSAE(config)
    x = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(4)) + 1

    class Stand:
        """A model and a store of one batch."""

        def run_with_cache(self, tokens: Tensor, **options: Any) -> tuple[None, dict[str, Tensor]]:
            return None, {config.metadata.hook_name: x}

        def get_batch_tokens(self, n: int) -> Tensor:
            return torch.arange(9).expand(3, 9)

    wanted = ("l2_norms", "sparsity_metrics", "variance_metrics", "featurewise_density_statistics")
    with torch.no_grad():
        theirs, of_latents = evals.get_sparsity_and_variance_metrics(
            sae,
            Stand(),
            Stand(),
            scaler,
            n_batches=1,
            eval_batch_size_prompts=3,
            model_kwargs={},
            ignore_tokens=[0],
            **{f"compute_{name}": True for name in wanted},
        )
        kept = x[:, 1:].flatten(0, 1)
        latents = sae.encode(kept)
        values = ours((kept, sae.decode(latents)), codes=latents, legacy=True)
    names = {name: name for name in ("explained_variance", "explained_variance_legacy", "mse", "l2_ratio")}
    names |= {"cossim": "cosine", "l0": "l0", "l1": "l1"}
    names |= {"relative_reconstruction_bias": "relative_reconstruction_bias"}
    for name, our_name in names.items():
        assert values[our_name] == pytest.approx(theirs[name], rel=1e-5), name
    density = SparseCodes.from_dense(latents).fired() / len(kept)
    assert density.tolist() == pytest.approx(of_latents["feature_density"])
    p, q = (torch.randn(5, 20, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6))
    assert kl_of_ours(p, q) == pytest.approx(float(evals._kl(p, q).mean()), rel=1e-5)
