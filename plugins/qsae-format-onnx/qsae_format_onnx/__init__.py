"""Trained coders in other people's code: format ``onnx``, ``PlainCoder``, ``delphi_coder``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qsae_core import ComponentConfig, ComponentSpec, hookimpl

if TYPE_CHECKING:
    from qsae_format_onnx.delphi import DelphiCoder, delphi_coder
    from qsae_format_onnx.plain import PlainCoder, TopK

__all__ = ["DelphiCoder", "PlainCoder", "TopK", "delphi_coder"]

_FROM = {"DelphiCoder": "delphi", "PlainCoder": "plain", "TopK": "plain", "delphi_coder": "delphi"}


def __getattr__(name: str) -> Any:
    """The public names, whose modules are imported when they are asked for: they need torch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


class OnnxConfig(ComponentConfig):
    """A folder with encode.onnx, decode.onnx and export.json; written, and not read."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``onnx``."""
    return [ComponentSpec("format", "onnx", OnnxConfig, "qsae_format_onnx.checkpoint_format:OnnxFormat")]
