"""docs/memory.md: what commands hold in memory of a large SAE. Every number comes from the JSON file."""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks import memory
from benchmarks.pages.page import measured, write
from benchmarks.pages.tables import count, gigabytes, table
from benchmarks.settings import Settings

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

A TopK SAE of {count(result["n_latents"])} latents of width {count(result["width"])} (k={result["k"]}, random unit rows), as
SAELens writes it, taken through qsae. *Peak* is the largest resident set of the command's process as the system counts it
(`ru_maxrss`): all of it, Python, torch and qsae's code ({gigabytes(result["base"]["peak_bytes"])} before anything is read)
and every page of a mapped file that was in memory. *Times the file* is that over `sae_weights.safetensors`.

{table(["file", "command", "peak", "times the file", "seconds"], rows, texts=2)}

`quantize` calibrates with {count(result["calibration"])} of {count(result["vectors"])} saved vectors; more of them take
{4 * result["width"]:,} bytes each, and twice that while they are shuffled. The four-bit coder is that of `rtn`.
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


HOW = """\
## How

* Matrices of 67,108,864 entries (256 MiB in float32) and more stay in the artifact's file while `qsae evaluate`, `qsae export`
  and `qsae quantize` read them, and pages that were read are given back. `qsae_core.load(path, map_large=True)` does the same
  from Python; without it, tensors are read into memory.
* Stored rows, 16-bit or packed, are widened some thousand at a time, each once for up to 4,096 tokens; the k largest latents
  are chosen block by block. A smaller quantized encoder is kept as floats, which is faster.
* `qsae quantize` works on float32 weights. Those of large matrices are on disk, in a file without a name in the folder of
  `--out`, or the nearest one above it that is there: twice the size of a bfloat16 SAE is free there while it runs.
  Where the folder is in memory (tmpfs), that is memory.
* `rtn`, `nf4` and `hqq` round a large matrix as they pack it, some rows at a time; `gptq` and `mixed` keep the rounded
  matrix on disk too. `vector` learns its codebook from the whole matrix at once, and quantizers that are made for training
  (`ste` and others) round it so: they hold two float32 copies of a matrix and more.
* Not below: coders with several matrices per slot or masters in another form, and `--finetune`, hold float32 matrices in memory.
"""
