"""What a run keeps of its evaluations: scalars in ``metrics.json``, all else in ``evaluations/``."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsae_core.artifact import artifact, places
from qsae_core.artifact.coder_sets import load_set, save_set
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.config.run import RunConfig
from qsae_core.contracts.coder import AtomErrors, SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.one_layer import OneLayer
from qsae_core.errors import QsaeError
from qsae_core.evaluation.entry import set_entry
from qsae_core.evaluation.evaluate import Outcome, entries, n_documents
from qsae_core.evaluation.fuller import Stays, older_stays
from qsae_core.evaluation.measured_part import MeasuredPart, source_record
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.evaluation.run import Evaluated, evaluate_coder
from qsae_core.evaluation.stored import save_result
from qsae_core.evaluation.watch import Watch
from qsae_core.results.run import Run, slug

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def save_coder(
    coder: SparseCoder,
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    data: DataSource,
    *,
    made_of: Mapping[str | None, Mapping[str, Any]] | None = None,
    masters: bool = False,
) -> None:
    """Write a trained coder, or one for each layer, with a record of which vectors it is for and what
    it was trained on.

    Args:
        made_of: layer -> ``source`` of the stored coder that it was made of; None: the key of a single one.
        masters: as ``artifact.save`` takes it.
    """
    known = made_of or {}
    if isinstance(coder, CoderSet):
        views = {name: OneLayer(data, i) for i, name in enumerate(coder.names)}
        sources = {name: source_record(view, config, known.get(name)) for name, view in views.items()}
        save_set(coder, folder, config, registry, sources, masters=masters)
    else:
        assert isinstance(coder, MatrixCoder)
        source = source_record(data, config, known.get(None))
        artifact.save(coder, folder, config, registry, source, masters=masters)


def store_outcomes(
    outcomes: Mapping[str, Outcome],
    folder: pathlib.Path,
    registry: Registry,
    about: Mapping[str, Any],
    *,
    overwrite: bool = True,
) -> list[Stays]:
    """Write what was found into one folder an evaluation, below ``folder``; what was found there before of
    other evaluations stays.

    Args:
        about: JSON values that say what was evaluated on what.
        overwrite: also where more was measured before (``older_stays``).

    Returns:
        What stays instead of what was found now, and why.

    Raises:
        QsaeError: for the first that could not be written, once all others are.
    """
    stays: list[Stays] = []
    faults: list[QsaeError] = []
    for name, outcome in outcomes.items():
        if outcome.result is None:
            continue
        older = None if overwrite else older_stays(folder / name, about["n_tokens"], failed=outcome.failed)
        if older is not None:
            stays.append(older)
            continue
        try:
            save_result(folder / name, outcome.result, _about(name, outcome, registry, about))
        except QsaeError as error:
            faults.append(error)
    if faults:
        raise faults[0]
    return stays


def _about(name: str, outcome: Outcome, registry: Registry, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored result says of itself: its definition, beside what was evaluated on what."""
    provider = registry.provider("evaluation", name)
    documents = {} if outcome.n_documents is None else {"documents": outcome.n_documents}
    return {
        "evaluation": name,
        "version": outcome.evaluation.version,
        "options": outcome.evaluation.config.model_dump(mode="json"),
        "plugin": {"name": provider.name, "version": provider.version},
        **about,
        "measured": {**about["measured"], **documents},
    }


def store_all(
    found: Mapping[str, Mapping[str, Outcome]],
    folder: pathlib.Path,
    registry: Registry,
    about: Mapping[str, Any],
    *,
    overwrite: bool = True,
) -> list[Stays]:
    """``store_outcomes`` of what was asked of a coder; of several, also of each below ``layers/``.

    Args:
        found: ``WHOLE`` or layer -> evaluation -> what came of it.
    """
    stays = []
    for layer, outcomes in found.items():
        place = folder if layer == WHOLE else folder / "layers" / slug(layer)
        of_layer = {} if layer == WHOLE else {"layer": layer}
        stays += store_outcomes(outcomes, place, registry, {**about, **of_layer}, overwrite=overwrite)
    return stays


def store_evaluated(
    found: Evaluated, folder: pathlib.Path, registry: Registry, *, overwrite: bool
) -> list[Stays]:
    """``store_all`` of a coder that was evaluated as it is stored."""
    entry = found.entry
    about = stored_coder(pathlib.Path(entry["path"])) | {"n_tokens": found.n_tokens}
    kept = ("model", "layer", "level", "measured", "atom_errors_from")
    about |= {key: entry[key] for key in kept if key in entry}
    of_layers = {WHOLE: found.outcomes, **found.layers}
    return store_all(of_layers, folder, registry, about, overwrite=overwrite)


def stored_coder(folder: pathlib.Path) -> dict[str, Any]:
    """By which a result says of which coder it is."""
    return {"coder": str(folder), "coder_sha256": places.identity(folder)}


def own_folder(path: pathlib.Path, config: RunConfig) -> pathlib.Path | None:
    """Where a run keeps what its evaluations find, or a stored coder that is in no run, if ``path`` is the
    folder of one and the data are its own; None elsewhere: what is found on other data is not its own."""
    run = Run(path)
    if run.config_file.is_file() and places.is_stored(run.final):
        folder = run.final
    elif places.stands_alone(path):
        folder = path
    else:
        return None
    recorded = places.stored_description(folder)["config"]
    same = json.loads(json.dumps(config.to_dict()["data"])) == recorded["data"]
    return run.evaluations if same else None


def finished_entry(
    folder: pathlib.Path,
    run: Run,
    data: DataSource,
    config: RunConfig,
    registry: Registry,
    *,
    part: MeasuredPart,
    atom_errors: AtomErrors | None,
    device: str,
    twin: SparseCoder | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """A coder's entry of ``metrics.json``: the artifact in a run's folder, loaded, measured and evaluated.

    All that the evaluations found is stored below ``evaluations/`` of the run. Of several coders the entry is
    that of all together, and ``layers`` has one for each.
    """
    several = (folder / places.MEMBERS).is_file()
    where: dict[str, Any] = {"device": device, "registry": registry}
    loaded: SparseCoder = (
        load_set(folder, **where) if several else artifact.load(folder, **where, map_large=True)
    )
    outcomes = evaluate_coder(loaded, data, config, registry, atom_errors, twin=twin, watch=watch)
    if isinstance(loaded, CoderSet):
        entry = set_entry(loaded, folder, outcomes)
    else:
        assert isinstance(loaded, MatrixCoder)
        measured = artifact.measurements(loaded, folder)
        entry = {"artifact": measured, "evaluations": entries(outcomes[WHOLE])}
    read = [n for found in outcomes.values() if (n := n_documents(found)) is not None]
    for of_coder in (entry, *entry.get("layers", {}).values()):
        place = pathlib.Path(of_coder.pop("path", folder))
        of_coder["artifact"]["path"] = str(place.relative_to(run.path))
        of_coder["measured"] = part.entry(max(read, default=None))
    about = stored_coder(folder) | {"coder": entry["artifact"]["path"], "model": data.model_name}
    about |= {"layer": data.layer, "n_tokens": config.train.eval_tokens, "measured": part.entry()}
    store_all(
        outcomes, run.evaluations if folder == run.final else run.evaluations / folder.name, registry, about
    )
    return entry
