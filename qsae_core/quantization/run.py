"""``qsae quantize``: a stored float coder becomes a quantized one, as a run of its own."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qsae_core.artifact import artifact
from qsae_core.artifact import description as coder_json
from qsae_core.artifact.tensor_files import load_tensors
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import compose_coder, compose_data
from qsae_core.compose.setup import resolve_device
from qsae_core.config.run import RunConfig
from qsae_core.config.settings import QuantizeConfig
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import DataSource
from qsae_core.errors import ArtifactError, ConfigError, TrainingError
from qsae_core.evaluation.evaluate import entries
from qsae_core.evaluation.kept import finished_entry
from qsae_core.evaluation.measured_part import measured_part, origins, source_record
from qsae_core.evaluation.run import check_widths, evaluate_coder
from qsae_core.interrupt import sigterm_interrupts
from qsae_core.kinds import QUANTIZER_SLOTS
from qsae_core.quantization.calibrated import OF_QUANTIZERS, fit, linear, normalizes, rotate, take_floats
from qsae_core.results.files import write_json
from qsae_core.results.run import Run, late_run, run_path, slug

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def quantize_artifact(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    method: QuantizeConfig,
    message: Callable[[str], None],
) -> Run:
    """Quantize the float coder or the kept float masters at ``path`` with the config's, and write the run.

    The run is there when it is complete; until then what it replaces stays, and no part of it is seen.
    ``quantized_from`` in its record: the float coder's path and the method; in its metrics also whether that
    was the coder of the float masters, and its evaluations on the same vectors.

    Raises:
        ConfigError: if the coder is quantized already and its masters were not kept, or cannot be rotated
            or calibrated as asked; if the run's folder would be the source's, within it or around it.
        TrainingError: if the run's folder exists and ``run.overwrite`` is not set; on a non-finite loss or an
            interrupt.
    """
    try:
        with sigterm_interrupts():
            return _quantize(artifact.artifact_folder(path), config, registry, method, message)
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
) -> Run:
    device = resolve_device(config.run.device)
    source, of_masters = _float_coder(folder, device, registry)
    coder = linear(compose_coder(config, registry, source.shape).to(device))
    take_floats(coder, source)
    rotated = rotate(coder, method.rotate, message)
    config = _with_options(
        config, rotate=rotated, **({"normalize": "scale"} if normalizes(coder, method) else {})
    )
    made = {"path": str(folder), "method": method.model_dump(mode="json")}
    data = compose_data(config, registry, device=device)
    try:
        check_widths(source, data, folder)
        before = origins(coder_json.read_description(folder))
        part = measured_part(data, config, before, folder, calibrated=True)
        if part.warning:
            message(f"warning: {part.warning}")
        with _open(config, data, method, folder, made) as run:
            started = time.perf_counter()
            errors = fit(coder, source, data, config, method, message)
            seconds = time.perf_counter() - started
            artifact.save(coder, run.final, config, registry, source_record(data, config, before))
            entry = finished_entry(
                run.final, run, data, config, registry, part=part, atom_errors=errors, device=device
            )
            evaluations = entries(evaluate_coder(source, data, config, registry))
            origin = made | {"of_masters": of_masters, "evaluations": evaluations}
            record: dict[str, Any] = {"model": data.model_name, "layer": data.layer}
            tokens = method.tokens + method.n_steps * config.train.batch_size
            record |= {"steps": method.n_steps, "tokens": tokens, "training_seconds": seconds}
            write_json(run.metrics_file, record | {"quantized_from": origin, "coders": {"coder": entry}})
        return Run(_path(config, data, method))
    except TrainingError as error:
        error.where = error.where or str(folder)
        raise
    finally:
        data.close()


def _float_coder(folder: pathlib.Path, device: str, registry: Registry) -> tuple[MatrixCoder, bool]:
    """The stored coder, or where it is quantized the one of its float masters; and whether it is that one."""
    stored = artifact.load(folder, registry=registry)
    masters = _of_masters(folder, registry) if stored.is_quantized else None
    source = masters or stored
    if source.is_quantized:
        raise ConfigError(
            "this coder is quantized already",
            where=str(folder),
            allowed="a coder whose quantizers are all none, such as the float twin beside it, or one whose "
            "float masters were kept",
            next="train with --save-float, or with --quantizer none --encoder-quantizer none "
            "--code-quantizer none",
        )
    return source.to(device).eval(), masters is not None


def _of_masters(folder: pathlib.Path, registry: Registry) -> MatrixCoder | None:
    """A coder without quantizers, of the masters beside the one at ``folder``; None without these."""
    file = folder / artifact.MASTERS
    if not file.exists():
        return None
    description = coder_json.usable_description(folder, registry)
    blocks = coder_json.components(description)
    unquantized = {slot: {"use": "none"} for slot in QUANTIZER_SLOTS if slot in blocks}
    coder = compose_coder({**blocks, **unquantized}, registry, CoderShape(**description["shape"]))
    text = (folder / coder_json.DESCRIPTION).read_text(encoding="utf-8")
    state = load_tensors(file, text)
    kept = {name: t for name, t in state.items() if not any(part in name for part in OF_QUANTIZERS)}
    result = coder.load_state_dict(kept, strict=False)
    if result.missing_keys or result.unexpected_keys:
        raise ArtifactError(
            f"the float masters do not fit: {[*result.missing_keys, *result.unexpected_keys]}",
            where=str(file),
        )
    return coder


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
        )
