"""One table of what can be plugged in: kind -> hook, base class, flag; and the slots of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    Attributes:
        name: singular, as in ``ComponentSpec.kind``.
        hook: the registration hook that lists components of this kind.
        base: ``"module:Class"`` that a component's target must be a subclass of.
        title: plural for tables and messages.
    """

    name: str
    hook: str
    base: str
    title: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("sae", "qsae_register_saes", "qsae_core.coders:MatrixCoder", "SAEs"),
        Kind("transcoder", "qsae_register_transcoders", "qsae_core.coders:MatrixCoder", "transcoders"),
        Kind("quantizer", "qsae_register_quantizers", "qsae_core.contracts:Quantizer", "quantizers"),
        Kind(
            "code_quantizer",
            "qsae_register_code_quantizers",
            "qsae_core.contracts:CodeQuantizer",
            "code quantizers",
        ),
        Kind(
            "activation",
            "qsae_register_activations",
            "qsae_core.contracts:Activation",
            "activations",
        ),
        Kind(
            "sparsity",
            "qsae_register_sparsity_rules",
            "qsae_core.contracts:SparsityRule",
            "sparsity rules",
        ),
        Kind("data", "qsae_register_data_sources", "qsae_core.contracts:DataSource", "data sources"),
        Kind("metric", "qsae_register_metrics", "qsae_core.contracts:Metric", "metrics"),
        Kind(
            "evaluation",
            "qsae_register_evaluations",
            "qsae_core.contracts:Evaluation",
            "evaluations",
        ),
        Kind("format", "qsae_register_formats", "qsae_core.contracts:CheckpointFormat", "formats"),
        Kind("kernel", "qsae_register_kernels", "qsae_core.contracts:KernelSet", "kernel sets"),
        Kind("tracker", "qsae_register_trackers", "qsae_core.contracts:Tracker", "trackers"),
    )
}


@dataclass(frozen=True)
class Slot:
    """A place in a run that takes one component: its config key and flag, and the kind that fits.

    Attributes:
        name: the YAML key and, with dashes, the flag (``encoder_quantizer`` -> ``--encoder-quantizer``).
        kind: the kind of component that goes there.
        default: the component used when neither the user nor the coder's default parts choose one.
        help: what the flag's help says.
    """

    name: str
    kind: str
    default: str | None
    help: str


SLOTS: dict[str, Slot] = {
    slot.name: slot
    for slot in (
        Slot("sae", "sae", None, "the sparse autoencoder to train"),
        Slot("transcoder", "transcoder", None, "the transcoder to train, instead of an SAE"),
        Slot("quantizer", "quantizer", "none", "how the decoder's weights are quantized"),
        Slot("encoder_quantizer", "quantizer", "none", "how the encoder's weights are quantized"),
        Slot("code_quantizer", "code_quantizer", "none", "how the values of codes are quantized"),
        Slot("activation", "activation", "relu", "the function of the pre-activations"),
        Slot("sparsity", "sparsity", "none", "the rule or penalty that makes the code sparse"),
        Slot("data", "data", "lm", "where the vectors come from"),
    )
}
CODER_SLOTS = ("sae", "transcoder")
QUANTIZER_SLOTS = ("quantizer", "encoder_quantizer", "code_quantizer")
"""Slots whose default leaves weights or codes as they are."""
HALF = "half"
"""The quantizer that stores floats of 16 bits; what was imported in 16 bits has it, where it is installed."""
PART_SLOTS = (*QUANTIZER_SLOTS, "activation", "sparsity")
LIST_SLOTS = {"metrics": "metric", "evaluate": "evaluation", "trackers": "tracker"}
"""Places that take any number of components: config key -> kind."""
LIST_DEFAULTS: dict[str, tuple[str, ...]] = {
    "metrics": ("reconstruction", "sparsity", "rate", "kappa"),
    "evaluate": ("reconstruction", "loss-recovered"),
    "trackers": (),
}
"""What stands there when nothing is chosen; a name that is not installed is left out with a note."""


def unquantized(components: Mapping[str, Any]) -> dict[str, Any]:
    """What quantizing begins with, instead of the quantizers of the coder: none; floats of 16 bits stay so.

    Args:
        components: slot -> block, of a resolved configuration.
    """
    slots = [slot for slot in QUANTIZER_SLOTS if slot in components]
    used = {slot: components[slot] for slot in slots if components[slot]["use"] == HALF}
    return {slot: used.get(slot, {"use": SLOTS[slot].default}) for slot in slots}
