"""``qsae report --serve``: the report, and a view in it that reads texts and steers them.

Importing this needs no torch, and nothing but core.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Callable

from qsae_core.errors import ConfigError

NEEDED = ("qsae_splice", "qsae_data_lm")
"""Modules of the extra ``serve``."""


def run(
    path: pathlib.Path,
    html: Callable[[], str],
    *,
    port: int,
    layer: str | None = None,
    tokenizer: str | None = None,
    device: str = "auto",
) -> None:
    """Serve a report on this machine alone, until Ctrl-C; the address is printed.

    Args:
        path: of the coder, or of a run with one.
        html: makes the page; called once, before the language model is loaded.
        port: 0: one that is free.
        layer: whose coder is asked, where there is one for each of several; None: the first.
        tokenizer: folder or id, where the language model does not say where its own is.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: if the extra ``serve`` is not installed, the port cannot be had, or there is no such
            layer.
        QsaeError: if there is no coder of one site, no language model behind it, or no tokenizer.
    """
    missing = [name.replace("_", "-") for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} must be installed to serve a report",
            where="--serve",
            allowed="the report as a file, without --serve",
            next="pip install 'qsae-report[serve]'",
        )
    from qsae_report.serve.serving import serve

    serve(path, html, port=port, layer=layer, tokenizer=tokenizer, device=device)
