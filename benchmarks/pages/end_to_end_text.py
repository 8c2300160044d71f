"""What docs/end-to-end.md says of how the sides differ."""

from __future__ import annotations

from typing import Any

from qsae_data_lm import LmConfig

from benchmarks.contenders import signum_rate
from benchmarks.end_to_end_sides import AS_IT_COMES, AUTOCAST, CUT, STATISTICS
from qsae_core.config.settings import TrainConfig

BLOCK = LmConfig().buffer_tokens
"""Positions that qsae shuffles together."""
SAE_LENS_BUFFER, SAE_LENS_CONTEXTS, SAE_LENS_DEAD = 20, 32, 1000
"""Its defaults: contexts of its buffer, contexts of a forward pass, steps until a latent is dead."""
SPARSIFY_DEAD = 10_000_000
"""Its default: tokens until a latent is dead."""


def differences(result: dict[str, Any]) -> str:
    """A paragraph for each side, with the numbers that its defaults come to in this run."""
    context, batch, steps = result["context"], result["batch_size"], result["steps"]
    tokens, evaluated = result["tokens"], f"{result['evaluated']:,}"
    train = TrainConfig(tokens=tokens, batch_size=batch, eval_tokens=result["evaluated"])
    return f"""\
All read the documents of one file of JSON lines with the same model and tokenizer, and ask torch for huge
pages. Caches of data sets are empty at the start; the files are in the page cache.

* **qsae, from the text**: `qsae train`, with its defaults. It sets a twentieth of the documents aside, reads
  {STATISTICS:,} vectors before its first step, from which it computes a mean and a scale that all vectors are
  normalised by, and initial values; these are not among the tokens above. A forward pass ends behind the
  layer that is read, in bf16 where the processor computes in it. Every context begins with BOS; BOS and EOS
  are read and not trained on. {BLOCK:,} positions at a time are read and shuffled, vector by vector; of the
  last of these blocks, the run may not need all. The learning rate is scaled to F and to the length of the
  run, rises in the first twentieth and falls in the last fifth. Against dead latents there is an auxiliary
  loss and a new start for what stays dead, in windows that are shares of the run. It measures itself on
  {train.measurements[1]:,} held-out vectors every {train.measurements[0]} steps and on
  {evaluated} at its end, and then runs the language model with the SAE in it (cross-entropy recovered).
* **qsae, from a store**: `qsae cache`, which writes {tokens + STATISTICS:,} training and at most
  {evaluated} held-out vectors in bf16, and `qsae train` on them; both times together. All else is as above,
  but that vectors come from all over the store instead of a block at a time. The second SAE that is trained
  on the store costs the second command alone.
* **sparsify**: what `python -m sparsify` does, which itself asks for a GPU. It tokenizes the whole text into
  contexts with EOS between documents and no BOS, and shuffles the contexts once. A batch is
  {batch // context} whole contexts: vectors are not shuffled. All positions are trained on, also EOS and the
  first of a context, which sees nothing before it. Vectors are not normalised: its loss is the squared error
  over the variance of the batch, and the decoder's bias begins at the mean of the first batch. Its default
  optimizer, sign descent with schedule-free averaging, runs at its default rate for this F,
  {signum_rate(result["n_latents"]):.2g}, without warm-up or decay. Its auxiliary loss is off, and a latent
  would count as dead after {SPARSIFY_DEAD:,} tokens, of which the run has {tokens:,}. The language
  model is the one without a head (`AutoModel`), in the number format of its weights, and computes all its
  layers; the coder is in float32.
* **SAELens**: `LanguageModelSAETrainingRunner` with `TopKTrainingSAEConfig`. Its own transformer takes models
  of a list alone, so the model is transformers' (`AutoModelForCausalLM`), which it stops behind the layer
  that is read. Documents come in the order of the file; BOS begins each context and stands between
  documents, and is trained on like all positions. Its buffer has {SAE_LENS_BUFFER * context:,} vectors
  (`n_batches_in_buffer`), half of which stay and are mixed with the next {SAE_LENS_CONTEXTS * context:,}.
  `normalize_activations` is `none`: vectors are as they come. Adam at 3e-4 from the first step to the last.
  Its auxiliary loss is for latents that have not fired for {SAE_LENS_DEAD:,} steps; the run has {steps}. Rows
  of the decoder are free, codes are scaled by their norms.
* *{AS_IT_COMES}*: in the number formats that the library has by itself, which is bf16 for the language model
  and float32 for the SAE. *{AUTOCAST}*: SAELens with its options `autocast` and `autocast_lm`; sparsify's
  coder in bf16 autocast, as it is by itself on a GPU. *{CUT}*: the language model without the layers behind
  layer {result["layer"]} (`num_hidden_layers`), which changes none of the states that are read."""
