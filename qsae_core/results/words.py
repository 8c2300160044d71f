"""What a run's record says of its coder, in the words of tables. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsae_core.kinds import QUANTIZER_SLOTS, SLOTS


def quantizers_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Slot -> name of its quantizer, of the slots that the coder has; from ``config.json``."""
    return {slot: record[slot]["use"] for slot in QUANTIZER_SLOTS if slot in record}


def rounds_atoms(record: Mapping[str, Any]) -> bool:
    """Whether the decoder is quantized: where it is not, there is no cost of rounding atoms to predict."""
    return quantizers_of(record).get("quantizer") != SLOTS["quantizer"].default


def coder_label(coder: str, quantizers: Mapping[str, str]) -> str:
    """``topk (ste)``, ``topk (ste, encoder rtn, codes ste)``; the decoder's quantizer has no word before it.

    Args:
        quantizers: slot -> name, of the slots that the coder has. An encoder's that is the decoder's is not
            said again, and ``none`` only where nothing is quantized.
    """
    decoder = quantizers.get("quantizer")
    words = {"quantizer": "", "encoder_quantizer": "encoder ", "code_quantizer": "codes "}
    parts = [
        word + quantizers[slot]
        for slot, word in words.items()
        if quantizers.get(slot, "none") != "none"
        and not (slot == "encoder_quantizer" and quantizers[slot] == decoder)
    ]
    shown = parts or ["none"] * (decoder is not None)
    return f"{coder} ({', '.join(shown)})" if shown else coder


def vectors_of(entry: Mapping[str, Any]) -> str:
    """``smollm2, layer 9``; where what a data source calls its layer has no number, as of vectors from files,
    ``states (tensors)``."""
    model, layer = str(entry["model"]), str(entry["layer"])
    return f"{model}, layer {layer}" if any(map(str.isdigit, layer)) else f"{model} ({layer})"


def measured_on(entry: Mapping[str, Any]) -> str | None:
    """What a coder was measured on, and by how many vectors; from its entry of ``metrics.json``.

    None where that is not recorded. ``32,768 (reconstruction) and 16,330 (loss-recovered) vectors of 11
    documents, among all 40 documents of x.txt``
    """
    measured = entry.get("measured")
    if measured is None:
        return None
    counts = {name: values.get("n_tokens") for name, values in entry["evaluations"].items()}
    counted = {name: int(n) for name, n in counts.items() if n is not None}
    if not counted:
        return str(measured["what"])
    of_count: dict[int, list[str]] = {}
    for name, n in counted.items():
        of_count.setdefault(n, []).append(name)
    said = [f"{n:,}" if len(of_count) == 1 else f"{n:,} ({', '.join(of_count[n])})" for n in of_count]
    read = measured.get("documents")
    among = "" if read is None else f"{read:,} document{'s' * (read != 1)}, among "
    return f"{' and '.join(said)} vectors of {among}{measured['what']}"
