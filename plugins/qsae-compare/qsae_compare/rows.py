"""Measured coders side by side: seeds of one configuration in one row, differences to a float baseline."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsae_compare.columns import COLUMNS
from qsae_compare.measured import DECODER, ENCODER, METHOD, Measured
from qsae_compare.row_labels import MOST_OPTIONS, labels
from qsae_core import runs
from qsae_core.runs import CODER_SLOTS, QUANTIZER_SLOTS

EQUAL_L0 = 0.03
"""Codes whose mean numbers of active latents differ by more than this share are not compared at equal L0."""


@dataclass(frozen=True)
class Row:
    """One configuration: the mean over its seeds, and their spread.

    Attributes:
        label: what it is called, and what tells it from rows of the same name.
        members: its coders, one for each seed.
        mean: column -> mean; None where a member lacks the value.
        std: column -> sample standard deviation; None for fewer than two members.
        baseline: label-free description of what it is compared with (paths); empty where there is nothing.
        equal_l0: whether its L0 is that of its baseline, to ``EQUAL_L0``; None where there is none.
    """

    label: str
    members: tuple[Measured, ...]
    mean: Mapping[str, float | None]
    std: Mapping[str, float | None]
    baseline: tuple[str, ...]
    equal_l0: bool | None

    @property
    def is_float(self) -> bool:
        """Whether nothing in it is quantized."""
        return self.members[0].is_float

    @property
    def errors_from(self) -> tuple[str, ...]:
        """What the predictions of its members rest on."""
        return tuple(sorted({m.errors_from for m in self.members if m.errors_from and m.rounds_atoms}))


def rows(
    measured: Sequence[Measured], baseline: Sequence[Measured] = (), *, by_seed: bool = False
) -> tuple[list[Row], list[str]]:
    """The rows of a comparison, and sentences about coders that were left out or do not compare.

    The baseline of a coder is, in this order: the coder of its seed among ``baseline`` (the mean of all of
    them where there is none of its seed); the float twin of its own run; the float coder of its seed, among
    those compared, whose configuration is the same but for quantizers, and if there are several the one whose
    encoder was fine-tuned alike; the float coder that it was quantized from, among those compared or else as
    it was measured then on the same vectors. A float coder that is nobody's rival
    in ``baseline`` has none.

    Args:
        by_seed: a row for each coder, instead of one for all seeds of a configuration.
    """
    groups, left_out = _groups(measured, by_seed)
    found = []
    for label, members in zip(labels(groups, by_seed), groups, strict=True):
        rivals = [_baseline(m, measured, baseline) for m in members]
        values = [_values(m, rival) for m, rival in zip(members, rivals, strict=True)]
        mean = {c: _mean([v[c] for v in values]) for c in COLUMNS}
        std = {c: _std([v[c] for v in values]) for c in COLUMNS}
        paths = tuple(str(r.folder) for rival in rivals for r in rival)
        equal = _equal_l0(mean["l0"], _mean([_average(rival, "l0") for rival in rivals]))
        found.append(Row(label, tuple(members), mean, std, paths, equal))
        left_out += _on_other_data(members, rivals)
    return found, left_out


def _on_other_data(members: Sequence[Measured], rivals: Sequence[Sequence[Measured]]) -> list[str]:
    """A sentence for the first coder whose baseline was measured on something else."""
    for m, rival in zip(members, rivals, strict=True):
        for c in rival:
            keys = [key for key in {**m.data, **c.data} if m.data.get(key) != c.data.get(key)]
            if keys:
                how = ", ".join(f"data.{k} {m.data.get(k)} against {c.data.get(k)}" for k in keys[:3])
                return [f"{m.folder} and its baseline {c.folder} were measured on other data: {how}"]
    return []


def by_data(found: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The rows that have an FVU, by the data that they were measured on, in the order given.

    Returns:
        What the data is called, and its rows: its source's name and, where several are of one source, the
        first of its options that another one has otherwise.
    """
    groups: dict[str, list[Row]] = {}
    for row in found:
        if row.mean["fvu"] is not None:
            groups.setdefault(json.dumps(row.members[0].data, sort_keys=True), []).append(row)
    sections = [rows_on_it[0].members[0].data for rows_on_it in groups.values()]
    return [(_called(own, sections), g) for own, g in zip(sections, groups.values(), strict=True)]


