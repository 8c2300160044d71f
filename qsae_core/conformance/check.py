"""What a check is: a rule of a kind's contract, applied to one component and its sample configurations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from qsae_core.conformance.cases import Case
from qsae_core.errors import PluginError

if TYPE_CHECKING:
    from qsae_core.conformance.subject import Subject


class CheckFailure(AssertionError):  # noqa: N818 (a verdict, not a fault of the kit)
    """The component broke its contract; the message says what it did and what the contract asks."""


class NotApplicable(Exception):  # noqa: N818 (not a fault: the check has nothing to say)
    """The check says nothing about this component; the message says why."""


RuleFunction = Callable[..., None]


@dataclass(frozen=True)
class Rule:
    """One sentence of a contract and the function that holds a component to it.

    Attributes:
        name: last part of the check's id (``idempotent``).
        description: one sentence: what the contract asks.
        function: called as ``function(subject, case)``, or ``function(subject)`` where the rule does not
            depend on options; raises CheckFailure or NotApplicable.
        each_case: whether the rule is applied to every sample configuration.
    """

    name: str
    description: str
    function: RuleFunction
    each_case: bool


class Rules(list[Rule]):
    """The rules of one kind, in the order in which a module defines them."""

    def each_case(self, name: str, description: str) -> Callable[[RuleFunction], RuleFunction]:
        """Add a rule that is applied to every sample configuration: ``function(subject, case)``."""
        return self._adder(name, description, True)

    def once(self, name: str, description: str) -> Callable[[RuleFunction], RuleFunction]:
        """Add a rule about the component as such: ``function(subject)``."""
        return self._adder(name, description, False)

    def _adder(self, name: str, description: str, each_case: bool) -> Callable[[RuleFunction], RuleFunction]:
        def add(function: RuleFunction) -> RuleFunction:
            self.append(Rule(name, description, function, each_case))
            return function

        return add


@dataclass(frozen=True)
class Check:
    """One rule applied to one component.

    Attributes:
        id: ``<kind>-<name>-<rule>``, followed by ``:<option>=<value>,...`` where it covers only the sample
            configurations with these values.
        description: what the contract asks, in one sentence.
    """

    id: str
    description: str
    subject: Subject = field(repr=False)
    rule: Rule = field(repr=False)
    only: dict[str, str] | None = field(default=None, repr=False)
    without: tuple[dict[str, str], ...] = field(default=(), repr=False)

    def run(self) -> str | None:
        """Hold the component to the rule; None when it complies, or the reason why the rule does not apply.

        The global random generators are left as they were.

        Raises:
            CheckFailure: with what the component did wrong and what the contract asks.
            PluginError: if the check is about option values that no sample configuration has.
        """
        python_state = random.getstate()
        try:
            with torch.random.fork_rng(devices=[]):
                if not self.rule.each_case:
                    return self._apply()
                reasons = [self._apply(case) for case in self._cases()]
        except NotApplicable as reason:
            return str(reason)
        finally:
            random.setstate(python_state)
        return next((r for r in reasons if r), None) if all(reasons) else None

    def split(self, options: dict[str, str]) -> tuple[Check, Check]:
        """This check without the sample configurations that have these option values, and with them alone."""
        suffix = ",".join(f"{key}={value}" for key, value in options.items())
        rest = replace(self, without=(*self.without, options))
        return rest, replace(self, id=f"{self.id}:{suffix}", only=options)

    def _cases(self) -> Sequence[Case]:
        cases = self.subject.cases
        if self.only is not None:
            cases = [c for c in cases if self.subject.has_options(c, self.only)]
        cases = [c for c in cases if not any(self.subject.has_options(c, w) for w in self.without)]
        if not cases:
            raise PluginError("no sample configuration has these option values", where=self.id)
        return cases

    def _apply(self, *case: Case) -> str | None:
        random.seed(0)
        set_seed(0)
        where = f"{self.subject.spec.kind} {self.subject.spec.name}" + "".join(f" ({c.label})" for c in case)
        try:
            self.rule.function(self.subject, *case)
        except NotApplicable as reason:
            return str(reason)
        except CheckFailure as failure:
            raise CheckFailure(f"{where}: {failure} The contract: {self.description}") from failure
        except Exception as error:
            what = f"raised {type(error).__name__}: {error}"
            raise CheckFailure(f"{where}: {what}. The contract: {self.description}") from error
        return None


def set_seed(seed: int) -> None:
    """Seed torch's generator of the CPU, which is all that checks use.

    ``torch.manual_seed`` also takes a stack trace for each accelerator that is absent, which takes longer
    than a small check.
    """
    torch.default_generator.manual_seed(seed)


def expect(condition: bool | torch.Tensor, sentence: str) -> None:
    """Fail the running check with this sentence (what the component did) unless the condition holds."""
    if not bool(condition):
        raise CheckFailure(sentence)


def expect_equal(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Fail unless two tensors are equal in shape, dtype and every value; names the first difference."""
    expect(actual.shape == expected.shape, f"{what}: shape {list(actual.shape)}, not {list(expected.shape)}.")
    expect(actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, not {expected.dtype}.")
    different = (actual != expected) & ~(actual.isnan() & expected.isnan())
    if different.any():
        place = tuple(int(i) for i in different.nonzero()[0])
        raise CheckFailure(
            f"{what}: {int(different.sum())} of {different.numel()} values differ, first at {list(place)}: "
            f"{actual[place].item()!r} against {expected[place].item()!r}."
        )


def expect_finite(tensor: torch.Tensor, what: str) -> None:
    """Fail unless every value is finite."""
    bad = ~tensor.isfinite()
    if bad.any():
        place = [int(i) for i in bad.nonzero()[0]]
        raise CheckFailure(f"{what} has {int(bad.sum())} NaN or infinite values, the first at {place}.")


def expect_same_state(after: dict[str, Any], before: dict[str, Any], what: str) -> None:
    """Fail unless two state dicts have the same names and bit-equal tensors."""
    expect(
        after.keys() == before.keys(),
        f"{what}: the names differ: {sorted(after.keys() ^ before.keys())}.",
    )
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            expect_equal(after[name], value, f"{what}: {name}")
        else:
            expect(after[name] == value, f"{what}: {name} is {after[name]!r}, not {value!r}.")


def copy_of_state(module: torch.nn.Module) -> dict[str, Any]:
    """The module's state dict as copies, so that later changes show."""
    return {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in module.state_dict().items()}
