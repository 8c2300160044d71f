"""What a run needs before its first step: a device, its coder and the float twin, data that fits them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qsae_core.coder import CoderShape, SparseCoder
from qsae_core.compose import compose_coder
from qsae_core.config.run import Block, RunConfig
from qsae_core.data import Batch, DataSource
from qsae_core.errors import ConfigError
from qsae_core.kinds import QUANTIZER_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins

MAIN = "coder"
"""What a run calls the coder that was asked for."""
FLOAT_TWIN = "float_twin"
"""What a run calls the coder that it trains beside a quantized one."""


def resolve_device(device: str) -> str:
    """``auto`` -> ``cuda`` where there is one, else ``cpu``.

    Raises:
        ConfigError: if a GPU is asked for that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        kind, _, index = device.partition(":")
        known = kind == "cuda" and (index.isdecimal() or device == "cuda")
        if not known or int(index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device '{device}' is not there ({torch.cuda.device_count()} CUDA devices)",
                where="--device",
                allowed="auto, cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count())),
            )
    return device


def shape_of(data: DataSource) -> CoderShape:
    """The widths that a coder for this data needs."""
    return CoderShape(data.d_in, data.d_out, data.layers_in, data.layers_out)


def compose_pair(
    config: RunConfig, plugins: Plugins, shape: CoderShape
) -> dict[str, tuple[RunConfig, SparseCoder]]:
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


def float_twin(config: RunConfig, coder: SparseCoder, plugins: Plugins) -> RunConfig | None:
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
