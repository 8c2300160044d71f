"""Fields made by ``option(default, "what it is", ...)`` in the reference: the default, and what it is."""

from __future__ import annotations

import ast
from typing import Any

import griffe


class Options(griffe.Extension):
    """Gives such a field the second argument as its docstring, and the first as its value."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for each attribute."""
        call = getattr(node, "value", None)
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "option" and len(call.args) > 1):
            return
        attr.value = ast.unparse(call.args[0])
        if attr.docstring is None:
            text = ast.literal_eval(call.args[1])
            attr.docstring = griffe.Docstring(text, lineno=node.lineno, parent=attr)
