"""The evaluation on a language model whose logits are its vectors, worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
import torch
from qsae_evaluation_loss_recovered import LossRecoveredConfig
from qsae_evaluation_loss_recovered.evaluation import LossRecovered
from qsae_evaluation_loss_recovered.scoring import Totals, log_probabilities, recovered, scored_positions
from qsae_evaluation_loss_recovered.splice import replacing_edit
from torch import Tensor

from qsae_core.coder_options import CoderConfig
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.component import ComponentConfig
from qsae_core.contracts.coder import CoderShape, LossOutput, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.language_model import Edits, LanguageModel, Site, TokenBatch, not_before
from qsae_core.evaluation.evaluate import Outcome, evaluate
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.plugins.records import load_plugins

BEFORE, SITE, AFTER = Site(0, "mlp_in"), Site(0, "mlp_out"), Site(0, "resid_post")
LN2, LN6 = math.log(2), math.log(6)


class LogitsAreVectors(LanguageModel):
    """A token's vector is its row of a table, and the logits of the next token are that vector.

    At the site before, the vector is a quarter of that.
    """

    name = "toy"

    def __init__(self, table: Tensor, predicts_next: bool = True) -> None:
        self.table, self._predicts_next = table, predicts_next
        self.passes: list[int] = []

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        found = {SITE: self.table[batch.ids], BEFORE: self.table[batch.ids] / 4}
        found[AFTER] = found[SITE] * 2
        return {site: found[site] for site in sites}

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        self.passes.append(batch.ids.numel())
        vectors = self.table[batch.ids]
        for site, edit in (edits or {}).items():
            assert site == SITE
            for read in edit.reads:
                if read == AFTER:
                    raise not_before(site, read, ["mlp_in", "mlp_out", "resid_post"])
            vectors = edit.replace(vectors, self.read(batch, edit.reads))
        return vectors

    @property
    def predicts_next(self) -> bool:
        return self._predicts_next


class Text(DataSource):
    """Contexts in which token 0 is special."""

    source_sites = target_sites = (SITE,)

    def __init__(self, model: LanguageModel | None, ids: list[list[int]], source: Site = SITE) -> None:
        super().__init__(ComponentConfig())
        self.model, self.ids, self.source_sites = model, torch.tensor(ids), (source,)  # type: ignore[misc]

    def language_model(self) -> LanguageModel | None:
        return self.model

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        assert self.model is not None
        whole = TokenBatch(self.ids, self.ids != 0, torch.ones_like(self.ids, dtype=torch.bool))
        counts = whole.counted.sum(1)
        needed = int((counts.cumsum(0) - counts < n_tokens).sum())
        at_once = max(1, batch_size // self.ids.shape[1])
        for start in range(0, needed, at_once):
            tokens = whole.rows(slice(start, min(start + at_once, needed)))
            found = self.model.read(tokens, [BEFORE, SITE, AFTER])
            x, y = (found[site][tokens.counted] for site in (*self.source_sites, SITE))
            y = x if self.source_sites == (SITE,) else y
            yield tokens, Batch(x, y, tokens.ids[tokens.counted])

    def next_batch(self, size: int) -> Batch:
        raise NotImplementedError

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


class Function(MatrixCoder):
    """A coder that reconstructs x as ``function(x)``, from latents for its positive and negative parts."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int, layers_in: int = 1) -> None:
        parts = Parts(*[cast(Any, None)] * len(Parts._fields))
        super().__init__(CoderConfig(n_latents=2 * width), CoderShape(width, width, layers_in), parts)
        self.function = function
        self.seen: list[int] = []

    def encode(self, x: Tensor) -> SparseCodes:
        self.seen.append(len(x))
        y = self.function(x)
        return SparseCodes.from_dense(torch.cat([y.relu(), (-y).relu()], 1))

    def decode(self, codes: SparseCodes) -> Tensor:
        positive, negative = codes.to_dense().chunk(2, dim=1)
        return positive - negative

    def atom_norms(self) -> Tensor:
        return torch.ones(self.n_latents)

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


def evaluated(coder: Function, data: DataSource, n_tokens: int, batch_size: int, **options: int) -> Outcome:
    evaluations = {"it": LossRecovered(LossRecoveredConfig(**options))}
    found = evaluate(coder, data, evaluations, list, n_tokens=n_tokens, batch_size=batch_size)
    return found[WHOLE]["it"]


