"""Rules for kernel sets: what is offered does what torch's implementation does, at every size.

Where the set cannot be used on this machine, only what needs no device is checked.
"""

from __future__ import annotations

import torch

from qsae_core import kernels
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect
from qsae_core.contracts.kernel_set import KernelSet
from qsae_core.kernels.verification import disagreements
from qsae_core.kernels.verification_inputs import Sizes

RULES = Rules()
SIZES = (
    Sizes(),
    Sizes(batch=1, latents=5, width=1, k=1),
    Sizes(batch=3, latents=33, width=7, k=2),
    Sizes(batch=70, latents=1040, width=500, k=9),
    Sizes(batch=130, latents=300, width=64, k=40),
)


def usable(subject: Subject, case: Case) -> KernelSet:
    """A set that can be used here."""
    kernel_set: KernelSet = subject.build(case)
    reason = kernel_set.unavailable()
    if reason is not None:
        raise NotApplicable(f"the set is unavailable here: {reason}")
    return kernel_set


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, subject.construct)


@RULES.each_case(
    "availability", "unavailable() gives None or a reason, and the device is one that torch has."
)
def _availability(subject: Subject, case: Case) -> None:
    kernel_set: KernelSet = subject.build(case)
    reason = kernel_set.unavailable()
    expect(reason is None or (isinstance(reason, str) and bool(reason)), f"unavailable() gives {reason!r}.")
    try:
        torch.device(kernel_set.device)
    except (RuntimeError, TypeError, AttributeError) as error:
        expect(False, f"the class attribute 'device' names no device of torch ({error}).")


@RULES.each_case("known", "every operation is one that core has, and there is at least one.")
def _known(subject: Subject, case: Case) -> None:
    names = set(usable(subject, case).operations())
    expect(bool(names), "operations() is empty; unavailable() should say why.")
    expect(
        names <= set(kernels.OPERATIONS), f"core has no {', '.join(sorted(names - set(kernels.OPERATIONS)))}."
    )


@RULES.each_case("agrees", "every operation agrees with torch's at small, large and odd sizes.")
def _agrees(subject: Subject, case: Case) -> None:
    kernel_set = usable(subject, case)
    for sizes in SIZES:
        known = {name: f for name, f in kernel_set.operations().items() if name in kernels.OPERATIONS}
        wrong = disagreements(known, kernel_set.device, sizes)
        for name, problem in wrong.items():
            expect(False, f"{name} at {sizes}: {problem}.")