def _called(data: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    source = data.get("use")
    same = [other for other in others if other.get("use") == source]
    keys = [k for k in data if any(other.get(k) != data[k] for other in same)]
    options = ", ".join(f"{k}={data[k]}" for k in keys[:MOST_OPTIONS])
    return f"{source} ({options})" if options else str(source)


# --- which coders belong together


def _groups(measured: Sequence[Measured], by_seed: bool) -> tuple[list[list[Measured]], list[str]]:
    groups: dict[str, list[Measured]] = {}
    left_out = []
    for m in measured:
        key = json.dumps(m.essence, sort_keys=True)
        members = groups.setdefault(f"{key} {m.seed}" if by_seed else key, [])
        same = next((other for other in members if other.seed == m.seed), None)
        if same is None:
            members.append(m)
        elif not m.is_twin:  # twins of one size are trained alike beside every quantized coder
            left_out.append(f"{m.folder} is left out: same configuration and seed as {same.folder}")
    return list(groups.values()), left_out


def _without_quantizers(m: Measured) -> dict[str, Any]:
    """Its essence without what only quantized coders depend on."""
    skipped = {*QUANTIZER_SLOTS, METHOD}
    kept = {section: block for section, block in m.essence.items() if section not in skipped}
    for section in (*CODER_SLOTS, "train"):
        if section in kept:
            skip = {"rotate", "quantize_after", "freeze_decoder_after"}
            kept[section] = {k: v for k, v in kept[section].items() if k not in skip}
    return kept


# --- what a row is compared with


def _baseline(m: Measured, measured: Sequence[Measured], chosen: Sequence[Measured]) -> list[Measured]:
    if chosen:
        if any(m.folder.resolve() == c.folder.resolve() for c in chosen):
            return []
        return [c for c in chosen if c.seed == m.seed] or list(chosen)
    if m.is_float:
        return []
    beside = [c for c in measured if c.is_twin and c.run is not None and c.run == m.run]
    twin = [c for c in beside if c.of_layer == m.of_layer]
    if twin:
        return twin
    essence = _without_quantizers(m)
    alike = [c for c in measured if c.is_float and c.seed == m.seed and _without_quantizers(c) == essence]
    alike.sort(key=lambda c: _training_after(c) != _training_after(m))
    found = [c for c in (*alike, *_sources(m, measured)) if c.values.get("fvu") is not None]
    return found[:1] or alike[:1]


def _sources(m: Measured, measured: Sequence[Measured]) -> list[Measured]:
    """The float coder that it was quantized from: among those measured on its data, and as it was then."""
    folder = runs.twin_folder(m.folder)
    place = None if folder is None else folder.resolve()
    compared = [c for c in measured if c.folder.resolve() == place and c.data == m.data]
    return compared if m.made_from is None else [*compared, m.made_from]


def _training_after(m: Measured) -> Any:
    """What its encoder learned after calibration."""
    keys = ("finetune", "alternate", "finetune_steps", "lr")
    return m.method and (m.method["finetune"] or m.method["alternate"]) and [m.method[k] for k in keys]


def _values(m: Measured, rival: Sequence[Measured]) -> dict[str, float | None]:
    values: dict[str, float | None] = {column: m.values.get(column) for column in COLUMNS}
    n_weights = sum(m.sizes.values())
    fvu, before = values["fvu"], _average(rival, "fvu")
    predicted = m.values.get("predicted_delta_fvu")
    return values | {
        "bits_decoder": m.bits(DECODER),
        "bits_encoder": m.bits(ENCODER),
        "bits_whole": 8 * m.artifact["bytes"] / n_weights if n_weights else None,
        "bytes": float(m.artifact["bytes"]),
        "times_smaller": m.artifact["times_smaller"],
        "delta_fvu_points": None if fvu is None or before is None else 100 * (fvu - before),
        "predicted_delta_fvu_points": None if predicted is None or not m.rounds_atoms else 100 * predicted,
    }


def _average(coders: Sequence[Measured], name: str) -> float | None:
    return _mean([c.values.get(name) for c in coders])


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return statistics.fmean(defined) if defined and len(defined) == len(values) else None


def _std(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return statistics.stdev(defined) if len(defined) == len(values) > 1 else None


def _equal_l0(l0: float | None, baseline: float | None) -> bool | None:
    return abs(l0 - baseline) <= EQUAL_L0 * baseline if l0 is not None and baseline else None
