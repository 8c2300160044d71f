"""After the last step: a run's coders become artifacts, which are read back and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qsae_core.coders.coder_set import as_one
from qsae_core.config.run import RunConfig
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.data import DataSource
from qsae_core.evaluation.kept import finished_entry, save_coder
from qsae_core.evaluation.measured_part import measured_part, origins, source_record
from qsae_core.results.run import FLOAT_TWIN, MAIN, Run
from qsae_core.training.setup import Member
from qsae_core.training.watcher import Watcher

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


def finish_coders(
    members: Sequence[Member],
    run: Run,
    data: DataSource,
    config: RunConfig,
    plugins: Plugins,
    watcher: Watcher,
    device: str,
) -> dict[str, Any]:
    """Write the artifacts of all coders and evaluate them; ``MAIN`` and ``FLOAT_TWIN`` -> what of
    ``metrics.json`` is theirs."""
    of_kind = {kind: [m for m in members if m.kind == kind] for kind in (MAIN, FLOAT_TWIN)}
    whole = {kind: as_one({m.layer: m.coder for m in found}) for kind, found in of_kind.items() if found}
    entries = {}
    for coder in whole.values():
        coder.eval()  # what is said of its atoms is of those that are stored, not of a training step's
    for kind, coder in whole.items():
        folder = run.final if kind == MAIN else run.checkpoints / kind
        masters = config.run.save_float and kind == MAIN
        save_coder(coder, folder, of_kind[kind][0].config, plugins.registry, data, masters=masters)
        plugins.hook.qsae_checkpoint_saved(run=run, path=folder)
        names = ", ".join(block.use for block in config.evaluate)
        watcher.message(f"evaluating {folder} on {config.train.eval_tokens:,} held-out vectors: {names}")
        own = origins({"source": source_record(data, config)})
        with watcher.evaluation(kind.replace("_", " ") if kind != MAIN else "") as watch:
            entries[kind] = finished_entry(
                folder,
                run,
                data,
                config,
                plugins.registry,
                part=measured_part(data, config, own, folder),
                atom_errors=_on(
                    coder.atom_errors(), device
                ),  # the one that was trained has its masters still
                device=device,
                twin=whole.get(FLOAT_TWIN) if kind == MAIN else None,
                watch=watch,
            )
    return entries


def _on(errors: AtomErrors | None, device: str) -> AtomErrors | None:
    """Where the artifact is evaluated; a coder that was trained in parts is on the CPU."""
    return None if errors is None else AtomErrors(*(tensor.to(device) for tensor in errors))
