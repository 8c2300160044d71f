"""docs/existing-saes.md: SAEs of other libraries, taken over. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks.existing_commands import EVALUATED, SPLICED
from benchmarks.existing_saes import KIND, NAME, OTHER_KIND
from benchmarks.existing_served import FORM
from benchmarks.pages.existing_saes_text import FORMATS, INTRODUCTION, REFUSED, WHERE_ELSE
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, percent, table
from benchmarks.settings import Settings

Result = dict[str, Any]
KINDS = (KIND, OTHER_KIND)

MODEL_FOLDER = """`smollm2` is a folder with SmolLM2-135M in Hugging Face's
layout (`HuggingFaceTB/SmolLM2-135M` where the Hub can be reached)."""


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    results = measured([NAME], settings)
    if not results:
        return None
    result = results[NAME]
    sections = [INTRODUCTION, _summary(result), FORMATS, _commands(result), _tables(result)]
    return write(page, results, [*sections, REFUSED, WHERE_ELSE], timed=False)


def _found(result: Result) -> list[Result]:
    return [record for record in result["contenders"] if "error" not in record]


def _summary(result: Result) -> str:
    """The original beside the imported coder, and beside the one of four bits."""
    rows = []
    for record in _found(result):
        four = next(width for width in record["widths"] if width["bits"] == 4)
        own, ours = record["fvu"][KIND], record["original"]["fvu"][KIND]
        rows.append(
            [
                record["library"],
                f"{own:.6f}",
                f"{ours:.6f}",
                f"{abs(own - ours):.1e}",
                f"{four['fvu'][KIND]:.4f}",
                _points(four["fvu"][KIND] - ours),
                f"{four['bytes'] / _size(record):.4f}",
                f"{four['by_saelens']['fvu'][KIND]:.4f}",
                _points(four["by_saelens"]["fvu"][KIND] - ours),
                f"{four['by_saelens']['bytes'] / _size(record):.4f}",
            ]
        )
    columns = ["library", "FVU, as it computes", "imported", "apart", "4 bits", "points", "bytes"]
    columns += ["in SAELens", "points", "bytes"]
    tokens = result["steps"] * result["batch_size"]
    return f"""\
Three libraries trained a TopK SAE each (d={result["d"]}, F={count(result["n_latents"])}, k={result["k"]}) on
the same {count(tokens)} hidden states of {result["model"]}, layer {result["layer"]}, read from {KIND}, and
saved it with its own function. FVU is that of {count(result["held_out"])} states of documents that none of
them was trained on; "points" are hundredths of FVU above the imported coder, "bytes" the share of the
library's own files that the four-bit folder takes, `coder.json` included. "In SAELens" is the same coder in
SAELens' format (`--format {FORM}`), which SAELens loads and computes with in an environment of its own:

{table(columns, rows)}
"""


def _commands(result: Result) -> str:
    """What a reader types, with the first library's output."""
    record = _found(result)[0]
    imported, four = record["imported"], record["widths"][1]
    lines = [
        ("Take it over. It says what was read, and where it now is:", imported),
        ("Round it, with saved hidden states for calibration (left out: the language model's own):", four),
    ]
    parts = [
        "## Step by step\n",
        f"The SAE of {record['library']}; the others take the same commands. {MODEL_FOLDER}\n",
    ]
    for sentence, call in lines:
        parts += [f"{sentence}\n", _shown(call), ""]
    parts += ["Measure it in the language model, on other documents:\n", f"    {four['evaluate']}\n"]
    packed = four["by_saelens"]
    sentence = f"Use it in SAELens, packed as it is ({packed['bytes']:,} bytes)"
    parts += [
        f"{sentence}, with [qsae-in-saelens](../plugins/qsae-in-saelens):\n",
        f"    {packed['command']}\n",
    ]
    parts += ["Give it back to its library, as dense weights:\n", f"    {imported['export']['command']}\n"]
    return "\n".join([*parts, _exports(result)])


def _shown(call: Result) -> str:
    notes = [f"{line}\n" for line in call["notes"]]
    return f"```text\n$ {call['command']}\n{''.join(notes)}{call['output'].rstrip()}\n```"


