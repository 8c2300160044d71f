"""Each latent's windows go to the judge: with its own explanation, and with another latent's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from qsae_core.errors import QsaeError
from qsae_core.measuring import steps
from qsae_evaluation_autointerp.firings import own_hash
from qsae_evaluation_autointerp.judge import Example, Judge, JudgeError, Window

if TYPE_CHECKING:
    from qsae_evaluation_autointerp.choice import Chosen
    from qsae_evaluation_autointerp.windows import Surroundings

SHUFFLED = 6
"""What is added to the seed for the order in which windows are shown."""
MOST_FAILED = 0.5
"""Share of answers that could not be read, above which a judge is not asked on."""
AT_LEAST = 3
"""Latents before that is looked at."""
FEW_SILENT = "too few windows in which it is silent, in the documents that score"
Answers = list[float | None]


class Task(NamedTuple):
    """What the judge is shown of a latent."""

    latent: int
    examples: list[Example]
    windows: list[Window]
    fires: list[bool]
    """Of each of the windows: what is to be told."""
    n_hard: int
    """Windows in which it is silent at its most frequent token."""


class Verdict(NamedTuple):
    """What the judge said of a latent."""

    task: Task
    label: str
    """Its explanation; empty where the judge gave none that could be read."""
    own: Answers
    control: Answers | None
    """With the explanation of another latent; None where there is none."""


def tasks(read: Surroundings) -> list[Task | str]:
    """What is shown of each latent that was chosen; ``FEW_SILENT`` where it has too few windows."""
    return [_task(chosen, read) for chosen in read.choice.latents]


def _task(chosen: Chosen, read: Surroundings) -> Task | str:
    config, latent = read.config, chosen.latent
    hard = [p for p in chosen.hard.tolist() if (latent, p) not in read.firing][: chosen.n_hard]
    stretches = set(read.firings.stretch(torch.tensor(hard, dtype=torch.int64)).tolist())
    n = config.negatives + config.hard_negatives
    seed = config.seed + SHUFFLED
    pool = _shuffled(read.choice.pool.tolist(), latent, seed)
    free = [stretch not in stretches for stretch in read.firings.stretch(torch.tensor(pool)).tolist()]
    silent = [p for p, is_free in zip(pool, free, strict=True) if is_free and (latent, p) not in read.firing]
    negatives = hard + silent[: n - len(hard)]
    if len(negatives) < n:
        return FEW_SILENT
    fires = dict.fromkeys(negatives, False) | dict.fromkeys(chosen.positives.tolist(), True)
    shown = _shuffled(list(fires), latent, seed)
    examples = [_example(latent, p, read) for p in [*chosen.top.tolist(), *chosen.ranks.tolist()]]
    return Task(latent, examples, [read.windows[p] for p in shown], [fires[p] for p in shown], len(hard))


def _shuffled(places: list[int], latent: int, seed: int) -> list[int]:
    place = torch.tensor(places, dtype=torch.int64)
    return list(place[own_hash(torch.full_like(place, latent), place, seed).argsort(stable=True)].tolist())


def _example(latent: int, place: int, read: Surroundings) -> Example:
    window, firing = read.windows[place], read.firing[latent, place]
    activations = [0.0] * len(window.ids)
    for at, value in zip(*firing, strict=True):
        activations[at] = value
    return Example(window, tuple(activations))


def judged_tasks(shown: Sequence[Task], judge: Judge) -> tuple[list[Verdict], QsaeError | None]:
    """What the judge said of each latent, and what kept it from going on; what it said before is kept.

    A latent's control is the explanation of the one before it; that of the first, of the last.
    """
    verdicts: list[Verdict] = []
    label = ""  # the last explanation that could be read
    try:
        for task in steps(shown):
            verdict = _verdict(task, judge, label)
            verdicts.append(verdict)
            label = verdict.label or label
            _check_answers(verdicts, judge)
        if verdicts and verdicts[0].control is None and label and label != verdicts[0].label:
            verdicts[0] = verdicts[0]._replace(control=judge.detect(label, verdicts[0].task.windows))
    except QsaeError as fault:
        return verdicts, fault
    return verdicts, None


def _verdict(task: Task, judge: Judge, other: str) -> Verdict:
    label = " ".join(judge.explain(task.examples).splitlines()).strip()  # blanks are a part of tokens
    own: Answers = judge.detect(label, task.windows) if label else [None] * len(task.windows)
    return Verdict(task, label, own, judge.detect(other, task.windows) if other else None)


def _check_answers(verdicts: Sequence[Verdict], judge: Judge) -> None:
    """Raises:
    JudgeError: if most answers could not be read.
    """
    answers = [answer for v in verdicts for answer in (*v.own, *(v.control or ()))]
    failed = answers.count(None)
    if len(verdicts) >= AT_LEAST and failed > MOST_FAILED * len(answers):
        raise JudgeError(
            f"{failed} of {len(answers)} windows have no answer that can be read; the first that could not "
            f"be: {(judge.unreadable or '')[:200]!r}",
            where=judge.name,
            allowed="an explanation on one line, and for each window a 0 or 1 as it was asked for",
            next="choose another judge or model; what was judged before is kept",
        )
