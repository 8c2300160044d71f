"""Layers of configuration -> one draft: which component goes where, with its options and their origins.

Precedence: schema default < the coder's default parts < the layers in their order (YAML, then flags). A
coder's default part counts where the user names no component for the slot; options alone change it.
Nothing is validated here but names; ``run_config`` validates the options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qsae_core.component import ComponentSpec
from qsae_core.config.draft import Draft, DraftConfig, lookup, split_block
from qsae_core.config.layers import Layer
from qsae_core.config.lists import merge_list, merge_section
from qsae_core.errors import ConfigError, PluginError
from qsae_core.kinds import CODER_SLOTS, LIST_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


@dataclass(frozen=True)
class _Given:
    """What one layer says of one slot: perhaps a component, and options."""

    layer: Layer
    slot: str
    use: str | None
    options: Mapping[str, Any]


def merge(layers: Sequence[Layer], registry: Registry, *, coder_required: bool = True) -> DraftConfig:
    """Merge layers, lowest precedence first.

    Args:
        coder_required: False while a command line is still being read: the coder may be missing, and so may
            a slot whose default is not installed.

    Raises:
        ConfigError: for a block of the wrong form, no coder or two, or a part that the coder has not.
        PluginError: for a component that is not installed.
    """
    draft = DraftConfig()
    given = {slot: [g for layer in layers if (g := _given(layer, slot))] for slot in SLOTS}
    coder_slot = _coder_slot(given, registry, coder_required)
    if coder_slot:
        draft.slots[coder_slot] = _merge_slot(coder_slot, given[coder_slot], registry, draft.notes)
    default_parts = _default_parts(draft.coder)
    for slot in SLOTS:
        if slot in CODER_SLOTS:
            continue
        if slot in default_parts.tree and default_parts.tree[slot] is None:
            _check_absent(given[slot], draft.coder)
            continue
        # a component that the user names starts from its own defaults, not from what the coder makes of it
        named = any(g.use for g in given[slot])
        defaults = None if named else _given(default_parts, slot)
        blocks = [*([defaults] if defaults else []), *given[slot]]
        if coder_required or _can_stand(slot, blocks, registry):
            draft.slots[slot] = _merge_slot(slot, blocks, registry, draft.notes)
    for section, kind in LIST_SLOTS.items():
        draft.lists[section] = merge_list(section, kind, layers, registry, draft.notes)
    for section_draft in (draft.train, draft.run):
        merge_section(section_draft, layers)
    return draft


def _given(layer: Layer, slot: str) -> _Given | None:
    block = layer.tree.get(slot)
    if block is None:
        return None
    use, options = split_block(block, layer.place(slot))
    return _Given(layer, slot, use, options)


def _coder_slot(given: Mapping[str, list[_Given]], registry: Registry, required: bool) -> str | None:
    present = {slot: given[slot][-1].layer.place(slot) for slot in CODER_SLOTS if given[slot]}
    if len(present) > 1:
        raise ConfigError(
            f"an SAE and a transcoder are both chosen ({', '.join(present.values())}); a run trains one",
            next="leave one of them out",
        )
    chosen = next(iter(present), None)
    if chosen and any(g.use for g in given[chosen]):
        return chosen
    if not required:
        return None
    saes, transcoders = registry.names("sae"), registry.names("transcoder")
    raise ConfigError(
        "no SAE and no transcoder is chosen",
        where=present.get(chosen) if chosen else None,
        allowed=f"--sae {' | '.join(saes) or '(none installed)'}"
        + (f"; --transcoder {' | '.join(transcoders)}" if transcoders else ""),
        next=f"qsae train --sae {saes[0]}"
        if saes
        else "pip install a qsae-sae-* plugin; see qsae list-plugins",
    )


def _can_stand(slot: str, blocks: Sequence[_Given], registry: Registry) -> bool:
    """Whether a user chose the slot's component, or what it falls back to is installed."""
    if any(g.use and not g.layer.fallback for g in blocks):
        return True
    use = next((g.use for g in reversed(blocks) if g.use), SLOTS[slot].default)
    return use in registry.names(SLOTS[slot].kind)


def _default_parts(coder: Draft | None) -> Layer:
    """The parts that the coder takes by itself, as the lowest layer."""
    if coder is None or coder.spec is None:
        return Layer({}, fallback=True)
    unknown = set(coder.spec.default_parts) - (set(SLOTS) - set(CODER_SLOTS))
    if unknown:
        raise PluginError(
            f"{coder.title} has default parts for unknown slots: {', '.join(sorted(unknown))}",
            allowed=", ".join(slot for slot in SLOTS if slot not in CODER_SLOTS),
            next="correct default_parts in the plugin's ComponentSpec",
        )
    return Layer(coder.spec.default_parts, f"default parts of {coder.title}", fallback=True)


def _check_absent(given: Sequence[_Given], coder: Draft | None) -> None:
    if given and coder and coder.spec:
        slot = given[0].slot
        raise ConfigError(
            f"{coder.title} has no {slot} to choose",
            where=given[-1].layer.place(slot),
            next=f"leave it out; qsae describe {coder.spec.kind} {coder.spec.name} lists its parts",
        )


def _merge_slot(slot: str, given: Sequence[_Given], registry: Registry, notes: list[str]) -> Draft:
    """One slot's component is the last one chosen. A user's options given beside another component stay
    where the chosen one has them too (``k`` of another rule); those of a fallback layer do not."""
    kind = SLOTS[slot].kind
    chooser = next((g for g in reversed(given) if g.use), None)
    use = chooser.use if chooser and chooser.use else SLOTS[slot].default
    assert use is not None  # only coders have no default, and _coder_slot has seen one
    chosen_at = chooser.layer.place(slot) if chooser else "default"
    spec = lookup(registry, kind, use, chosen_at if chooser else slot)
    draft = Draft((slot,), spec.config, spec, chosen_at=chosen_at)
    for g in given:
        beside = g.use if g.use != use else None
        if beside and g.layer.fallback:
            continue
        left_out = {o for o in g.options if beside and _belongs_to_other(registry, kind, beside, o, spec)}
        notes += [
            f"{g.layer.place(slot, option)} is left out: it belongs to {kind} '{beside}', "
            f"and {kind} '{use}' is chosen ({draft.chosen_at})"
            for option in g.options
            if option in left_out
        ]
        kept = {option: value for option, value in g.options.items() if option not in left_out}
        draft.give(kept, partial(g.layer.place, slot))
    return draft


def _belongs_to_other(registry: Registry, kind: str, other: str, option: str, spec: ComponentSpec) -> bool:
    if option in spec.config.model_fields:
        return False
    return other not in registry.names(kind) or option in registry.get(kind, other).config.model_fields