def _exports(result: Result) -> str:
    """Which files come back with the same bytes."""
    lines = []
    for record in _found(result):
        same = record["imported"]["same_bytes"]
        names = ", ".join(f"`{name}`" for name, equal in same.items() if equal) or "none"
        others = ", ".join(f"`{name}`" for name, equal in same.items() if not equal)
        lines.append(f"* {record['library']}: {names}" + (f"; not {others}" if others else ""))
    return "\n".join(
        ["Of an imported coder that is unchanged, these files have the same bytes again:\n", *lines, ""]
    )


def _tables(result: Result) -> str:
    """For each library, its own SAE, the imported one, and that at every width."""
    parts = ["## What rounding costs\n", _legend(result)]
    for record in result["contenders"]:
        parts.append(f"### {record['library']}\n")
        if "error" in record:
            parts.append(f"Not driven: {record['error']}\n")
            continue
        parts += [_table(record), "", _lines(record)]
    return "\n".join(parts)


def _table(record: Result) -> str:
    base, size = record["original"]["fvu"], _size(record)
    rows = [
        ["as its library has it", f"{size:,}", "1.00", *_errors(record["fvu"], None), "", ""],
        [
            "imported",
            *_sizes(record["imported"]["bytes"], size),
            *_errors(base, None),
            _delta(record["original"]),
            "",
        ],
    ]
    for width in record["widths"]:
        survived = percent(_values(width, "quantization-error")["survived_share"], 1)
        sizes, errors = _sizes(width["bytes"], size), _errors(width["fvu"], base)
        rows.append([f"{width['bits']} bits", *sizes, *errors, _delta(width), survived])
    fvus = [name for kind in KINDS for name in (f"FVU, {kind}", "points")]
    return table(["coder", "bytes", "times smaller", *fvus, "delta CE", "survived"], rows)


def _legend(result: Result) -> str:
    first = _found(result)[0]
    predictions = _values(first["original"], "loss-recovered")["n_tokens"]
    clean = _values(first["original"], "loss-recovered")["ce_clean"]
    widths = [_width(width) for width in first["widths"]]
    return f"""\
Both matrices are rounded, the decoder and the encoder, and nothing is trained afterwards. Bits:
{"; ".join(widths)}.
Four bits are a mean of 3.75 in the decoder's rows, so that scales, biases and `coder.json` still fit into an
eighth.

* *bytes*: of the library's files, and of the folder that qsae wrote. *points*: hundredths of FVU above the
  imported coder. {OTHER_KIND.capitalize()} is text of a kind that the SAEs have not seen.
* *delta CE*: nats that the language model loses when the coder's output takes the place of layer
  {result["layer"]}'s, over {count(predictions)} predictions ({SPLICED:,} tokens; without a coder it is at
  {clean:.3f}).
* *survived*: share of the latents whose activations correlate with those of the imported coder's latent by .9
  or more, of those that fire often enough on {EVALUATED:,} tokens to be judged
  ([definitions](../plugins/qsae-evaluation-quantization-error)).
"""


def _lines(record: Result) -> str:
    return "".join(f"    {width['command']}\n" for width in record["widths"])


def _size(record: Result) -> int:
    """Bytes of the library's files."""
    return int(sum(record["imported"]["files"].values()))


def _sizes(own: int, size: int) -> list[str]:
    return [f"{own:,}", f"{size / own:.2f}"]


def _errors(found: dict[str, float], base: dict[str, float] | None) -> list[str]:
    """FVU and points above ``base``, of each kind of text."""
    return [
        cell
        for kind in KINDS
        for cell in (f"{found[kind]:.4f}", "" if base is None else _points(found[kind] - base[kind]))
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _delta(found: Result) -> str:
    return f"{_values(found, 'loss-recovered')['delta_ce']:+.4f}"


def _values(found: Result, evaluation: str) -> dict[str, Any]:
    return dict(found["evaluations"]["evaluations"][evaluation])


def _width(width: Result) -> str:
    quantizer, decoder, encoder = (width[name] for name in ("quantizer", "decoder_bits", "encoder_bits"))
    return f"{width['bits']}: `{quantizer}` of {decoder:g} and `rtn` of {encoder}"
