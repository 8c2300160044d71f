"""compose: a RunConfig becomes a coder with its parts, seeded; faults of constructors have a place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from qsae_core import CoderConfig, ComponentConfig, ComponentSpec, option
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import compose_coder, compose_data, compose_metrics
from qsae_core.config.layers import Layer
from qsae_core.config.run import RunConfig, resolve
from qsae_core.conformance.reference_parts import IdentityCodes
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.coder import CoderShape, LossOutput, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.metric import Metric, Observation
from qsae_core.contracts.quantizer import Packed, PackedTensor, Quantizer
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError, DataError, PluginError
from qsae_core.registry import Provider, Registry

SHAPE = CoderShape(3, 3)


class NoConfig(ComponentConfig):
    """No options."""


class RuleConfig(ComponentConfig):
    """A rule."""

    k: int = option(2, "active latents", gt=0)


class Coder(MatrixCoder):
    """Draws one matrix and takes one of each part; no more is needed here."""

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.weight = torch.nn.Parameter(torch.randn(config.n_latents, shape.d_in))
        self.quantizer = parts.quantizer((config.n_latents, shape.d_out))
        self.encoder_quantizer = parts.encoder_quantizer((config.n_latents, shape.d_in))
        self.rule = parts.sparsity(config.n_latents)

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense(x @ self.weight.T)

    def decode(self, codes: SparseCodes) -> Tensor:
        return codes.to_dense() @ self.weight

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


class NeedsActivation(Coder):
    """Contradicts its spec, which says that it has no activation."""

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.activation = parts.activation(config.n_latents)


class Identity(Quantizer):
    """Leaves weights as they are."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        return weight_FD

    def pack(self, weight_FD: Tensor) -> Packed:
        raise NotImplementedError

    def unpack(self, packed: Packed) -> Tensor:
        raise NotImplementedError

    def packed_tensors(self) -> dict[str, PackedTensor]:
        raise NotImplementedError


class ReLU(Activation):
    """max(0, x)."""

    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        return torch.relu(pre_acts)


class Rule(SparsityRule):
    """Refuses k = 13."""

    def __init__(self, config: RuleConfig, n_latents: int) -> None:
        super().__init__(config, n_latents)
        if config.k == 13:
            raise ConfigError("13 brings bad luck", where="k")
        if config.k == 14:
            raise ConfigError("14 is not possible here")

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        return SparseCodes.from_dense(latents_BF)


class Source(DataSource):
    """Remembers how it was built."""

    d_in = d_out = 3
    model_name, layer = "none", "0"

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        if seed == 99:
            raise DataError("row 7 holds a NaN", where="x.npy")

    def next_batch(self, size: int) -> Batch:
        raise NotImplementedError

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Count(Metric):
    """Measures nothing."""

    def update(self, observation: Observation) -> None:
        pass

    def merge(self, other: Count) -> None:
        pass

    def compute(self) -> dict[str, float | None]:
        return {}

    def reset(self) -> None:
        pass


@pytest.fixture
def registry() -> Registry:
    def spec(
        kind: str, name: str, target: type, config: type[ComponentConfig] = NoConfig, **more: Any
    ) -> ComponentSpec:
        return ComponentSpec(kind, name, config, f"{__name__}:{target.__name__}", **more)

    registry = Registry()
    specs = [
        spec("sae", "plain", Coder, CoderConfig, default_parts={"sparsity": {"use": "rule"}}),
        spec("sae", "odd", NeedsActivation, CoderConfig, default_parts={"activation": None}),
        spec("transcoder", "skip", Coder, CoderConfig),
        spec("quantizer", "none", Identity),
        spec("activation", "relu", ReLU),
        spec("sparsity", "rule", Rule, RuleConfig),
        spec("code_quantizer", "none", IdentityCodes),
        spec("sparsity", "none", Rule, RuleConfig),
        spec("data", "lm", Source),
        spec("metric", "reconstruction", Count),
        spec("metric", "sparsity", Count, RuleConfig),
        ComponentSpec("sparsity", "absent", NoConfig, "no_such_module:Rule"),
    ]
    registry.add(Provider("p", "1"), specs)
    return registry


def config(registry: Registry, **tree: Any) -> RunConfig:
    sae = {} if "transcoder" in tree else {"sae": {"use": "plain", "n_latents": 20}}
    return resolve([Layer({**sae, **tree}, "my.yaml")], registry)


def test_the_coder_gets_its_options_shape_and_parts(registry: Registry) -> None:
    coder = compose_coder(config(registry, sparsity={"k": 4}), registry, SHAPE)
    assert isinstance(coder, Coder)
    assert (coder.config.n_latents, coder.shape) == (20, SHAPE)
    assert coder.quantizer.shape == (20, 3)
    assert coder.quantizer is not coder.encoder_quantizer
    assert (coder.rule.config, coder.rule.n_latents) == (RuleConfig(k=4), 20)