TABLE = torch.tensor([[0.0, 0.0, 9.0], [0.0, LN2, 0.0], [0.0, LN6, 0.0]])
"""After token 1 the probabilities are (1, 2, 1) / 4, after token 2 they are (1, 6, 1) / 8."""
IDS = [[0, 1, 1, 2, 1]]
"""Scored: 1 -> 1, 1 -> 2, 2 -> 1. Not what follows the special token, nor the last one."""


def run(
    function: Callable[[Tensor], Tensor],
    *,
    ids: list[list[int]] = IDS,
    table: Tensor = TABLE,
    batch_size: int = 100,
    n_tokens: int = 10**6,
    source: Site = SITE,
    **options: int,
) -> dict[str, float | None]:
    data = Text(LogitsAreVectors(table), ids, source)
    return evaluated(Function(function, table.shape[1]), data, n_tokens, batch_size, **options).entry()


def test_by_hand() -> None:
    """The coder halves vectors: token 1 gives (1, sqrt 2, 1), token 2 (1, sqrt 6, 1), not normalised."""
    values = run(lambda x: x / 2)
    assert values["n_tokens"] == 3
    clean = (math.log(4 / 2) + math.log(4 / 1) + math.log(8 / 6)) / 3
    assert values["ce_clean"] == pytest.approx(clean, rel=1e-6)
    two, six = math.sqrt(2), math.sqrt(6)
    sae = (math.log((2 + two) / two) + math.log(2 + two) + math.log((2 + six) / six)) / 3
    assert values["ce_sae"] == pytest.approx(sae, rel=1e-6)
    assert values["ce_zero"] == pytest.approx(math.log(3), rel=1e-6)
    # the mean over the four counted vectors: (3 ln 2 + ln 6) / 4 = ln 48 / 4 in the middle
    m = 48**0.25
    ablated = (2 * math.log((2 + m) / m) + math.log(2 + m)) / 3
    assert values["ce_mean"] == pytest.approx(ablated, rel=1e-6)
    assert values["delta_ce"] == pytest.approx(sae - clean, rel=1e-5)
    assert values["ce_recovered"] == pytest.approx((math.log(3) - sae) / (math.log(3) - clean), rel=1e-5)
    assert values["ce_recovered_mean"] == pytest.approx((ablated - sae) / (ablated - clean), rel=1e-5)

    def kl(p: list[float], q: list[float]) -> float:
        return sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))

    after_1, after_2 = [1, 2, 1], [1, 6, 1]
    expected = (2 * kl(after_1, [1, two, 1]) + kl(after_2, [1, six, 1])) / 3
    assert values["kl"] == pytest.approx(expected, rel=1e-5)
    assert values["kl_zero"] == pytest.approx((2 * kl(after_1, [1] * 3) + kl(after_2, [1] * 3)) / 3, rel=1e-5)
    assert values["kl_mean"] == pytest.approx(
        (2 * kl(after_1, [1, m, 1]) + kl(after_2, [1, m, 1])) / 3, rel=1e-5
    )


def test_a_transcoder_takes_the_place_of_its_target() -> None:
    """It reads a quarter of the target: four times that is lossless, twice that is half of it."""
    lossless = run(lambda x: 4 * x, source=BEFORE)
    assert (lossless["ce_recovered"], lossless["kl"]) == (1, 0)
    assert run(lambda x: 2 * x, source=BEFORE) == run(lambda x: x / 2)
    edit = replacing_edit(torch.zeros(1, 3), torch.ones(1, 1, dtype=torch.bool), (BEFORE,), SITE)
    assert edit.reads == (BEFORE,)  # a model that computes it later refuses


def test_a_transcoder_whose_target_comes_before_its_source_is_not_spliced() -> None:
    values = run(lambda x: x / 2, source=AFTER)
    assert values.keys() == {"unavailable"}
    assert "the coder reads what comes after its target" in str(values["unavailable"])


def test_the_identity_recovers_everything() -> None:
    values = run(lambda x: x)
    assert values["ce_recovered"] == 1
    assert values["ce_recovered_mean"] == 1
    assert values["kl"] == 0
    assert values["delta_ce"] == 0


def test_zeros_recover_nothing() -> None:
    values = run(torch.zeros_like)
    assert values["ce_recovered"] == 0
    assert values["kl"] == values["kl_zero"]
    assert values["ce_sae"] == values["ce_zero"]


