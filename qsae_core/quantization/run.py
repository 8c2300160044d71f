"""``qsae quantize``: a stored float coder becomes a quantized one, as a run of its own."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from qsae_core.artifact import places
from qsae_core.artifact.description import read_description
from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.coders.coder_set import CoderSet, as_one
from qsae_core.coders.drawn_rows import blank_rows
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import compose_coder, compose_data
from qsae_core.compose.setup import resolve_device
from qsae_core.config.run import RunConfig
from qsae_core.config.settings import QuantizeConfig
from qsae_core.contracts.coder import AtomErrors, CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.one_layer import OneLayer
from qsae_core.errors import ConfigError, TrainingError
from qsae_core.evaluation.evaluate import entries
from qsae_core.evaluation.fitting import data_of, of_other_sites
from qsae_core.evaluation.kept import finished_entry, save_coder
from qsae_core.evaluation.measured_part import measured_part, origins
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.evaluation.run import evaluate_coder
from qsae_core.evaluation.watch import Watch
from qsae_core.interrupt import sigterm_interrupts
from qsae_core.quantization.calibrated import Fitted, calibrated, fit, take_floats
from qsae_core.quantization.float_coder import float_coder
from qsae_core.quantization.spaces import normalizes, rotate
from qsae_core.results.beginning import late_run
from qsae_core.results.files import disk_errors, write_json
from qsae_core.results.run import Run, run_path, slug
from qsae_core.training.memory import hand_back

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def quantize_artifact(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    method: QuantizeConfig,
    message: Callable[[str], None],
    watch: Watch | None = None,
) -> Run:
    """Quantize the float coder or the kept float masters at ``path`` with the config's, and write the run.

    The run is there when it is complete; until then what it replaces stays, and no part of it is seen.
    ``quantized_from`` in its record: the float coder's path, whether it was that of the float masters there,
    and the method; in its metrics also its evaluations on the same vectors, and ``finetuning_rates``: of each
    coder, the rate of each fine-tuning, or null where it was taken back.

    Raises:
        ConfigError: if the coder is quantized already and its masters were not kept, or cannot be rotated
            or calibrated as asked; if the run's folder would be the source's, within it or around it.
        TrainingError: if the run's folder exists and ``run.overwrite`` is not set; on a non-finite loss or an
            interrupt.
    """
    try:
        with sigterm_interrupts():
            folder = places.stored_folder(path)
            return _quantize(folder, config, registry, method, message, watch)
    except KeyboardInterrupt as error:
        raise TrainingError(
            "quantizing was interrupted; no half-written run is left, and a run that was there before stays",
            where=str(path),
            next="the same command begins again",
        ) from error


def _quantize(
    folder: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    method: QuantizeConfig,
    message: Callable[[str], None],
    watch: Watch | None,
) -> Run:
    device = resolve_device(config.run.device)
    several = (folder / places.MEMBERS).is_file()
    folders: dict[str | None, pathlib.Path] = {None: folder}
    if several:
        folders = {name: place for name, place in places.member_folders(folder).items()}
    description = places.stored_description(folder)
    opened = compose_data(config, registry, device=device)
    try:
        shells = {layer: _shell(place, config, registry) for layer, place in folders.items()}
        data = data_of(as_one(shells), opened, folder, description)
        part = measured_part(data, config, origins(description), folder, calibrated=True)
        part = part.warned(of_other_sites(data, description, several=several))
        if part.warning:
            message(f"warning: {part.warning}")
        begun, config = _begin(folders, shells, data, config, registry, method, message, device)
        made: dict[str, Any] = {"path": str(folder), "sha256": places.identity(folder)}
        made["method"] = method.model_dump(mode="json")
        made["of_masters"] = all(one.of_masters for one in begun.values())
        with _open(config, data, method, folder, made) as run:
            started = time.perf_counter()
            fitted = _fit_all(begun, data, config, method, message)
            seconds = time.perf_counter() - started
            coder = as_one(shells)
            errors = _errors(coder, fitted)
            sources = {layer: read_description(place)["source"] for layer, place in folders.items()}
            save_coder(coder, run.final, config, registry, data, made_of=sources)
            del coder, shells, begun  # matrices may be large: from here on the stored one is measured
            hand_back()
            source = as_one({layer: float_coder(p, device, registry)[0] for layer, p in folders.items()})
            options: dict[str, Any] = {"atom_errors": errors, "device": device}
            options |= {"twin": source, "watch": watch}
            entry = finished_entry(run.final, run, data, config, registry, part=part, **options)
            hand_back()
            evaluations = entries(evaluate_coder(source, data, config, registry, watch=watch)[WHOLE])
            origin = made | {"evaluations": evaluations}
            origin |= {"finetuning_rates": [found.rates for found in fitted]}
            record = _effort(data, config, method, seconds)
            write_json(run.metrics_file, record | {"quantized_from": origin, "coders": {"coder": entry}})
        return Run(_path(config, data, method))
    except TrainingError as error:
        error.where = error.where or str(folder)
        raise
    finally:
        opened.close()


def _effort(data: DataSource, config: RunConfig, method: QuantizeConfig, seconds: float) -> dict[str, Any]:
    """Of which vectors a coder is, and how many of them and how long making it took."""
    tokens = method.tokens + method.n_steps * config.train.batch_size
    made_in = {"steps": method.n_steps, "tokens": tokens, "training_seconds": seconds}
    return {"model": data.model_name, "layer": data.layer, **made_in}


def _shell(folder: pathlib.Path, config: RunConfig, registry: Registry) -> MatrixCoder:
    """The coder that takes the weights of a stored one to a grid, before it has them."""
    shape = CoderShape(**read_description(folder)["shape"])
    with blank_rows():
        return calibrated(compose_coder(config, registry, shape))


class _Begun(NamedTuple):
    """A coder that has the float weights, and what they are calibrated on."""

    coder: CalibratedCoder
    batch: Batch
    float_codes: SparseCodes
    behind: dict[str, Any]
    """The state of the data behind the batch."""
    of_masters: bool
    """Whether the weights are the float masters beside a quantized coder."""


def _begin(
    folders: Mapping[str | None, pathlib.Path],
    shells: Mapping[str | None, MatrixCoder],
    data: DataSource,
    config: RunConfig,
    registry: Registry,
    method: QuantizeConfig,
    message: Callable[[str], None],
    device: str,
) -> tuple[dict[str | None, _Begun], RunConfig]:
    """Each coder with its float weights, and the codes of these on the same vectors of the training stream;
    and the configuration as the new coders have it. Never are two copies of a matrix in memory."""
    at_first, found = data.state_dict(), {}
    for number, (layer, place) in enumerate(folders.items()):
        if number:
            data.load_state_dict(at_first)
        source, of_masters = float_coder(place, device, registry)
        coder = shells[layer].to(device)
        own = data if layer is None else OneLayer(data, number)
        batch = own.next_batch(method.tokens).to(device)
        with torch.no_grad():
            codes = source.encode(batch.x).detach()
        out = existing_folder(pathlib.Path(config.run.out))
        with disk_errors(out):
            take_floats(coder, source, over=True, scratch=out)
        del source
        rotated = rotate(coder, method.rotate, message)
        options = {"rotate": rotated, **({"normalize": "scale"} if normalizes(coder, method) else {})}
        config = _with_options(config, **options)
        found[layer] = _Begun(calibrated(coder), batch, codes, data.state_dict(), of_masters)
    return found, config


def existing_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder, or the nearest one above it that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.is_dir())


def _fit_all(
    begun: Mapping[str | None, _Begun],
    data: DataSource,
    config: RunConfig,
    method: QuantizeConfig,
    message: Callable[[str], None],
) -> list[Fitted]:
    """Fit each coder, and chance begins alike for each."""
    found = []
    for number, (layer, one) in enumerate(begun.items()):
        own = data if layer is None else OneLayer(data, number)
        data.load_state_dict(one.behind)
        devices = [one.coder.device] if one.coder.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(config.run.seed)
            say = message if layer is None else functools.partial(_of_layer, message, layer)
            found.append(fit(one.coder, one.batch, one.float_codes, own, config, method, say))
    return found


def _errors(coder: MatrixCoder | CoderSet, fitted: Sequence[Fitted]) -> AtomErrors | None:
    """What that did to the atoms, of all layers where there are several coders."""
    errors = [found.errors for found in fitted]
    return coder.join_errors(errors) if isinstance(coder, CoderSet) else errors[0]


def _of_layer(message: Callable[[str], None], layer: str, text: str) -> None:
    message(f"layer {layer}: {text}")


def _with_options(config: RunConfig, **changes: Any) -> RunConfig:
    block = replace(config.coder, options=config.coder.options.model_copy(update=changes))
    return replace(config, components={**config.components, config.coder_slot: block})


def _named(config: RunConfig, data: DataSource) -> RunConfig:
    if config.run.name is not None:
        return config
    name = slug("-".join([config.coder.use, data.model_name, config.components["quantizer"].use]))
    return replace(config, run=config.run.model_copy(update={"name": name}))


def _path(config: RunConfig, data: DataSource, method: QuantizeConfig) -> pathlib.Path:
    return run_path(_named(config, data), data.model_name, data.layer, method.n_steps)


def _open(
    config: RunConfig, data: DataSource, method: QuantizeConfig, source: pathlib.Path, made: dict[str, Any]
) -> contextlib.AbstractContextManager[Run]:
    path = _path(config, data, method)
    _check_apart(path, source)
    return late_run(_named(config, data), path, {"data_record": data.describe(), "quantized_from": made})


def _check_apart(path: pathlib.Path, source: pathlib.Path) -> None:
    """Refuse to write over the coder that is quantized, into its folder, or around it."""
    target, folder = path.resolve(), source.resolve()
    run = Run(folder.parent.parent)
    taken = run.path if run.checkpoints == folder.parent and run.config_file.exists() else folder
    if taken == target or taken in target.parents or target in taken.parents:
        raise ConfigError(
            f"the new run would lie in the same place as the coder that is quantized ({source})",
            where=str(path),
            allowed="another --name or --out",
            next="add --name NAME",
        )
