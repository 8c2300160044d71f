"""What the reference takes from code beside docstrings."""

from __future__ import annotations

import ast
from typing import Any

import griffe


class Options(griffe.Extension):
    """Fields made by ``option(default, "what it is", ...)``, and constants that are set side by side."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Give such a field its second argument as docstring, and the first as value."""
        call = getattr(node, "value", None)
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "option" and len(call.args) > 1):
            return
        attr.value = ast.unparse(call.args[0])
        if attr.docstring is None:
            text = ast.literal_eval(call.args[1])
            attr.docstring = griffe.Docstring(text, lineno=node.lineno, parent=attr)

    def on_module_members(self, *, node: Any, mod: griffe.Module, **_: Any) -> None:
        """Make ``A, B = 1, 2`` two attributes, with the docstring below the line; griffe makes none of it."""
        for line, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Tuple):
                said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                _set_each(mod, line, str(below.value.value) if said else None)


def _set_each(mod: griffe.Module, line: ast.Assign, text: str | None) -> None:
    names, value = line.targets[0].elts, line.value  # type: ignore[attr-defined]
    values = (
        value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(names) else [value] * len(names)
    )
    for name, part in zip(names, values, strict=True):
        attribute = griffe.Attribute(name.id, value=ast.unparse(part), lineno=line.lineno)
        if text is not None:
            attribute.docstring = griffe.Docstring(text, lineno=line.lineno, parent=attribute)
        mod.set_member(name.id, attribute)
