"""Provenance: which vectors of which language model a coder is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL, LAYER, SOURCE, TARGET = "model", "layer", "source_sites", "target_sites"
CONTEXT, DATASET = "context", "dataset"
USUAL_SITE = "resid_post"
"""That ``lm`` reads where a layer alone is named."""


@dataclass(frozen=True)
class Provenance:
    """Which vectors of which language model a coder is for, in this framework's words; None or nothing where
    it is not known, or has no word here."""

    model: str | None = None
    """A name on the Hugging Face Hub, or a path, as the data source ``lm`` takes it."""
    sources: tuple[str, ...] = ()
    """Places that are encoded, as ``8.mlp_in``: a layer and one of ``SITE_NAMES``."""
    targets: tuple[str, ...] = ()
    """Places that are reconstructed; of an autoencoder its sources."""
    context: int | None = None
    """Tokens of a context in training."""
    dataset: str | None = None
    """A data set's name on the Hub, or what the text was."""

    @classmethod
    def at(cls, layer: int, site: str, target_site: str | None = None, **known: Any) -> Provenance:
        """Of a coder of one layer."""
        source = f"{layer}.{site}"
        return cls(sources=(source,), targets=(f"{layer}.{target_site}" if target_site else source,), **known)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Provenance:
        """From the ``source`` of a stored coder."""

        def known(name: str, kind: type) -> Any:
            value = record.get(name)
            return value if isinstance(value, kind) and not isinstance(value, bool) else None

        sources, targets = (tuple(map(str, known(name, list) or ())) for name in (SOURCE, TARGET))
        return cls(known(MODEL, str), sources, targets, known(CONTEXT, int), known(DATASET, str))

    @classmethod
    def of_data_block(cls, block: Mapping[str, Any]) -> Provenance:
        """Of options of the data source ``lm``, the other way round than ``data_block``: nothing where they
        are of another source, and no places where they leave the layer open or name layers alone."""
        if block.get("use") != "lm":
            return cls()
        model, site, target_site = (block.get(name) for name in ("model", "source_site", "target_site"))
        layer, target_layer = block.get("source_layer"), block.get("target_layer")
        if block.get("sites") is not None:
            sources = tuple(block["sites"].split(","))
            targets = tuple((block.get("target_sites") or block["sites"]).split(","))
        elif None not in (layer, site, target_layer, target_site):
            sources, targets = (f"{layer}.{site}",), (f"{target_layer}.{target_site}",)
        elif block.get("layer") is not None:
            sources = targets = (f"{block['layer']}.{block.get('site') or USUAL_SITE}",)
        else:
            return cls(model)
        return cls(model, sources, targets)

    def record(self) -> dict[str, Any]:
        """JSON values of what is known, under the names that data sources use."""
        layers = sorted({int(place.partition(".")[0]) for place in self.sources})
        values = {
            MODEL: self.model,
            LAYER: ",".join(map(str, layers)) or None,
            SOURCE: list(self.sources) or None,
            TARGET: list(self.targets) or None,
            CONTEXT: self.context,
            DATASET: self.dataset,
        }
        return {name: value for name, value in values.items() if value is not None}

    def data_block(self) -> dict[str, Any] | None:
        """Options of the data source ``lm`` that reads these vectors, without a model where that is not
        known; None where places are not."""
        if not self.sources or not self.targets:
            return None
        found: dict[str, Any] = {"use": "lm"} if self.model is None else {"use": "lm", "model": self.model}
        if len(self.sources) == len(self.targets) == 1:
            (source,), (target,) = self.sources, self.targets
            layer, _, site = source.partition(".")
            if source == target:
                return found | {"layer": int(layer), "site": site}
            target_layer, _, target_site = target.partition(".")
            places = {"source_layer": int(layer), "source_site": site}
            return found | places | {"target_layer": int(target_layer), "target_site": target_site}
        found["sites"] = ",".join(self.sources)
        return found if self.targets == self.sources else found | {"target_sites": ",".join(self.targets)}
