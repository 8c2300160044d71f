"""What docs/quality.md says around its tables."""

from __future__ import annotations

from benchmarks.contenders import MULTIPLES, SAE_LENS_RATE, SIGNUM_MULTIPLES
from benchmarks.pages.tables import table

INTRODUCTION = """\
# Quality

Is a dictionary trained by qsae as good as one trained by the libraries that people use? Each library trains
its own coder, in a process and a virtual environment of its own, on the same vectors:

* **the same training vectors in the same order.** qsae's data source writes its stream to a file, and the
  peers read that. qsae measures the statistics of its normalisation on vectors that come before it; the peers
  measure theirs on the training vectors;
* **the same test vectors, of documents that nobody trains on**: none has a neighbour in the training;
* **the same measure.** What each library reconstructs, in the data's own space, goes through one function:
  FVU = sum ||x - x_hat||^2 / sum ||x - mean||^2. L0 is the mean number of active latents, and a latent is
  dead if it is active on no test vector.

What differs is what each library does with these vectors: initial weights, scaling, loss, schedule,
auxiliary loss. Everything not named below is its default. All numbers are of one seed; how much another one
changes is shown for qsae and for the best peer. How much of a known dictionary each library finds is on a
page of its own, [recovery.md](recovery.md), and so are transcoders,
[quality-transcoders.md](quality-transcoders.md).
"""

_MULTIPLES = ", ".join(str(m) for m in MULTIPLES)
_SIGNUM = ", ".join(str(m) for m in SIGNUM_MULTIPLES)
_RULE = f"{_MULTIPLES} times 2e-4 / sqrt(F / 2^14)"
_GIVEN = [
    [
        "qsae",
        "its default: mean and RMS of the data",
        "its default: 5% warm-up, 20% decay",
        "`auto`, which is its default",
    ],
    [
        "SAELens",
        '`normalize_activations="expected_average_only_in"`: mean norm sqrt(d); the default is none, the '
        "examples of its documentation set this one",
        "5% warm-up, 20% decay; its examples have none and 20%",
        f"{_MULTIPLES} times {SAE_LENS_RATE:g}, the default of its configurations",
    ],
    [
        "dictionary_learning",
        "`trainSAE(normalize_activations=True)`: mean squared norm 1; the default is none, its README calls "
        "this very helpful",
        "5% warm-up instead of 1000 steps, which is longer than the run; 20% decay, as in its authors' "
        "demonstration",
        f"{_RULE}, which its trainer takes by itself",
    ],
    [
        "sparsify, Adam",
        "none: its loss is divided by the batch's variance, and its trainer scales nothing",
        "its trainer's: a warm-up, here of 5% instead of 1000 steps, then linear to zero",
        f"{_RULE}, which its trainer takes by itself",
    ],
    [
        "sparsify, signum",
        "none",
        "none: this, its default optimizer, is schedule-free",
        f"{_SIGNUM} times 5e-3 / sqrt(F / 2^14), which its trainer takes by itself; 3 times that diverges",
    ],
]
SETTINGS = f"""\
## What each library is given

{table(["library", "scaling of its inputs", "schedule", "learning rates"], _GIVEN, texts=4)}

The libraries' own rates are for long runs, so a short one is given multiples of them. SAELens is driven
through `SAETrainer.fit`, `save_inference_model` and `SAE.load_from_disk`, dictionary_learning through
`trainSAE`, qsae through `qsae train` and `load`. sparsify's trainer is bound to a language model's hooks, so
its loop is written out with the coder's own methods in the order of its trainer. The peers' auxiliary loss
for dead latents begins after 10M tokens (SAELens: 1000 steps) without firing, or is off (sparsify), while
qsae scales its window to an eighth of a short run: the lines with AuxK give the peers that window, too, at
the middle rate.
"""

ABOUT_SUMMARY = """\
"Points" are hundredths of FVU. qsae has its own rate and its defaults alone, a peer the best of all lines and
rates of its tables below: what a user of it would find after a search.
"""

ABOUT_ALONE = """\
The other libraries take several times as long for these sizes, so they are compared at smaller ones.
"""

DATA = """\
Texts (`python -m benchmarks.texts FOLDER`): `code` is the source of Python's standard library, `news` is
articles and `talk` people who tell a forum of a conflict, both from data sets that a wheel on PyPI holds. One
document in eight is for the test, which a hash of it decides. The hidden states come from qsae's own data
source `lm`, in its shuffled order for training, in the text's order for the test. Minutes are those
of the last call, which takes over what stopped ones kept.
"""