def test_the_seed_decides_the_weights(registry: Registry) -> None:
    def weight(seed: int) -> Tensor:
        torch.manual_seed(1234)  # whatever came before must not matter
        torch.rand(seed + 1)
        coder = compose_coder(config(registry, run={"seed": seed}), registry, SHAPE)
        assert isinstance(coder, Coder)
        return coder.weight.detach()

    assert torch.equal(weight(5), weight(5))
    assert not torch.equal(weight(5), weight(6))


def test_weights_may_have_a_seed_of_their_own_and_data_has_the_runs(registry: Registry) -> None:
    """``init_seed: 6`` draws the weights that ``seed: 6`` draws, and nothing else."""
    asked = config(registry, run={"seed": 5}, train={"init_seed": 6})
    ones = [compose_coder(c, registry, SHAPE) for c in (asked, config(registry, run={"seed": 6}))]
    assert all(isinstance(coder, Coder) for coder in ones)
    assert torch.equal(ones[0].weight, ones[1].weight)
    assert compose_data(asked, registry).seed == 5


def test_a_stored_coder_is_built_again_and_draws_nothing(registry: Registry) -> None:
    run = config(registry, sparsity={"k": 4})
    state = torch.get_rng_state()
    coder = compose_coder(run.coder_dict(), registry, SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(coder, Coder)
    assert coder.config == run.coder.options
    assert coder.rule.config == RuleConfig(k=4)
    assert set(run.coder_dict()) == {
        "sae",
        "quantizer",
        "encoder_quantizer",
        "code_quantizer",
        "activation",
        "sparsity",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": {"use": "rule", "k": -1}}, "coder.json: sparsity.k: Input should be greater than 0"),
        ({"sparsity": {"k": 1}}, "coder.json: sparsity: a block without 'use'"),
        ({"data": {"use": "lm"}}, "coder.json: unknown section 'data'"),
        ({"transcoder": {"use": "skip"}}, "coder.json: describes not exactly one SAE or transcoder"),
        ({"sparsity": {"use": "gone"}}, "coder.json: sparsity: unknown sparsity 'gone'"),
    ],
)
def test_a_stored_coder_that_does_not_fit(registry: Registry, change: dict[str, Any], message: str) -> None:
    stored = config(registry).coder_dict() | change
    with pytest.raises((ConfigError, PluginError)) as error:
        compose_coder(stored, registry, SHAPE, place="coder.json")
    assert str(error.value).startswith(message)


def test_an_sae_needs_equal_widths(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        compose_coder(config(registry), registry, CoderShape(3, 5))
    assert "the data goes from d=3 to d=5" in str(error.value)
    assert "--transcoder skip" in str(error.value)
    with pytest.raises(ConfigError, match="from 2 layers of d=3 to d=3"):
        compose_coder(config(registry), registry, CoderShape(3, 3, layers_in=2))
    coder = compose_coder(config(registry, transcoder="skip", sparsity="rule"), registry, CoderShape(3, 5))
    assert coder.shape.d_out == 5


def test_a_constructors_fault_has_the_place_of_the_option(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        compose_coder(config(registry, sparsity={"k": 13}), registry, SHAPE)
    assert str(error.value) == "my.yaml: sparsity.k: 13 brings bad luck"
    flags = Layer({"sparsity": {"k": 13}}, style="flags")
    run = resolve([Layer({"sae": {"use": "plain", "n_latents": 20}}, "my.yaml"), flags], registry)
    with pytest.raises(ConfigError) as error:
        compose_coder(run, registry, SHAPE)
    assert str(error.value) == "--sparsity.k: 13 brings bad luck"
    with pytest.raises(ConfigError) as error:
        compose_coder(config(registry, sparsity={"k": 14}), registry, SHAPE)
    assert str(error.value) == "sparsity 'rule': 14 is not possible here"


def test_a_target_that_cannot_be_imported_names_the_plugin(registry: Registry) -> None:
    with pytest.raises(PluginError, match="no_such_module") as error:
        compose_coder(config(registry, sparsity="absent"), registry, SHAPE)
    assert "of p 1" in str(error.value)


def test_a_coder_that_asks_for_a_part_which_it_says_it_lacks(registry: Registry) -> None:
    with pytest.raises(AssertionError, match="sae 'odd' says that it has no activation"):
        compose_coder(config(registry, sae="odd"), registry, SHAPE)


def test_data_gets_the_seed_and_the_device_and_keeps_its_own_places(registry: Registry) -> None:
    data = compose_data(config(registry, run={"seed": 7}), registry, device="cpu")
    assert (data.seed, data.device) == (7, "cpu")
    with pytest.raises(DataError, match=r"row 7") as error:
        compose_data(config(registry, run={"seed": 99}), registry)
    assert error.value.where == "x.npy"


def test_metrics_come_in_the_configs_order_and_fresh(registry: Registry) -> None:
    run = config(registry, metrics=[{"use": "sparsity", "k": 5}, "reconstruction"], evaluate=[])
    metrics = compose_metrics(run, registry)
    assert list(metrics) == ["sparsity", "reconstruction"]
    assert metrics["sparsity"].config == RuleConfig(k=5)
    assert compose_metrics(run, registry)["sparsity"] is not metrics["sparsity"]
