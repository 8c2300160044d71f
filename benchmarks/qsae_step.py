"""qsae: ``Trainer.step`` of the coder that ``qsae train --sae topk`` would build.

Options: ``screen`` (``none``, ``bf16``, ``int8``, ``auto``), ``kernels`` (``none``, or a kernel set's name).
In the middle of a run: ``run_steps``, and ``keep_alive``, false where nothing is done about dead latents.
``transcode`` and ``skip``: the coder that ``qsae train --transcoder transcoder`` would build; what it is to
give are the vectors, turned round.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.peers.stopwatch import Spec, measure, read_rows, read_spec, write
from qsae_core.compose.compose import compose_coder
from qsae_core.compose.kernels import activate_kernels
from qsae_core.config.layers import Layer
from qsae_core.config.run import RunConfig, resolve
from qsae_core.contracts.coder import CoderShape, SparseCoder
from qsae_core.contracts.data import Batch
from qsae_core.plugins.records import load_plugins
from qsae_core.registry import Registry
from qsae_core.training.memory import memory_kept
from qsae_core.training.trainer import Trainer

STATISTICS_ROWS = 4096


def main() -> None:
    spec = read_spec()
    registry = load_plugins().registry
    config = resolve([Layer(tree(spec), "benchmark")], registry)
    active = activate_kernels(config.run.kernels, registry)
    trainer = Trainer(make_coder(config, registry, spec), config.train, "coder")

    def step(batch: Tensor, number: int) -> None:
        trainer.step(pairs(spec, batch), number)

    with memory_kept():
        result = measure(spec, step, "qsae")
    report = trainer.report()
    found = {"kernels": [str(a) for a in active], "report": report, "dead": report["dead"]}
    write(spec, result | found)


def tree(spec: Spec) -> dict[str, Any]:
    """The run as YAML would give it; as long as ``run_steps``, or so long that no latent counts as dead while
    it is timed."""
    off = {} if spec.options.get("keep_alive", True) else {"auxk_coefficient": 0.0, "restart": False}
    steps = spec.options.get("run_steps", 20_000)
    slot, use, own = "sae", "topk", {}
    if spec.options.get("transcode"):
        slot, use, own = "transcoder", "transcoder", {"skip": spec.options["skip"]}
    return {
        slot: {"use": use, "n_latents": spec.n_latents, **off, **own},
        "sparsity": {"use": "topk", "k": spec.k},
        "data": {"use": "tensors", "path": spec.data},
        "train": {"steps": steps, "batch_size": spec.batch_size, "screen": spec.options["screen"]},
        "run": {"seed": spec.seed, "threads": spec.threads, "kernels": spec.options["kernels"]},
        "metrics": [],
        "evaluate": [],
    }


def make_coder(config: RunConfig, registry: Registry, spec: Spec) -> SparseCoder:
    coder = compose_coder(config, registry, CoderShape(spec.d, spec.d))
    sample = read_rows(spec, STATISTICS_ROWS)
    coder.initialize(pairs(spec, sample))
    return coder


def pairs(spec: Spec, x: Tensor) -> Batch:
    """Vectors and what a coder is to give for them."""
    return Batch(x, x.flip(1) if spec.options.get("transcode") else x)


if __name__ == "__main__":
    main()
