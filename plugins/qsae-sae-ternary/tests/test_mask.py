"""The learned mask by hand: four columns, two of them kept in each row."""

import pytest
import torch
from qsae_sae_ternary import TernaryConfig
from qsae_sae_ternary.mask import LearnedMask
from qsae_sae_ternary.model import TernarySAE

from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.reference_parts import IdentityQuantizer, PlainConfig, SignQuantizer, plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError
from qsae_core.training.trainer import Trainer

PLAIN = PlainConfig()


def worked_example():
    weight = torch.tensor([[0.1, -0.9, 0.5, 0.2], [1.0, 0.3, -0.2, 0.4]])
    mask = LearnedMask((2, 4), 0.5)
    mask.begin(weight)
    return mask, weight


def test_it_begins_with_the_largest_weights_of_each_row():
    mask, weight = worked_example()
    assert mask.kept.int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    torch.testing.assert_close(weight, torch.tensor([[0, -0.9, 0.5, 0], [1.0, 0, 0, 0.4]]))


def test_the_smallest_weight_makes_room_where_the_gradient_is_largest():
    mask, weight = worked_example()
    gradient = torch.tensor([[-3.0, 9.0, 9.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    changed = mask.redraw(weight, gradient, 0.5)  # one of two
    # row 0 drops 0.5 in column 2 and admits column 0; row 1 has no gradient and stays
    assert mask.kept.int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 1]]
    assert weight[0].tolist() == pytest.approx([0.0, -0.9, 0.0, 0.0])
    assert weight[1].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.4])
    assert changed.int().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]


def test_the_share_falls_as_a_cosine():
    mask, _ = worked_example()
    # 0.15 (1 + cos(pi t / T)), T = 75 of 100 steps
    assert mask.share_at(0, 100) == pytest.approx(0.3)
    assert mask.share_at(25, 100) == pytest.approx(0.15 * 1.5)
    assert mask.share_at(75, 100) == pytest.approx(0.0)


def test_a_share_of_less_than_one_weight_changes_nothing():
    mask, weight = worked_example()
    before = weight.clone()
    assert not mask.redraw(weight, torch.ones(2, 4), 0.3).any()
    assert torch.equal(weight, before)
    full = LearnedMask((2, 4), 1.0)  # nothing is masked
    full.begin(weight)
    assert not full.redraw(weight, torch.ones(2, 4), 0.5).any()


def make(quantizer=IdentityQuantizer, width=32, **options):
    parts = plain_parts(k=4, quantizer=lambda shape: quantizer(PLAIN, shape))
    config = TernaryConfig(n_latents=16, normalize="none", rotate=False, **options)
    return TernarySAE(config, CoderShape(width, width), parts)


def trained(steps, on_step, density=0.5):
    torch.manual_seed(0)
    coder = make(mask_density=density, mask_every=100)
    data = torch.randn(32, 32)
    coder.initialize(Batch(data, data))
    trainer = Trainer(coder, TrainConfig(steps=steps, lr=1e-2, warmup=0.0, decay=0.0), "coder")
    for step in range(steps):
        x = torch.randn(32, 32)
        trainer.step(Batch(x, x), step)
        on_step(step + 1, coder, trainer)


def test_masked_weights_are_zero_after_every_step_and_the_density_stays():
    masks = {}

    def look(step, coder, trainer):
        kept = coder.mask.kept
        assert (coder.W_dec.master[~kept] == 0).all(), step
        assert kept.sum(1).tolist() == [16] * 16
        torch.testing.assert_close(coder.W_dec.master.norm(dim=1), torch.ones(16))
        moments = trainer.optimizer.state()
        for moment in ("exp_avg.W_dec.weight", "exp_avg_sq.W_dec.weight"):
            assert (moments[moment][~kept] == 0).all(), step
        masks[step] = kept.clone()

    trained(430, look)
    # of 16 weights a row, 3.8 at step 100 and 1.5 at step 200; 0.1 at step 300, and none later
    changes = [step for step in range(2, 431) if not torch.equal(masks[step], masks[step - 1])]
    assert changes == [100, 200]


def test_a_weight_that_returns_starts_without_a_past():
    def look(step, coder, trainer):
        if step == 99:
            look.before = coder.mask.kept.clone()
        if step == 100:
            changed = look.before != coder.mask.kept
            assert changed.any()
            assert (trainer.optimizer.state()["exp_avg.W_dec.weight"][changed] == 0).all()

    trained(300, look)


def test_the_mask_is_in_checkpoints_and_not_in_the_artifact():
    coder = make(mask_density=0.5)
    assert "mask.kept" in coder.state_dict()
    assert not [name for name in coder.export().tensors if name.startswith("mask")]
    assert make().mask is None


class Moved(SignQuantizer):
    """A grid that moves with the weights, and says so."""

    def grid(self):
        return None


@pytest.mark.parametrize("quantizer", [SignQuantizer, Moved])
def test_a_grid_that_has_no_zero_or_does_not_stay_is_refused(quantizer):
    with pytest.raises(ConfigError, match="has no zero"):
        make(quantizer, mask_density=0.5)
    make(quantizer)