def test_worse_than_the_ablation_is_negative() -> None:
    assert cast(float, run(lambda x: -x)["ce_recovered"]) < 0


def test_an_ablation_that_does_no_damage_has_no_share() -> None:
    """Vectors of zeros: ablating them changes nothing. And vectors that mislead: ablating them helps."""
    harmless = run(lambda x: x, table=torch.zeros(3, 3))
    assert harmless["ce_recovered"] is None
    assert harmless["ce_recovered_mean"] is None
    assert harmless["ce_clean"] == pytest.approx(math.log(3))
    misleading = run(lambda x: x, table=torch.tensor([[0.0] * 3, [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]))
    assert misleading["ce_recovered"] is None
    assert recovered(1.0, 0.5, 1.0) is None
    assert recovered(None, 0.5, 0.1) is None
    assert recovered(1.0, 0.5, 0.0) == 0.5


def test_nothing_to_predict() -> None:
    for ids in ([[0, 1, 0, 1]], [[0, 0]], [[1], [1]]):
        values = run(lambda x: x, ids=ids)
        assert values.pop("n_tokens") == 0
        assert set(values.values()) == {None}


def test_a_diverged_coder_has_no_loss() -> None:
    values = run(lambda x: x * math.nan)
    assert values["ce_sae"] is None
    assert values["ce_recovered"] is None
    assert values["kl"] is None
    assert values["ce_clean"] is not None


def test_which_predictions_count() -> None:
    """Position t and the token after it both count: not what BOS (0) predicts, nor BOS itself."""
    ids = torch.tensor([[0, 5, 6, 7], [5, 6, 0, 7]])
    batch = TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))
    index, targets = scored_positions(batch)
    assert index.tolist() == [1, 2, 4]
    assert targets.tolist() == [6, 7, 6]


def test_what_begins_a_segment_is_not_predicted_from_the_segment_before() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    batch = TokenBatch(ids, everywhere, everywhere, segments=torch.tensor([[0, 0, 1, 1]]))
    index, targets = scored_positions(batch)
    assert (index.tolist(), targets.tolist()) == ([0, 2], [6, 8])


def test_special_tokens_pass_through() -> None:
    vectors = torch.arange(1.0, 13.0).reshape(2, 3, 2)
    counted = torch.tensor([[False, True, True], [True, False, True]])
    edited = replacing_edit(vectors[counted] + 100, counted, (SITE,), SITE).replace(vectors, {})
    assert torch.equal(edited[~counted], vectors[~counted])
    assert torch.equal(edited[counted], vectors[counted] + 100)
    assert vectors[0, 1].tolist() == [3, 4]


def test_half_precision_models_get_their_own_dtype_back() -> None:
    vectors = torch.randn(1, 4, 2, dtype=torch.bfloat16)
    counted = torch.ones(1, 4, dtype=torch.bool)
    edited = replacing_edit(vectors[counted].float(), counted, (SITE,), SITE).replace(vectors, {})
    assert edited.dtype is torch.bfloat16
    assert torch.equal(edited, vectors)


def test_the_mean_leaves_special_tokens_out() -> None:
    """Logits are (0, x), and the mean of x over 1, 4, 4 and 4 is 13 / 4, whatever special tokens have."""
    table = torch.tensor([[0.0, 100.0], [0.0, 1.0], [0.0, 4.0]])
    values = run(lambda x: x, ids=[[0, 1, 2], [0, 2, 2]], table=table[:, [0, 1, 1]])
    mean = torch.tensor([0.0, 13 / 4, 13 / 4]).log_softmax(0)
    assert values["ce_mean"] == pytest.approx(-mean[2].item(), rel=1e-6)


def test_passes_and_chunks_change_nothing() -> None:
    """Text that counts 1 to 6 in a circle, and a table that expects it."""
    generator = torch.Generator().manual_seed(0)
    ids = (torch.randint(0, 6, (12, 1), generator=generator) + torch.arange(50)) % 6 + 1
    ids[:, 0] = 0
    table = torch.randn(7, 7, generator=generator)
    table[torch.arange(7), [1, 2, 3, 4, 5, 6, 1]] += 4
    text = ids.tolist()
    whole = run(torch.relu, ids=text, table=table, positions_per_pass=10_000, batch_size=10_000)
    assert None not in whole.values()
    assert whole["n_tokens"] == 12 * 48
    for positions, batch_size in ((1, 7), (150, 64), (600, 1)):
        parts = run(torch.relu, ids=text, table=table, positions_per_pass=positions, batch_size=batch_size)
        assert parts == pytest.approx(whole, rel=1e-6)


