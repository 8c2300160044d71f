"""Records of coders quantized after training, which are no recipe for training. Imports no torch."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from qsae_core.config.layers import Layer, flag
from qsae_core.config.settings import OF_FINETUNING, QuantizeConfig
from qsae_core.errors import ConfigError
from qsae_core.kinds import QUANTIZER_SLOTS
from qsae_core.results.run import Run


def check_trained(layer: Layer) -> None:
    """Refuse a record that ``qsae quantize`` wrote, where a configuration to train from is needed.

    Raises:
        ConfigError: with the command that makes such a run again.
    """
    made = _made(layer)
    if made is None:
        return
    raise ConfigError(
        f"this is the record of a coder that was quantized after training, from {made['path']}",
        where=layer.name,
        allowed="a configuration, or the record of a run that was trained",
        next=_command(made, layer.tree),
    )


def _made(layer: Layer) -> Mapping[str, Any] | None:
    made = layer.tree.get("quantized_from")
    if isinstance(made, Mapping):
        return {"path": made.get("path"), "method": made.get("method")}
    is_record = "completed_at" in layer.tree and pathlib.Path(layer.name).name == "config.json"
    return Run(pathlib.Path(layer.name).parent).quantized_from if is_record else None


def _command(made: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """``qsae quantize`` with all options of the record's quantizers, and those of the method that differ.

    ``none`` is said too: where nothing is, a source of 16 bits stays so.
    """
    blocks = {slot: tree[slot] for slot in QUANTIZER_SLOTS if isinstance(tree.get(slot), Mapping)}
    quantizers = [word for slot, block in blocks.items() for word in _of_slot(slot, block)]
    if all(block.get("use", "none") == "none" for block in blocks.values()):  # fine-tuned encoders alone
        return "qsae compare --sweep FILE, with a block `quantized` that has quantizer: none"
    return shlex.join(["qsae", "quantize", str(made["path"]), *quantizers, *_of_method(made["method"])])


def _of_slot(slot: str, block: Mapping[str, Any]) -> Iterator[str]:
    yield from (flag(slot), str(block.get("use", "none")))
    for option, value in block.items():
        if option != "use":
            said = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
            yield from ("--set", f"{slot}.{option}={said}")


def _of_method(method: Any) -> Iterator[str]:
    defaults = QuantizeConfig().model_dump(mode="json")
    given = method if isinstance(method, Mapping) else {}
    finetunes = bool(given.get("finetune") or given.get("alternate"))
    for option, default in defaults.items():
        without_effect = option in OF_FINETUNING and not finetunes
        value = default if without_effect else given.get(option, default)
        if option == "rotate" and value != default:
            yield "--rotate" if value else "--no-rotate"
        elif value != default:
            yield from ("--" + option.replace("_", "-"), str(value))
