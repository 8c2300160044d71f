"""Formats of published SAEs that have a layout of their own; they are read, not written."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class QwenScopeConfig(ComponentConfig):
    """Qwen-Scope: TopK SAEs of Qwen models, a file a layer."""


class LlamaScopeConfig(ComponentConfig):
    """Llama Scope: SAEs and transcoders of Llama 3.1 8B, a folder a layer."""


class LlamaScopeR1Config(ComponentConfig):
    """Llama Scope R1: JumpReLU SAEs of DeepSeek-R1-Distill-Llama-8B, a folder a layer."""


class GoodfireConfig(ComponentConfig):
    """Goodfire's ReLU SAEs of Llama 3.1 8B and 3.3 70B, one file."""


class DeepSeekR1Config(ComponentConfig):
    """qresearch's ReLU SAE of DeepSeek-R1-Distill-Llama-8B, one file."""


class OpenAIConfig(ComponentConfig):
    """OpenAI's SAEs of GPT-2, one file: those that do not normalise each token."""


class CkkissaneConfig(ComponentConfig):
    """ckkissane's SAEs of attention's z in every layer of GPT-2, and a crosscoder of two models."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register them."""
    formats = {
        "qwen-scope": (QwenScopeConfig, "qwen_scope:QwenScope"),
        "llama-scope": (LlamaScopeConfig, "llama_scope:LlamaScope"),
        "llama-scope-r1": (LlamaScopeR1Config, "llama_scope_r1:LlamaScopeR1"),
        "goodfire": (GoodfireConfig, "one_file:Goodfire"),
        "deepseek-r1": (DeepSeekR1Config, "one_file:DeepSeekR1"),
        "openai": (OpenAIConfig, "one_file:OpenAI"),
        "ckkissane": (CkkissaneConfig, "ckkissane:Ckkissane"),
    }
    return [
        ComponentSpec("format", name, config, f"qsae_formats_published.{target}")
        for name, (config, target) in formats.items()
    ]
