"""The table at the end of training and of ``qsae evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from qsae_cli.output import print_table
from qsae_core.errors import EvaluationError
from qsae_core.results.run import NO_VALUES, values_of
from qsae_core.results.words import coder_label, measured_on, quantizers_of

HEADINGS = (
    ("fvu", "FVU>", "{:.4f}"),
    ("l0", "L0>", "{:.1f}"),
    ("dead_fraction", "dead>", "{:.1%}"),
    ("ce_recovered", "CE recovered>", "{:.1%}"),
    ("kl", "KL>", "{:.4f}"),
)
"""Values of the evaluations that the table shows where they are there: name, heading, form."""


Row = tuple[str, Mapping[str, Any]]


def print_coders(rows: Sequence[Row], title: str) -> None:
    """Print one row a coder.

    Args:
        rows: label and the coder's entry of ``metrics.json`` (``artifact`` and ``evaluations``). Bytes are
            those of files; of levels (with ``level``) those of the tensors that are read.
        title: the line above the table.
    """
    found = [values_of(entry) for _, entry in rows]
    shown = [h for h in HEADINGS if any(h[0] in values for values in found)]
    size = "bytes read>" if any("level" in entry for _, entry in rows) else "bytes>"
    columns = ["coder", *(h[1] for h in shown), "bits/weight, decoder>", "encoder>", size, "x smaller>"]
    cells = []
    for (label, entry), values in zip(rows, found, strict=True):
        artifact = entry["artifact"]
        bits = artifact["bits_per_weight"]
        cells.append(
            [
                label,
                *(_cell(values.get(name), form) for name, _, form in shown),
                _cell(bits.get("W_dec"), "{:.2f}"),
                _cell(bits.get("W_enc"), "{:.2f}"),
                f"{artifact['bytes']:,}",
                f"{artifact['times_smaller']:.1f}",
            ]
        )
    print_table(columns, cells, title=title)
    for entry in _measured_alike([entry for _, entry in rows if "measured" in entry]):
        click.echo(f"measured on {measured_on(entry)}")


def _measured_alike(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for all that were measured on the same, with the evaluations of all of them."""
    found: list[dict[str, Any]] = []
    for entry in entries:
        counts = {name: values.get("n_tokens") for name, values in entry["evaluations"].items()}
        for other in found:
            there = other["evaluations"]
            pairs = [(count, there[name].get("n_tokens")) for name, count in counts.items() if name in there]
            same = all(None in pair or pair[0] == pair[1] for pair in pairs)  # None: not evaluated, uncounted
            if other["measured"] == entry["measured"] and same:
                other["evaluations"] = {**entry["evaluations"], **there}
                break
        else:
            found.append({"measured": entry["measured"], "evaluations": entry["evaluations"]})
    return found


def rows_of(coders: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[Row]:
    """A row for each coder of ``metrics.json``; where there is one for each layer, these below the row of all
    together.

    Args:
        coders: name -> its entry.
        names: ``labels`` of the run.
    """
    rows: list[Row] = []
    for name, entry in coders.items():
        label, layers = names.get(name, name), entry.get("layers", {})
        rows.append((f"{label}, {len(layers)} layers" if layers else label, entry))
        rows += [(f"  layer {layer}", of_layer) for layer, of_layer in layers.items()]
    return rows


def warn(entry: Mapping[str, Any]) -> None:
    """Say on stderr what is wrong with a measurement."""
    warning = entry["measured"]["warning"]
    if warning is not None:
        click.echo(f"qsae: warning: {warning}", err=True)


def unavailable(entry: Mapping[str, Any]) -> list[str]:
    """A sentence for each evaluation that the data could not support, that failed or that did not find all;
    of a coder for each layer also where that is so of some of them alone."""
    found = _reasons(entry)
    sentences = [f"{name}: {reason}" for name, reason in found.items()]
    for layer, own in entry.get("layers", {}).items():
        for name, reason in _reasons(own).items():
            if reason != found.get(name):
                sentences.append(f"{name}, layer {layer}: {reason}")
    return sentences


def _reasons(entry: Mapping[str, Any]) -> dict[str, str]:
    """Evaluation -> what there is to say of why it found nothing, or not everything."""
    found = {}
    for name, values in entry["evaluations"].items():
        if "unavailable" in values:
            nothing = all(value is None for key, value in values.items() if key not in NO_VALUES)
            found[name] = f"not evaluated, {values['unavailable']}" if nothing else values["unavailable"]
    return found


def check_failures(coders: Mapping[str, Mapping[str, Any]]) -> None:
    """End with an error where an evaluation should have come to its end and did not.

    Args:
        coders: name -> its entry of ``metrics.json``.

    Raises:
        EvaluationError: which says of each what happened.
    """
    found: dict[str, None] = {}
    for entry in coders.values():
        for of_layer in (entry, *entry.get("layers", {}).values()):
            for name, values in of_layer["evaluations"].items():
                if values.get("failed"):
                    found[f"{name}: {values['unavailable']}"] = None
    if found:
        hint = "what else was found is kept: mend this, and evaluate again"
        raise EvaluationError("; ".join(found), where="--eval", next=hint)


def labels(config: Mapping[str, Any]) -> dict[str, str]:
    """How a run's coders are called in its table, from its ``config.json``."""
    coder = config["sae" if "sae" in config else "transcoder"]["use"]
    label = coder_label(coder, quantizers_of(config))
    return {"coder": label, "float_twin": "full-precision twin, same size and budget"}


def _cell(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
