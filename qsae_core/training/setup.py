"""What a run needs before its first step: its coder and the float twin, and data that fits them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import compose_coder
from qsae_core.config.run import Block, RunConfig
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError
from qsae_core.kinds import QUANTIZER_SLOTS, SLOTS
from qsae_core.results.run import FLOAT_TWIN, MAIN

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


def compose_pair(
    config: RunConfig, plugins: Plugins, shape: CoderShape
) -> dict[str, tuple[RunConfig, MatrixCoder]]:
    """``MAIN`` and, where the run compares with one, ``FLOAT_TWIN`` -> the configuration and its coder."""
    coder = compose_coder(config, plugins.registry, shape)
    pair = {MAIN: (config, coder)}
    twin = float_twin(config, coder, plugins) if config.run.compare_float else None
    if twin is not None:
        pair[FLOAT_TWIN] = (twin, compose_coder(twin, plugins.registry, shape))
    return pair


def check_targets(config: RunConfig, batch: Batch) -> None:
    """Refuse data with targets of its own for a coder that reconstructs its input.

    Raises:
        ConfigError: which names the coder.
    """
    if config.coder_slot == "sae" and batch.y is not batch.x:
        raise ConfigError(
            f"SAE '{config.coder.use}' reconstructs its input, but the data has targets of its own",
            where="--data",
            allowed="data without targets, or a transcoder",
            next="qsae list-plugins shows the installed transcoders",
        )


def float_twin(config: RunConfig, coder: MatrixCoder, plugins: Plugins) -> RunConfig | None:
    """The same run without any quantizer, normalised alike; None where nothing is quantized anyway, or the
    coder has no slot for a quantizer and its weights are of few bits by themselves."""
    if not coder.is_quantized or "quantizer" not in config.components:
        return None
    components = dict(config.components)
    for slot in QUANTIZER_SLOTS:
        if slot in components:
            name = SLOTS[slot].default
            assert name is not None
            components[slot] = Block(name, plugins.registry.get(SLOTS[slot].kind, name).config())
    options = config.coder.options
    if getattr(options, "rotate", None) == "auto":
        rotated = options.model_copy(update={"rotate": True})
        components[config.coder_slot] = Block(config.coder.use, rotated)
    return replace(config, components=components)