def test_what_goes_through_at_once() -> None:
    """12 contexts of 50 at 150 positions: 3 contexts at a time, four ways; the coder takes what is read."""
    model = LogitsAreVectors(torch.randn(7, 7))
    coder = Function(torch.relu, 7)
    data = Text(model, torch.randint(1, 7, (12, 50)).tolist())
    evaluated(coder, data, 10**6, 10**6, positions_per_pass=150)
    assert model.passes == [150] * 4 * 4
    assert coder.seen == [600]  # for the mean; the losses are of the same
    model.passes.clear(), coder.seen.clear()
    evaluated(coder, data, 10**6, 64, positions_per_pass=150)
    assert model.passes == [50] * 12 * 4
    assert max(coder.seen) == 50


def test_no_more_contexts_than_needed() -> None:
    """Contexts of 3, 3 and 3 counted positions, 2 predictions each: 4 positions need two of them."""
    ids = [[0, 1, 1, 2], [0, 2, 1, 1], [0, 1, 2, 2]]
    for n_tokens, predictions in ((1, 2), (3, 2), (4, 4), (9, 6), (100, 6)):
        assert run(lambda x: x, ids=ids, n_tokens=n_tokens)["n_tokens"] == predictions
        assert run(lambda x: x, ids=ids, n_tokens=n_tokens, positions_per_pass=1)["n_tokens"] == predictions
        assert run(lambda x: x, ids=ids, tokens=n_tokens)["n_tokens"] == predictions


def test_losses_of_confident_predictions_are_exact() -> None:
    """log of a float32 softmax would be -inf here; log-softmax gives 200 nats."""
    totals = Totals()
    clean, spliced = torch.tensor([[[200.0, 0.0]]]), torch.tensor([[[0.0, 200.0]]])
    first = torch.tensor([0])
    totals.add(log_probabilities(spliced, first), first, log_probabilities(clean, first))
    assert totals.ce == 200
    assert totals.kl == 200


def test_tokens_that_cannot_come_cost_nothing() -> None:
    """A padded vocabulary has logits of -inf: 0 log 0 is 0."""
    totals = Totals()
    logits = torch.tensor([[[1.0, 1.0, -math.inf]]])
    first = torch.tensor([0])
    totals.add(log_probabilities(logits, first), torch.tensor([1]), log_probabilities(logits, first))
    assert totals.ce == pytest.approx(LN2)
    assert totals.kl == 0


