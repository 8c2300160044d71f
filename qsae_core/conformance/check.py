"""What a check is: a rule of a kind's contract, applied to one component and its sample configurations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from qsae_core.conformance.cases import Case
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import CheckFailure, NotApplicable, set_seed
from qsae_core.errors import PluginError

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
