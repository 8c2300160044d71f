"""The library's dictionary classes: the keys of their state dicts, and what they compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple


class DictClass(NamedTuple):
    """A class of dictionary_learning as a dense form under other names."""

    keys: tuple[str, ...]
    """In the order of its ``state_dict()``."""
    fields: Mapping[str, str]
    """Field of ``DenseForm`` -> key."""
    transposed: frozenset[str]
    """Fields that are stored the other way round."""
    subtracts_b_dec: bool
    trainer: str
    """The library's trainer of it."""
    numbers: tuple[str, ...] = ()
    """Keys that are no field; files from before January 2025 may be without ``k`` and ``threshold``."""

    def fits(self, keys: Collection[str]) -> bool:
        """Whether a state dict with these keys is of this class."""
        late = {"k", "threshold"} & set(self.numbers)
        return set(self.keys) - late <= set(keys) <= set(self.keys)


_LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
_MATRICES = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
_GATED = {"b_dec": "decoder_bias", "r_mag": "r_mag", "b_enc": "gate_bias", "b_mag": "mag_bias"}
_TOPK_KEYS = ("b_dec", "k", "threshold", "decoder.weight", "encoder.weight", "encoder.bias")
_TURNED, _W_ENC = frozenset({"W_dec"}), frozenset({"W_enc"})

DICT_CLASSES: dict[str, DictClass] = {
    "AutoEncoder": DictClass(
        ("bias", "encoder.weight", "encoder.bias", "decoder.weight"),
        {**_LINEAR, "b_dec": "bias"},
        _TURNED,
        True,
        "StandardTrainer",
    ),
    "AutoEncoderNew": DictClass(
        ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"),
        {**_LINEAR, "b_dec": "decoder.bias"},
        _TURNED,
        False,
        "StandardTrainerAprilUpdate",
    ),
    "GatedAutoEncoder": DictClass(
        ("decoder_bias", "r_mag", "gate_bias", "mag_bias", "encoder.weight", "decoder.weight"),
        {**_GATED, "W_enc": "encoder.weight", "W_dec": "decoder.weight"},
        _TURNED,
        True,
        "GatedSAETrainer",
    ),
    "JumpReluAutoEncoder": DictClass(
        (*_MATRICES, "threshold"), {**_MATRICES, "threshold": "threshold"}, _W_ENC, False, "JumpReluTrainer"
    ),
    "AutoEncoderTopK": DictClass(
        _TOPK_KEYS, {**_LINEAR, "b_dec": "b_dec"}, _TURNED, True, "TopKTrainer", ("k", "threshold")
    ),
    "BatchTopKSAE": DictClass(
        _TOPK_KEYS, {**_LINEAR, "b_dec": "b_dec"}, _TURNED, True, "BatchTopKTrainer", ("k", "threshold")
    ),
    "MatryoshkaBatchTopKSAE": DictClass(
        (*_MATRICES, "k", "threshold", "group_sizes"),
        _MATRICES,
        _W_ENC,
        True,
        "MatryoshkaBatchTopKTrainer",
        ("k", "threshold", "group_sizes"),
    ),
}
"""Name -> class."""
SPELLINGS = {"MatroyshkaBatchTopKSAE": "MatryoshkaBatchTopKSAE"}
"""What files from before 17 January 2025 say."""
BY_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
"""Classes whose latents are those above one threshold; below 0, it was never set, and all are."""


def classes_of(keys: Collection[str]) -> list[str]:
    """The names of the classes that have such a state dict."""
    return [name for name, dict_class in DICT_CLASSES.items() if dict_class.fits(keys)]
