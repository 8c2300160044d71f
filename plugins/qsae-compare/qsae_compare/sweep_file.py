"""What a sweep's file says: the layers of each of its runs. Importing this needs no torch.

base: topk.yaml                     # a configuration, relative to this file; or its sections themselves
config:                             # changes for all runs, as in any configuration
  train: {tokens: 400_000}
grid:                               # every combination of these values
  sae.n_latents: [1024, 2048]
variants:                           # with every one of these, by name
  float: {quantizer: none}
  4bit: {quantizer: {use: ste, n_bits: 4}}
quantized:                          # runs of a variant, quantized after training as by `qsae quantize`
  gptq: {of: float, quantizer: {use: gptq, n_bits: 4}, finetune: encoder}
seeds: [0, 1, 2]
out: results/sweep
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsae_core.errors import ConfigError, did_you_mean
from qsae_core.runs import (
    QUANTIZER_SLOTS,
    Layer,
    QuantizeConfig,
    check_section,
    check_trained,
    checked_layer,
    checked_options,
    parse_yaml,
    read_layer,
)

KEYS = ("base", "config", "grid", "variants", "quantized", "seeds", "out")


@dataclass(frozen=True)
class Quantized:
    """What becomes of a trained run.

    Attributes:
        source: label of its configuration.
        quantizers: the layer that chooses them; slots that it does not name have none.
        method: how.
    """

    source: str
    quantizers: Layer
    method: QuantizeConfig


@dataclass(frozen=True)
class Asked:
    """One configuration that a sweep asks for, of every seed.

    Attributes:
        label: its name without the seed.
        layers: what it sets, over the base.
        quantized: of a run that is quantized after training; None: it is trained.
    """

    label: str
    layers: tuple[Layer, ...]
    quantized: Quantized | None = None


def parse(path: pathlib.Path) -> Mapping[str, Any]:
    """The file's tree, of known keys.

    Raises:
        ConfigError: if it cannot be read, or is no sweep.
    """
    return _checked(_read(path), str(path))


def _read(path: pathlib.Path) -> Any:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the sweep cannot be read: {error}", where=str(path)) from error


def _checked(tree: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(tree, Mapping):
        raise ConfigError("a sweep is a mapping", where=name, allowed=", ".join(KEYS))
    for key in tree:
        if key not in KEYS:
            raise ConfigError(
                f"a sweep has no {str(key)!r}{did_you_mean(str(key), KEYS)}",
                where=name,
                allowed=", ".join(KEYS),
            )
    if "base" not in tree and "config" not in tree:
        raise ConfigError("a sweep needs a base: a configuration", where=name, next="base: topk.yaml")
    return tree


def _layer(tree: Any, place: str) -> Layer:
    layer = checked_layer(tree, place)
    check_places(layer, {})
    return layer


def check_places(layer: Layer, sweep: Mapping[str, Any]) -> None:
    """Refuse what a sweep decides for every run: its place and seed, and values that the grid varies."""
    for path in (("run", own) for own in ("seed", "name", "out")):
        if _sets(layer.tree, path):
            raise ConfigError(
                "a sweep gives every run its own", where=layer.place(*path), allowed="seeds, out"
            )
    for key in sweep.get("grid") or {}:
        varied = str(key).split(".")
        if _sets(layer.tree, varied):
            raise ConfigError(
                "the grid varies this, and runs are named after its values",
                where=layer.place(*varied),
                next=f"change grid: {key} in the sweep's file",
            )


def _sets(tree: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def base(tree: Mapping[str, Any], path: pathlib.Path) -> list[Layer]:
    """The layers that all runs begin with."""
    block, name = tree.get("base"), str(path)
    layers = [] if block is None else [_of_base(block, path)]
    return layers + ([_layer(tree["config"], f"{name}: config")] if "config" in tree else [])


def _of_base(block: Any, path: pathlib.Path) -> Layer:
    if not isinstance(block, str):
        return _layer(block, f"{path}: base")
    layer = read_layer(path.parent / block)
    check_trained(layer)
    return layer


def seeds(tree: Mapping[str, Any], name: str) -> Sequence[int]:
    """The seeds of every run; 0 where none is given."""
    found = tree.get("seeds", [0])
    whole = isinstance(found, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in found)
    if not whole or not found or len(set(found)) < len(found):
        raise ConfigError(f"a list of different seeds is needed (got {found!r})", where=f"{name}: seeds")
    return list(found)


def combinations(tree: Mapping[str, Any], name: str) -> Iterator[Asked]:
    """Every combination: variant by variant, and within it through the grid; then what is quantized."""
    blocks = {key: tree.get(key) or {} for key in ("grid", "variants", "quantized")}
    for key, block in blocks.items():
        if not isinstance(block, Mapping):
            raise ConfigError(f"a mapping is needed here (got {block!r})", where=f"{name}: {key}")
    axes = [_axis(str(key), values, name) for key, values in blocks["grid"].items()]
    named = {str(v): _layer(block, f"{name}: variants.{v}") for v, block in blocks["variants"].items()}
    for layer in named.values():
        check_places(layer, tree)
    if not axes and not named:
        raise ConfigError("there is nothing to vary", where=name, allowed="grid, variants")
    points = list(itertools.product(*axes))
    for variant, own in named.items() or [("", None)]:
        for point in points:
            layers = [layer for _, layer in point]
            yield Asked(_label(variant, point), tuple([*layers, own] if own else layers))
    for title, block in blocks["quantized"].items():
        place = f"{name}: quantized.{title}"
        found = _quantized(block, place, list(named))
        for point in points:
            layers = [layer for _, layer in point] + ([named[found.source]] if found.source else [])
            of_point = dataclasses.replace(found, source=_label(found.source, point))
            yield Asked(_label(str(title), point), tuple(layers), of_point)


def _label(name: str, point: Sequence[tuple[str, Layer]]) -> str:
    return "-".join(part for part in (name, *(said for said, _ in point)) if part)


def _quantized(block: Any, place: str, variants: Sequence[str]) -> Quantized:
    """A block of ``quantized``; its source is a variant's name, empty where there is none."""
    if not isinstance(block, Mapping):
        raise ConfigError(f"a mapping is needed here (got {block!r})", where=place)
    given = {str(key): value for key, value in block.items()}
    source = given.pop("of", "" if not variants else None)
    if source not in (variants or [""]):
        raise ConfigError(
            "which variant is quantized?" if source is None else f"there is no variant {source!r}",
            where=f"{place}.of",
            allowed=", ".join(variants) or "nothing: this sweep has no variants",
        )
    slots = {slot: given.pop(slot) for slot in QUANTIZER_SLOTS if slot in given}
    if not slots:
        raise ConfigError("no quantizer is chosen", where=place, allowed=", ".join(QUANTIZER_SLOTS))
    method = checked_options("quantized", QuantizeConfig, given, place)
    if method.without_effect:
        raise ConfigError(
            "nothing is fine-tuned without finetune or alternate",
            where=f"{place}.{method.without_effect[0]}",
            next="add finetune: encoder, or leave this out",
        )
    return Quantized(source, _layer(slots, place), method)


def _axis(key: str, values: Any, name: str) -> list[tuple[str, Layer]]:
    """For each value of a dotted key: how names say it, and the layer that sets it."""
    place = f"{name}: grid"
    path = key.split(".")
    check_section(path[0], place)
    if not isinstance(values, list) or not values:
        raise ConfigError(f"a list of values is needed (got {values!r})", where=f"{place}.{key}")
    points = []
    for value in values:
        tree: Any = value
        for part in reversed(path):
            tree = {part: tree}
        points.append((f"{path[-1]}-{value}", _layer(tree, place)))
    return points
