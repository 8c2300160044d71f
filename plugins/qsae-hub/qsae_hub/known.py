"""What a repository's card says of one coder, from its config.json and metrics.json, or its coder.json.

These files may come from a repository that others write to; what is not there, or not of the kind that qsae
writes, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qsae_core.runs import CODER_SLOTS, coder_label, quantizers_of
from qsae_core.runs import measured_on as words_of_measured

VALUES = (
    ("fvu", "FVU", "{:.4f}"),
    ("cosine", "cosine", "{:.4f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead_fraction", "dead", "{:.1%}"),
    ("ce_recovered", "CE recovered", "{:.1%}"),
    ("kl", "KL", "{:.4f}"),
)
"""Values of evaluations that a card shows: name, heading, form."""
STORED = (("W_dec", "bits/weight, decoder"), ("W_enc", "encoder"))
"""Matrices of which a card says in how many bits they are stored: name, heading."""
MEASURED = (*(h for _, h, _ in VALUES), *(h for _, h in STORED), "bytes", "x smaller", "tokens")
"""Headings of numbers."""
ON_THE_HUB = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
"""Names of models there; old ones have no user."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Of components and distributions."""


@dataclass(frozen=True)
class Row:
    """A coder, or that of one layer, in numbers."""

    label: str
    entry: Mapping[str, Any]
    """Of ``metrics.json``."""

    def cells(self) -> dict[str, str]:
        """Heading -> text of what was measured, and what it takes on disk."""
        artifact, found = mapping(self.entry.get("artifact")), {}
        for name, heading, form in VALUES:
            value = self._value(name)
            if value is not None:
                found[heading] = form.format(value)
        bits = mapping(artifact.get("bits_per_weight"))
        for matrix, heading in STORED:
            if _number(bits.get(matrix)) is not None:
                found[heading] = f"{bits[matrix]:.2f}"
        for key, heading, form in (("bytes", "bytes", "{:,.0f}"), ("times_smaller", "x smaller", "{:.1f}")):
            if (number := _number(artifact.get(key))) is not None:
                found[heading] = form.format(number)
        tokens = self.tokens()
        return found | ({"tokens": tokens} if tokens else {})

    def tokens(self) -> str:
        """On how many vectors: ``32,768``, or ``32,768 (FVU, L0), 8,192 (KL)``."""
        by_count: dict[int, list[str]] = {}
        for name, heading, _ in VALUES:
            for values in mapping(self.entry.get("evaluations")).values():
                count = _number(mapping(values).get("n_tokens"))
                if count is not None and _number(mapping(values).get(name)) is not None:
                    by_count.setdefault(int(count), []).append(heading)
        if len(by_count) == 1:
            return f"{next(iter(by_count)):,}"
        return ", ".join(f"{count:,} ({', '.join(names)})" for count, names in by_count.items())

    def measured_on(self) -> str | None:
        """The sentence of qsae's own tables."""
        try:
            return words_of_measured(self.entry)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def _value(self, name: str) -> float | None:
        for values in mapping(self.entry.get("evaluations")).values():
            if (number := _number(mapping(values).get(name))) is not None:
                return number
        return None


@dataclass(frozen=True)
class Known:
    """One coder, or one for each layer, in a folder of a repository."""

    root: str
    config: Mapping[str, Any]
    """Slot -> block, and more, as ``config.json`` and ``coder.json`` have it."""
    source: Mapping[str, Any]
    """What is recorded of the vectors it is for."""
    metrics: Mapping[str, Any]
    descriptions: Mapping[str, Mapping[str, Any]]
    """Layer -> its ``coder.json``; a single coder's under the empty name."""

    @property
    def shapes(self) -> dict[str, Mapping[str, Any]]:
        """Layer -> widths and layers of its vectors."""
        return {layer: mapping(own.get("shape")) for layer, own in self.descriptions.items()}

    @property
    def distributions(self) -> list[str]:
        """Where its parts come from."""
        slots = [mapping(own.get("distributions")) for own in self.descriptions.values()]
        names = [_text(mapping(source).get("name")) for own in slots for source in own.values()]
        return [name for name in dict.fromkeys(names) if name and NAME.fullmatch(name)]

    @property
    def kind(self) -> str:
        """``sae`` or ``transcoder``."""
        return next((slot for slot in CODER_SLOTS if slot in self.config), "sae")

    @property
    def label(self) -> str:
        """Coder and quantizers, as ``ternary (ste)``."""
        slots = {
            slot: block for slot, block in self.config.items() if isinstance(mapping(block).get("use"), str)
        }
        return coder_label(self.use(self.kind), quantizers_of(slots))

    def use(self, slot: str) -> str:
        """The component of a slot."""
        return _text(mapping(self.config.get(slot)).get("use")) or "?"

    def option(self, slot: str, name: str) -> Any:
        """An option of it, None where it is not known."""
        return mapping(self.config.get(slot)).get(name)

    @property
    def model(self) -> str | None:
        """The language model, as the record names it."""
        return _text(self.source.get("model")) or _text(self.metrics.get("model"))

    @property
    def model_id(self) -> str | None:
        """Its name on the Hub; None where it is none."""
        model = _text(self.source.get("model"))
        if model is None:
            return None
        named = model.partition("@")[0]
        is_named = self.source.get("revision", self.source.get("imported_from")) is not None
        return named if is_named and ON_THE_HUB.fullmatch(named) else None

    @property
    def places(self) -> tuple[list[str], list[str]]:
        """Sites that are encoded, and that are reconstructed: ``9.resid_post``."""
        found = [self.source.get(name) for name in ("source_sites", "target_sites")]
        read, written = ([str(site) for site in sites] if isinstance(sites, list) else [] for sites in found)
        return read, written

    def rows(self) -> Iterator[Row]:
        """The coder, those of its layers, and its twin."""
        coders = mapping(self.metrics.get("coders"))
        names = {"coder": self.label, "float_twin": "full-precision twin, same size and budget"}
        for name, entry in coders.items():
            layers = mapping(mapping(entry).get("layers"))
            label = names.get(name, str(name))
            yield Row(f"{label}, {len(layers)} layers" if layers else label, mapping(entry))
            for layer, own in layers.items():
                yield Row(f"layer {layer}", mapping(own))


def known(root: str, record: Any, metrics: Any, descriptions: Mapping[str, Any]) -> Known:
    """From the files of a run, or from ``coder.json`` alone.

    Args:
        record, metrics: ``config.json`` and ``metrics.json``; None where there are none.
        descriptions: layer -> ``coder.json``.
    """
    own = {layer: mapping(description) for layer, description in descriptions.items()}
    first = next(iter(own.values()), {})
    config = mapping(first.get("config")) if record is None else mapping(record)
    source = mapping(first.get("source"))
    for name in ("source_sites", "target_sites"):
        sites = [mapping(description.get("source")).get(name) for description in own.values()]
        source = {**source, name: [site for of in sites if isinstance(of, list) for site in of]}
    return Known(root, config, source, mapping(metrics), own)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, if it is one; else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