def test_many_predictions_against_float64() -> None:
    """Some blocks of them, at places with gaps, the last block short; 300 of 9000 tokens cannot come."""
    generator = torch.Generator().manual_seed(0)
    clean = 3 * torch.randn(2, 60, 9000, generator=generator)
    spliced = clean + torch.randn(2, 60, 9000, generator=generator)
    clean[0, ..., 100:400] = spliced[0, ..., 100:400] = -math.inf
    index = torch.arange(120)[torch.arange(120) % 7 != 0]
    targets = torch.randint(400, 9000, (len(index),), generator=generator)
    log_p, log_q = (logits.flatten(0, 1)[index].double().log_softmax(-1) for logits in (clean, spliced))
    kl = (log_p.exp() * (log_p - log_q).nan_to_num(0)).sum(1)
    totals = Totals()
    blocks = list(log_probabilities(clean, index))
    assert len(blocks) > 2
    ce_N, kl_N = totals.add(log_probabilities(spliced, index), targets, blocks)
    torch.testing.assert_close(ce_N, -log_q[torch.arange(len(index)), targets], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(kl_N, kl, rtol=1e-5, atol=1e-6)
    assert (totals.ce, totals.kl) == (float(ce_N.sum()), float(kl_N.sum()))


# --- several layers


EARLY, LATE = Site(0, "resid_post"), Site(1, "resid_post")


class TwoLayers(LanguageModel):
    """The first site has a token's row of a table, the second twice what the first one has, and these are the
    logits."""

    name, predicts_next = "two", True  # type: ignore[assignment]

    def _run(self, batch: TokenBatch, edits: Edits) -> dict[Site, Tensor]:
        found: dict[Site, Tensor] = {}
        for site, computed in ((EARLY, lambda: TABLE[batch.ids]), (LATE, lambda: 2 * found[EARLY])):
            found[site] = computed()
            if site in edits:
                for other in edits[site].reads:
                    if other not in found:
                        raise not_before(site, other, ["resid_post"])
                read = {other: found[other] for other in edits[site].reads}
                found[site] = edits[site].replace(found[site], read)
        return found

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        found = self._run(batch, {})
        return {site: found[site] for site in sites}

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        return self._run(batch, edits or {})[LATE]


class TextOfTwo(Text):
    """The same contexts; vectors of both layers."""

    layers_in = layers_out = 2
    d_in = d_out = 3
    model_name, layer = "two", "0-1"
    target_sites = (EARLY, LATE)

    def __init__(self) -> None:
        super().__init__(TwoLayers(), IDS)
        self.source_sites = (EARLY, LATE)  # type: ignore[misc]

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        tokens = TokenBatch(self.ids, self.ids != 0, torch.ones_like(self.ids, dtype=torch.bool))
        found = cast(LanguageModel, self.model).read(tokens, [EARLY, LATE])
        x = torch.stack([found[site][tokens.counted] for site in (EARLY, LATE)], dim=1)
        yield tokens, Batch(x, x, tokens.ids[tokens.counted])


class Joint(Function):
    """A coder of both layers at once; ``function`` is of ``[B, 2, D]``.

    Args:
        reads: of each layer of y, the layers of x that it hangs on; these alone are given it while a model
            runs.
    """

    reads_layers = True

    def __init__(self, function: Callable[[Tensor], Tensor], reads: Sequence[tuple[int, ...]]) -> None:
        super().__init__(function, 3, layers_in=2)
        self.shape, self.reads = CoderShape(3, 3, 2, 2), reads

    def encode(self, x: Tensor) -> SparseCodes:
        y = self.function(x).flatten(1)
        return SparseCodes.from_dense(torch.cat([y.relu(), (-y).relu()], 1))

    def decode(self, codes: SparseCodes) -> Tensor:
        positive, negative = codes.to_dense().chunk(2, dim=1)
        return (positive - negative).unflatten(1, (2, 3))

    def layers_read(self, layer: int) -> tuple[int, ...]:
        return self.reads[layer]

    def reconstruct_layer(self, x: Tensor, layer: int) -> Tensor:
        assert x.shape[1] == len(self.reads[layer])
        assert x.isfinite().all()  # coders refuse others
        whole = torch.full((len(x), 2, 3), math.nan)
        whole[:, list(self.reads[layer])] = x
        return self.function(whole)[:, layer]


def of_two(coder: MatrixCoder | CoderSet) -> Mapping[str, Mapping[str, Outcome]]:
    evaluations = {"it": LossRecovered(LossRecoveredConfig())}
    return evaluate(coder, TextOfTwo(), evaluations, list, n_tokens=100, batch_size=100)


def test_coders_of_layers_each_read_what_the_one_before_has_left() -> None:
    """Halving in the first layer and then in the second leaves a quarter of the logits."""
    halves = CoderSet({"0": Function(lambda x: x / 2, 3), "1": Function(lambda x: x / 2, 3)})
    found = {name: outcomes["it"].entry() for name, outcomes in of_two(halves).items()}
    assert set(found) == {"", "0", "1"}
    doubled = {"table": 2 * TABLE}
    assert found[""]["ce_sae"] == pytest.approx(run(lambda x: x / 4, **doubled)["ce_sae"], rel=1e-6)
    for name in ("0", "1"):  # each alone: half of them
        assert found[name]["ce_sae"] == pytest.approx(run(lambda x: x / 2, **doubled)["ce_sae"], rel=1e-6)
    for name, values in found.items():
        assert values["ce_clean"] == pytest.approx(run(lambda x: x, **doubled)["ce_clean"], rel=1e-6), name
        assert values["ce_zero"] == pytest.approx(math.log(3), rel=1e-6), name
        assert values["ce_mean"] == pytest.approx(run(lambda x: x, **doubled)["ce_mean"], rel=1e-6), name


def test_a_coder_across_layers_runs_along_where_it_reads_no_later_one() -> None:
    """y_0 = x_0 / 2 and y_1 = x_0 + x_1 / 4, where x_1 = 2 x_0: of the untouched pass y_1 is 3/2 of x_0,
    of the one with y_0 in place of x_0 half of that."""

    def across(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] / 2, x[:, 0] + x[:, 1] / 4], dim=1)

    running = of_two(Joint(across, [(0,), (0, 1)]))[""]["it"].entry()
    assert running["ce_sae"] == pytest.approx(run(lambda x: 0.75 * x)["ce_sae"], rel=1e-6)
    untouched = of_two(Joint(across, [(0, 1), (0, 1)]))[""]["it"].entry()
    assert untouched["ce_sae"] == pytest.approx(run(lambda x: 1.5 * x)["ce_sae"], rel=1e-6)


