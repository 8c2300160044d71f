"""sparsify: the step of ``sparsify_step.py`` on vectors as they are, which is what its trainer does.

Its loss is the FVU of a batch, so that the vectors' scale does not matter to it, and ``b_dec`` starts at the
first batch's mean. With Adam the rate rises, and falls to zero from there on, as in its trainer, whose
warm-up of 1000 steps is scaled to this run.

Attempts: ``lr``; ``optimizer`` (``adam``, or ``signum``: its default, sign descent without a schedule);
``auxk_alpha`` and ``dead_after_tokens``; ``transcode`` and ``skip`` for its transcoder.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from schedulefree import ScheduleFreeWrapper
from sparsify.sign_sgd import SignSGD
from sparsify_step import Step, make_coder
from torch import Tensor
from torch.optim import Adam
from training import Batches, Spec, Trained, main
from transformers import get_linear_schedule_with_warmup


def train(spec: Spec, attempt: dict[str, Any]) -> Trained:
    transcode, skip = attempt.get("transcode", False), attempt.get("skip", False)
    coder = make_coder(spec.d, spec.n_latents, spec.k, transcode=transcode, skip=skip)
    signum = attempt["optimizer"] == "signum"
    if signum:
        optimizer = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=attempt["lr"]), momentum=0.95)
        optimizer.train()
        scheduler = None
    else:
        optimizer = Adam(coder.parameters(), lr=attempt["lr"])
        scheduler = get_linear_schedule_with_warmup(optimizer, spec.warm_up_steps, spec.steps)
    targets = iter(Batches(spec, spec.train_target)) if transcode else itertools.repeat(None)
    auxk = {name: attempt[name] for name in ("auxk_alpha", "dead_after_tokens") if name in attempt}
    step = Step(coder, optimizer, scheduler, **auxk)
    for number, batch in enumerate(Batches(spec)):
        step(batch, number, next(targets))
    if signum:
        optimizer.eval()  # the averaged weights, which its trainer saves
    if spec.save is not None:
        coder.save_to_disk(spec.save)

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        top = coder.encode(x)
        codes = torch.zeros(len(x), coder.num_latents).scatter_(1, top.top_indices, top.top_acts)
        decoded = coder.decode(top.top_acts, top.top_indices)
        return decoded + x @ coder.W_skip.mT if skip else decoded, codes

    return Trained(reconstruct, coder.W_dec)


if __name__ == "__main__":
    main(train, "eai-sparsify")
