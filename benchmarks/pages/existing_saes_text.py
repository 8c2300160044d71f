"""What docs/existing-saes.md says besides its numbers."""

from __future__ import annotations

from benchmarks.pages.tables import table

INTRODUCTION = """\
# SAEs that exist already

An SAE that another library trained becomes a coder of qsae with one command, computes the same, and is
evaluated, quantized, served and given back like one that was trained here.
"""

_ROWS = (
    (
        "SAELens, and what is published in its layout",
        "format-saelens",
        "`cfg.json`, `sae_weights.safetensors`",
    ),
    ("dictionary_learning", "format-dictionary-learning", "`ae.pt`, `config.json`"),
    ("sparsify", "format-sparsify", "`cfg.json`, `sae.safetensors`, a folder for each hookpoint"),
    ("circuit-tracer", "format-circuit-tracer", "transcoders of every layer, cross-layer ones"),
    ("Gemma Scope, Gemma Scope 2", "format-gemma-scope", "SAEs, transcoders, crosscoders"),
    ("Llama Scope, Qwen-Scope, Goodfire, OpenAI and others", "formats-published", "layouts of their own"),
)
FORMATS = f"""\
## What is read

{
    table(
        ["files of", "README", "what"],
        [[whose, f"[qsae-{name}](../plugins/qsae-{name})", what] for whose, name, what in _ROWS],
        texts=3,
    )
}

The format is recognized by the files; `--format NAME` says it where two could be meant, and `qsae describe
format` lists what is installed. A `.pt` file is read as tensors and plain values: nothing in it is unpickled,
so a file from a stranger runs no code.
"""

REFUSED = """\
## What is refused

What no installed component computes is refused by name, with the reason: an SAE whose latents need other
tokens or other vectors of a batch, signed latents where a format has none, tensors too few or too many, and
configurations that the tensors contradict. The README of each format has its list. Nothing is left out in
silence: what is folded, or what the library's own loader would do otherwise, is a note of `qsae import`.
"""

WHERE_ELSE = """\
## What to know

* `--model`, `--layer` and a text at `qsae import` say on what the coder is evaluated and calibrated from then
  on; each later command may say something else. Where the files name model and layer, nothing need be said.
* No library records what an SAE was trained on, so `qsae evaluate` takes the held-out part of the data that
  it is given; of documents that are surely others `--held-out-share 0.99` takes nearly all, as above.
  `qsae import --trained-on data` records that it was the data that is given there (then other data is
  measured whole, and that data with a warning), `--trained-on elsewhere` that it was none of what it will be
  measured on.
* `vanilla` above is the SAE whose atoms keep the norms that they have: SAELens' TopK ranks latents by these,
  so it is that with the rule `topk`.
* `mixed` gives its bits to the rows that matter for the calibration vectors. A latent whose row gets none is
  switched off, and counts as *dead* in what `qsae quantize` prints; *survived* judges latents that fire
  often.
* The four-bit coder in its library's format has dense weights again: the values of the rounded coder at the
  old size. What makes it small is kept in qsae's folder alone, which `qsae_core.load` reads without making
  float matrices of it.
* What each command takes of memory, of an SAE with 131,072 latents in float32 and in bfloat16:
  [memory.md](memory.md).
* Which quantizer serves best at which width, with the encoder fine-tuned: [results.md](results.md), and the
  options of each: [qsae-quantizers-post-training](../plugins/qsae-quantizers-post-training).
"""