def test_a_transcoder_of_layers_that_reads_a_later_one_is_not_spliced() -> None:
    """Where an autoencoder gives both layers what it made of the untouched pass."""
    backwards = Joint(lambda x: x / 2, [(0, 1), (0, 1)])
    backwards.is_autoencoder = False
    reason = of_two(backwards)[""]["it"].unavailable
    assert f"the coder reads what comes after its target: the edit at {EARLY} reads {LATE}" in str(reason)


def test_a_value_that_overflows_on_the_way_leaves_no_number() -> None:
    """y_0 = 3e38 x_0 fits float32 for 1 alone, and x_1 is twice that."""
    large = Joint(lambda x: torch.stack([3e38 * x[:, 0], x[:, 1] / 2], dim=1), [(0,), (0, 1)])
    values = of_two(large)[""]["it"].entry()
    assert values["ce_sae"] is None
    assert values["ce_clean"] == pytest.approx(run(lambda x: x, table=2 * TABLE)["ce_clean"], rel=1e-6)


def unavailable(data: DataSource, coder: Function) -> str | None:
    return evaluated(coder, data, 10, 10).unavailable


def test_where_it_cannot_run() -> None:
    model, coder = LogitsAreVectors(TABLE), Function(lambda x: x, 3)
    assert unavailable(Text(model, IDS), coder) is None
    assert "no language model" in str(unavailable(Text(None, IDS), coder))
    assert "toy is an encoder" in str(unavailable(Text(LogitsAreVectors(TABLE, False), IDS), coder))
    no_site = Text(model, IDS)
    no_site.source_sites = no_site.target_sites = ()  # type: ignore[misc]
    assert "does not say from which sites" in str(unavailable(no_site, coder))
    assert "does not say" in str(unavailable(Text(model, IDS), Function(lambda x: x, 3, layers_in=2)))
    choosing = Function(lambda x: x, 3)
    choosing.chooses_layer = True  # type: ignore[misc]
    assert "another one for each token" in str(unavailable(Text(model, IDS), choosing))


@pytest.fixture(scope="module")
def language_model_data() -> Iterator[DataSource]:
    """The data source ``lm`` with its built-in model, where that plugin is installed."""
    registry = load_plugins().registry
    if "lm" not in registry.names("data"):
        pytest.skip("no data source 'lm' is installed")
    spec = registry.get("data", "lm")
    data = registry.load_target(spec)(spec.config(), seed=0, device="cpu")
    yield data
    data.close()


def test_on_a_real_language_model(language_model_data: DataSource) -> None:
    """The identity is lossless to the last bit, zeros recover nothing, and noise lies between."""
    data = language_model_data

    def measure(function: Callable[[Tensor], Tensor]) -> dict[str, float | None]:
        return evaluated(Function(function, data.d_out), data, 1000, 256).entry()

    identity, zeros = measure(lambda x: x), measure(torch.zeros_like)
    assert identity["ce_recovered"] == 1
    assert identity["kl"] == 0
    assert zeros["ce_recovered"] == 0
    assert zeros["kl"] == zeros["kl_zero"]
    assert 900 <= cast(float, identity["n_tokens"]) <= 1300
    # a language model worth the name is far better than one whose hidden states were taken away
    assert cast(float, identity["ce_clean"]) < cast(float, identity["ce_zero"]) - 1
    noisy = measure(lambda x: x + 0.3 * x.std() * torch.randn_like(x))
    assert 0 < cast(float, noisy["ce_recovered"]) < 1
    assert 0 < cast(float, noisy["kl"]) < cast(float, noisy["kl_zero"])
