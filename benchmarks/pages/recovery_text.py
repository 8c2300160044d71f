"""What docs/recovery.md says around its tables."""

from __future__ import annotations

INTRODUCTION = """\
# Recovery

How much of a known dictionary do the SAEs of each library find? All train on the same synthetic vectors in
the same order, each library in a process and a virtual environment of its own, at the learning rates of
[quality.md](quality.md#what-each-library-is-given), and are measured on the same held-out vectors by the same
functions. Everything not named here is a library's default.
"""

ABOUT_RECOVERY = """\
MCC is the mean |cos| between true features and decoder rows under the one-to-one matching that makes it
largest, MMCS the mean over true features of the largest |cos| with any row. For each SAE the run of largest
MCC is shown, of all learning rates (3, 10 and 20 times each library's own for topk, and so for qsae; for
dictionary_learning's standard, gated and jumprelu trainers multiples of their own defaults) and, where
sparsity comes from a penalty, of three penalties; `x3, 0.2` is three times the library's rate and a penalty
of 0.2. qsae's rows also have its own rate, so one run more. What is recovered depends on L0, so compare SAEs
of about the same. The atoms of a ternary SAE have few directions to choose from: the best ternary copy of a
random direction has a cosine of 0.90.
"""

ABOUT_LAYERS = """\
An atom of a crosscoder has a direction in every layer, and is compared with a feature's directions in all of
them at once. An atom of the routed SAEs has one direction for all layers, so that it can be a feature in one
of them: they have as many latents as there are features in all layers together, and are compared with those.
The routed SAEs' FVU is of the vectors that the router takes. None of the libraries above trains such an SAE.
"""

DATA = """\
The vectors are those of the data source `synthetic` with its default preset.
"""
