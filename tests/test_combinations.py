"""Any coder with any quantizer, activation and sparsity rule trains, or is refused with a reason."""

import itertools

import numpy as np
import pytest

from qsae_core.config.layers import checked_layer
from qsae_core.config.run import resolve
from qsae_core.errors import ConfigError
from qsae_core.kinds import CODER_SLOTS
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json
from qsae_core.training import run as training_run
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


def parts_of(kind, coder):
    """Every activation with every rule, every quantizer with every rule (of a transcoder: with its own rule);
    None where the coder has no slot."""
    slots = {
        "quantizer": QUANTIZERS,
        "activation": REGISTRY.names("activation"),
        "sparsity": REGISTRY.names("sparsity"),
    }
    default_parts = REGISTRY.get(kind, coder).default_parts
    quantizers, activations, rules = (
        [None] if default_parts.get(s, {}) is None else chosen for s, chosen in slots.items()
    )
    usual = (default_parts.get("activation") or {}).get("use")
    pairs = enumerate(itertools.product(activations, rules))
    found = [(quantizers[(n + n // len(rules)) % len(quantizers)], *parts) for n, parts in pairs]
    own = rules if kind == "sae" else [default_parts["sparsity"]["use"]]
    more = [(quantizer, usual, rule) for quantizer, rule in itertools.product(quantizers, own)]
    return found + [parts for parts in more if parts not in found]


PARTS = [
    (kind, coder, *parts)
    for kind in CODER_SLOTS
    for coder in REGISTRY.names(kind)
    for parts in parts_of(kind, coder)
]
N_LATENTS = {"matryoshka-transcoder": 128}
"""Where 64 would leave the first group fewer than k."""

LOWER_RATE = 0.01
"""For encoders that begin apart from their atoms; the automatic one is 0.03 for 20 steps of 64 latents."""
WITH_SKIP = ("topk", "l0", "none")
"""Rules with which transcoders have a skip connection."""
K = {"topk": 6, "batchtopk": 6, "groupmax": 4}
"""Small enough for the first groups of nested coders."""


def gates_missing(activation, sparsity):
    """Whether the rule prices the number of active latents and the activation has no gradient for it."""
    if activation is None:
        return False
    parts = ("sparsity", sparsity), ("activation", activation)
    targets = [REGISTRY.load_target(REGISTRY.get(*part)) for part in parts]
    return targets[0].needs_gates and not targets[1].has_gates


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(48, 16))
    codes = rng.random((2048, 48)) * (rng.random((2048, 48)) < 0.08)
    path = tmp_path_factory.mktemp("states") / "states.npy"
    states = (codes @ atoms + 0.01 * rng.normal(size=(2048, 16))).astype(np.float32)
    np.save(path, states)
    np.save(path.with_name("layers.npy"), np.stack([states, states[:, ::-1]], 1))
    targets = (codes @ rng.normal(size=(48, 12))).astype(np.float32)
    np.save(path.with_name("targets.npy"), targets)
    np.save(path.with_name("target_layers.npy"), np.stack([targets, targets[:, ::-1]], 1))
    return path


def name_of(value):
    return "-".join(str(v) for v in value.values()) if isinstance(value, dict) else value


@pytest.mark.parametrize(("kind", "coder", "quantizer", "activation", "sparsity"), PARTS, ids=name_of)
def test_it_trains_or_is_refused_with_a_reason(
    states, tmp_path, kind, coder, quantizer, activation, sparsity
):
    layered = REGISTRY.load_target(REGISTRY.get(kind, coder)).reads_layers
    data = (
        {"path": str(states.with_name("layers.npy")), "middle": "layers"}
        if layered
        else {"path": str(states)}
    )
    file = states.with_name("target_layers.npy" if layered else "targets.npy")
    targets = {"target_path": str(file)} if kind == "transcoder" else {}
    skip = {"skip": sparsity in WITH_SKIP} if kind == "transcoder" else {}
    tree = {
        kind: {"use": coder, "n_latents": N_LATENTS.get(coder, 64), **skip},
        "quantizer": quantizer,
        "encoder_quantizer": quantizer or QUANTIZERS[-1],
        "activation": activation,
        "sparsity": {"use": sparsity} | ({"k": K[sparsity]} if sparsity in K else {}),
        "data": {"use": "tensors", **data, **targets},
        "train": {
            "steps": 20,
            "batch_size": 1900,
            "eval_every": 0,
            "eval_tokens": 128,
            "quantize_after": 0.2,
            "lr": "auto" if kind == "sae" else LOWER_RATE,
        },
        "run": {"out": str(tmp_path), "device": "cpu", "compare_float": False, "threads": 1},
        "evaluate": ["reconstruction"],
    }
    tree = {section: block for section, block in tree.items() if block is not None}
    refusals = REGISTRY.get(kind, coder).refuses
    chosen = [("quantizer", (quantizer or {}).get("use")), ("activation", activation), ("sparsity", sparsity)]
    if any(part in refusals for part in chosen):
        with pytest.raises(ConfigError, match="cannot work with"):
            resolve([checked_layer(tree, "test")], REGISTRY)
        return
    config = resolve([checked_layer(tree, "test")], REGISTRY)
    if gates_missing(activation, sparsity):
        with pytest.raises(
            ConfigError, match=f"'{sparsity}' prices .* activation '{activation}' has no gradient for it"
        ):
            training_run.train(config, load_plugins(), Silent())
        return
    watcher = Silent()
    done = training_run.train(config, load_plugins(), watcher)
    losses = [step[1]["loss"] for step in watcher.steps]
    assert np.isfinite(losses).all()
    target = None if activation is None else REGISTRY.load_target(REGISTRY.get("activation", activation))
    surrogate = target is not None and target.straight_through
    # nor is that of one bit a weight on both sides, of which neither is the other's transpose
    surrogate |= kind == "transcoder" and (quantizer or {}).get("grid") == "binary"
    begun = 0 if quantizer is None else 4  # where training passes through the quantizer
    later = min(losses[begun + 1 :]) if surrogate else losses[-1]  # a surrogate's slope is not the loss's
    assert later < losses[begun]
    fvu = read_json(done.metrics_file)["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]
    assert np.isfinite(fvu)
