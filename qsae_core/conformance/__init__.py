"""The conformance kit: what every component has to do, checked. A plugin's whole conformance test is

    from qsae_core.conformance import parametrize_with_checks

    test_conformance = parametrize_with_checks("acme-quantizers")

``qsae check DIST`` runs the same checks without pytest, through ``checks_for``.

What a component may declare, as class attributes or methods of its target:

| kind | name | meaning |
|---|---|---|
| any | ``conformance_cases(cls, folder) -> list[Case]`` | sample configurations (see ``Case``) |
| activation | ``straight_through = True`` | its gradient is a surrogate, not its derivative |
| sparsity | ``selects_largest = False`` | ``fixed_k`` entries, but not the k largest |
| metric | ``batch_dependent = {"name"}`` | values that are defined over batches |
| coder | ``without_gradient = {"name"}`` | parameters that the loss does not reach |
| coder | ``splits_latents = True`` | processes may have a part of its latents each |
| sparsity | ``splits = True`` | it serves a part of the latents |

Everything else that a component cannot comply with is an expected failure with a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core.conformance.cases import Case, choices
from qsae_core.conformance.check import Check
from qsae_core.conformance.collect import checks_for, checks_for_component, expecting
from qsae_core.conformance.pytest_entry import parametrize_with_checks
from qsae_core.conformance.verdicts import CheckFailure
from qsae_core.lazy import lazily

if TYPE_CHECKING:
    from qsae_core.conformance.golden import Computed, check_golden, expect_computes
    from qsae_core.conformance.peers import Peer, peer
    from qsae_core.conformance.reference_parts import plain_parts

__all__ = [
    "Case",
    "Check",
    "CheckFailure",
    "Computed",
    "Peer",
    "check_golden",
    "checks_for",
    "checks_for_component",
    "choices",
    "expect_computes",
    "expecting",
    "parametrize_with_checks",
    "peer",
    "plain_parts",
]

LATER = {
    "Computed": "qsae_core.conformance.golden",
    "check_golden": "qsae_core.conformance.golden",
    "expect_computes": "qsae_core.conformance.golden",
    "Peer": "qsae_core.conformance.peers",
    "peer": "qsae_core.conformance.peers",
    "plain_parts": "qsae_core.conformance.reference_parts",
}
__getattr__ = lazily(__name__, LATER)
