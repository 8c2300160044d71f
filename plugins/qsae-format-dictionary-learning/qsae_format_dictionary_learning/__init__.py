"""Format ``dictionary-learning``: ``ae.pt`` and ``config.json`` of the library dictionary_learning."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class DictionaryLearningConfig(ComponentConfig):
    """SAEs of dictionary_learning (Marks, Karvonen, Mueller): a state dict, and how it was trained."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``dictionary-learning``."""
    target = "qsae_format_dictionary_learning.checkpoint_format:DictionaryLearningFormat"
    return [ComponentSpec("format", "dictionary-learning", DictionaryLearningConfig, target)]
