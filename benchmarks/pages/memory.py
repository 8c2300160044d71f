"""docs/memory.md: what commands hold in memory of a large SAE. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import memory
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, gigabytes, table
from benchmarks.settings import Settings
from qsae_core.kernels.encode import TOKENS_AT_ONCE
from qsae_core.reading import LARGE

Result = dict[str, Any]


def render(settings: Settings, page: pathlib.Path) -> pathlib.Path | None:
    """Write the page; None without a result."""
    results = measured([memory.NAME], settings)
    if memory.NAME not in results:
        return None
    result = results[memory.NAME]
    return write(page, results, [_introduction(result), _commands(result), HOW])


def _introduction(result: Result) -> str:
    rows = [_row(result, record) for record in result["commands"]]
    return f"""\
# Memory of large SAEs

A TopK SAE of {count(result["n_latents"])} latents of width {count(result["width"])} (k={result["k"]}, random
unit rows), as SAELens writes it, taken through qsae. *Peak* is the largest resident set of the command's
process as the system counts it (`ru_maxrss`): all of it, Python, torch and qsae's code
({gigabytes(result["base"]["peak_bytes"])} before anything is read) and every page of a mapped file that was
in memory. *Times the file* is that over `sae_weights.safetensors`; GB are 10^9 bytes.

{table(["file", "command", "peak", "times the file", "seconds"], rows, texts=2)}

`quantize` calibrates with {count(result["calibration"])} of {count(result["vectors"])} saved vectors; each
more takes {4 * result["width"]:,} bytes, as many again while they are shuffled, and its codes. The coder
of 4 bits is that of `rtn`. `bench` measures it beside its float32 weights, which are in memory then: of a
bfloat16 file these alone are twice its size.
"""


def _row(result: Result, record: dict[str, Any]) -> list[str]:
    size = result["files"][record["dtype"]]
    start = [f"{record['dtype']}, {gigabytes(size)}", record["what"]]
    if "error" in record:
        return [*start, record["error"], "", ""]
    ratio = record["peak_bytes"] / size
    return [*start, gigabytes(record["peak_bytes"]), f"{ratio:.2f}", f"{record['seconds']:.0f}"]


def _commands(result: Result) -> str:
    lines = "\n".join(f"    {record['command']}" for record in result["commands"])
    return f"## Commands\n\n{lines}\n"


HOW = f"""\
## How

* Tensors of {LARGE:,} entries ({4 * LARGE / 2**20:.0f} MiB in float32) and more stay in the artifact's file
  while `qsae evaluate`, `qsae export` and `qsae quantize` read them, and pages of 16-bit ones are given back
  as they have been read. `qsae_core.load(path, map_large=True)` does so from Python; without it, tensors are
  read into memory.
* Of matrices of that size, stored rows, 16-bit or packed, are widened some thousand at a time: where the k
  largest latents are kept, once for {TOKENS_AT_ONCE:,} tokens, block after block of latents; with other rules
  once for some hundred, which is slower. Smaller encoders, and all that `qsae_core.load` gives without
  `map_large`, are kept as floats beside their packed form once they have been multiplied.
* `qsae quantize` works on float32 weights. Those of such matrices are on disk, in files without a name in the
  folder of `--out`, or in the nearest one above it that is there, and gone with the process: as many bytes as
  the SAE has in float32, and for `gptq` and `mixed` the decoder's once or twice more, are free there while it
  runs. Where that folder is in memory (tmpfs), they take memory.
* `rtn`, `nf4` and `hqq` round such a matrix as they pack it, some rows at a time; `gptq` and `mixed` put the
  rounded one on disk too.
* Not so: `vector` learns its codebook from a whole matrix, and quantizers that are made for training (`ste`
  and the others) round a whole one, so that several float32 copies of a matrix are in memory; `--finetune`
  and several rounds have them too. With these a bfloat16 SAE takes more than twice its file.
* Not so either: `quantization-error`, which compares whole matrices of two coders, and other evaluations of
  every atom (`similarity`, `splitting`, `absorption`); they run where they are asked for alone.
* `qsae report` has the decoder's rows in float32 while it compares each with each, and those of a float twin;
  with so many latents that takes minutes to tens of minutes.
* `qsae splice` makes the rows of the latents that it edits, and no others. Beside the coder, as
  `qsae_core.load` reads it, the language model and its activations are in memory.
* Below {4 * LARGE / 2**20:.0f} MiB a matrix nothing of this is done, since it takes time: Python and torch
  are the larger part there.
"""
