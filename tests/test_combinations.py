"""Any SAE with any quantizer, activation and sparsity rule trains, or is refused with a reason."""

import itertools

import numpy as np
import pytest

from qsae_core import training_run
from qsae_core.config_layers import checked_layer
from qsae_core.errors import ConfigError
from qsae_core.files import read_json
from qsae_core.plugins import load_plugins
from qsae_core.run_config import resolve
from tests.test_training_run import Silent

REGISTRY = load_plugins().registry
QUANTIZERS = [
    {"use": "none"},
    {"use": "ste", "grid": "ternary", "scale": "twn"},
    {"use": "ste", "grid": "ternary", "scale": "absmean", "granularity": "tensor"},
    {"use": "ste", "grid": "binary"},
    {"use": "ste", "n_bits": 3},
    {"use": "ste", "n_bits": 8, "scale": "absmax"},
]


def parts_of(sae):
    """Every combination that a user could give; None in a slot that the SAE does not have."""
    slots = {
        "quantizer": QUANTIZERS,
        "activation": REGISTRY.names("activation"),
        "sparsity": REGISTRY.names("sparsity"),
    }
    default_parts = REGISTRY.get("sae", sae).default_parts
    return itertools.product(*([None] if default_parts.get(s, {}) is None else slots[s] for s in slots))


PARTS = [(sae, *parts) for sae in REGISTRY.names("sae") for parts in parts_of(sae)]


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(48, 16))
    codes = rng.random((2048, 48)) * (rng.random((2048, 48)) < 0.08)
    path = tmp_path_factory.mktemp("states") / "states.npy"
    np.save(path, (codes @ atoms + 0.01 * rng.normal(size=(2048, 16))).astype(np.float32))
    return path


def name_of(value):
    return "-".join(str(v) for v in value.values()) if isinstance(value, dict) else value


@pytest.mark.parametrize(("sae", "quantizer", "activation", "sparsity"), PARTS, ids=name_of)
def test_it_trains_or_is_refused_with_a_reason(states, tmp_path, sae, quantizer, activation, sparsity):
    tree = {
        "sae": {"use": sae, "n_latents": 64},
        "quantizer": quantizer,
        "encoder_quantizer": quantizer or QUANTIZERS[-1],
        "activation": activation,
        "sparsity": {"use": sparsity} | ({"k": 6} if sparsity == "topk" else {}),
        "data": {"use": "tensors", "path": str(states)},
        "train": {"steps": 30, "batch_size": 128, "eval_every": 0, "eval_tokens": 128, "quantize_after": 0.2},
        "run": {"out": str(tmp_path), "device": "cpu", "compare_float": False, "threads": 1},
        "evaluate": ["reconstruction"],
    }
    tree = {section: block for section, block in tree.items() if block is not None}
    refusals = REGISTRY.get("sae", sae).refuses
    chosen = [("quantizer", (quantizer or {}).get("use")), ("activation", activation), ("sparsity", sparsity)]
    if any(part in refusals for part in chosen):
        with pytest.raises(ConfigError, match="cannot work with"):
            resolve([checked_layer(tree, "test")], REGISTRY)
        return
    config = resolve([checked_layer(tree, "test")], REGISTRY)
    watcher = Silent()
    done = training_run.train(config, load_plugins(), watcher)
    first, last = watcher.steps[0][1]["loss"], watcher.steps[-1][1]["loss"]
    assert last < first
    fvu = read_json(done.metrics_file)["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]
    assert np.isfinite(fvu)
