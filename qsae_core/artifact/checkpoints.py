"""Other libraries' checkpoints: which format a path has, what it holds, and a stored coder written in one."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from qsae_core.artifact.artifact import load
from qsae_core.artifact.description import read_description
from qsae_core.artifact.places import artifact_folder, member_folders, set_folder
from qsae_core.compose.compose import compose_format
from qsae_core.contracts.cross_layer import Form
from qsae_core.contracts.dense import DTYPES, ROWS_AT_ONCE
from qsae_core.contracts.format import Checkpoint
from qsae_core.contracts.packed_format import PackedFormat
from qsae_core.contracts.provenance import Provenance
from qsae_core.errors import ArtifactError, ConfigError, PluginError, QsaeError
from qsae_core.interrupt import sigterm_interrupts
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, QUANTIZER_SLOTS, SLOTS
from qsae_core.reading import let_go, sha256_of
from qsae_core.reading.files import links_out
from qsae_core.results.files import disk_errors, swapped
from qsae_core.results.run import Run

if TYPE_CHECKING:
    from qsae_core.registry import Registry

IMPORTED = "imported_from"
"""Key of ``source``: what an imported coder was made of."""
SETTINGS_FILES = ("*.json", "*.yaml", "*.yml")
"""What lies beside a checkpoint's file and says how it is read."""
CHECKPOINT_FILES = tuple(
    f"**/{name}" for name in (*SETTINGS_FILES, "*.safetensors", "*.npz", "*.pt", "*.pth", "*.bin")
)
"""What is read below a checkpoint's path: files that ``qsae_core.reading`` opens, none of them code."""
TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
"""Name -> type in which tensors may be written."""


def format_of(path: pathlib.Path, registry: Registry) -> str:
    """The name of the one installed format that recognizes a file or folder. One that cannot be loaded is
    in the way of no other.

    Raises:
        ArtifactError: if none does, or several do.
    """
    known, unusable = _recognizing(path, registry)
    if len(known) == 1:
        return known[0]
    allowed = ", ".join(registry.names("format")) or "none, because no plugin with a format is installed"
    allowed += "".join(f"; {name} cannot be used: {what}" for name, what in unusable.items())
    unknown = "is of none of the installed formats"
    if known:
        what, further = f"is of several formats: {', '.join(known)}", f"--format {known[0]}"
    elif not os.path.exists(path):  # pathlib's raises where a name is too long
        what, further = "there is no such file or folder", "give a checkpoint's own file or folder"
        allowed = "a path that is there, or an address: hf://user/repository/path"
    elif path.is_file() and (of_folder := _recognizing(path.parent, registry)[0]):
        what = f"{unknown}, but its folder is of {', '.join(of_folder)}"
        further = f"give the folder: {path.parent}"
    elif away := next(links_out(path), None):
        what = f"{unknown}; {away} is a link out of it, and none of these is followed"
        further = "copy the files that are linked to their places, or give the path that they are linked from"
    else:
        what, further = (
            unknown,
            "--format NAME says what is wrong with files of that format; else install the plugin of theirs",
        )
    raise ArtifactError(what, where=str(path), allowed=allowed, next=further)


def _recognizing(path: pathlib.Path, registry: Registry) -> tuple[list[str], dict[str, str]]:
    """The formats that recognize a path; of those that cannot be used, why."""
    known, unusable = [], {}
    for name in registry.names("format"):
        try:
            if compose_format(name, registry).recognizes(path):
                known.append(name)
        except PluginError as error:
            unusable[name] = error.what
    return known, unusable


def members_of(path: pathlib.Path, registry: Registry, form: str) -> dict[str, pathlib.Path]:
    """Name -> path of each coder of a folder of several; nothing for a single one.

    Raises:
        ArtifactError: if it is damaged.
        PluginError: if there is no such format.
    """
    return dict(compose_format(form, registry).members(path))


def meant_by(
    path: pathlib.Path, registry: Registry, form: str
) -> tuple[pathlib.Path, dict[str, pathlib.Path]]:
    """The path of the one coder that a path means, and no members; or the path and its members. A folder in
    which one coder lies means that coder, unless a file of it says that it is a set.

    Raises:
        ArtifactError, PluginError: as ``members_of``.
    """
    members = members_of(path, registry, form)
    if len(members) != 1 or compose_format(form, registry).is_set(path):
        return path, members
    (member,) = members.values()
    return member, {}


def packed_format(form: str, registry: Registry) -> PackedFormat | None:
    """The format of that name, where it keeps weights packed, else None.

    Raises:
        PluginError: if there is no such format.
    """
    found = compose_format(form, registry)
    return found if isinstance(found, PackedFormat) else None


def open_checkpoint(path: pathlib.Path, registry: Registry, form: str) -> Checkpoint:
    """What a file or folder of a format holds, checked.

    Raises:
        ArtifactError: if it is damaged, of another format, or a variant with no dense form.
        PluginError: if there is no such format.
    """
    checkpoint = compose_format(form, registry).read(path)
    where = f"{path} (format {form})"
    checkpoint.form.validate(where)
    for tensor in checkpoint.form.tensors().values():
        let_go(tensor)
    try:
        json.dumps(dict(checkpoint.settings), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"its settings are not JSON ({error})", where=where) from error
    wrong = [slot for slot in checkpoint.components if slot not in SLOTS or slot in QUANTIZER_SLOTS]
    if wrong:
        allowed = ", ".join(slot for slot in SLOTS if slot not in QUANTIZER_SLOTS)
        raise ArtifactError(f"the format chooses a component for {wrong[0]!r}", where=where, allowed=allowed)
    return checkpoint


def import_record(checkpoint: Checkpoint, path: pathlib.Path, form: str, named: str) -> dict[str, Any]:
    """JSON values for the ``source`` of a coder: from what it was made, and how that is known again.

    Args:
        named: the path as the user gave it, or an address of which it was made.
    """
    folder = path if path.is_dir() else path.parent
    files = {}
    for file in checkpoint.files:
        name = file.relative_to(folder) if file.is_relative_to(folder) else pathlib.PurePath(file.name)
        files[name.as_posix()] = {"sha256": sha256_of(file), "bytes": file.stat().st_size}
    tensors = checkpoint.form.tensors()
    return {
        "path": named,
        "format": form,
        "files": files,
        "dtypes": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()},
        "settings": dict(checkpoint.settings),
    }


def export_checkpoint(
    path: pathlib.Path,
    out: pathlib.Path,
    form: str,
    registry: Registry,
    *,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the stored coder at ``path``, or one for each layer, in another library's format, whole or not at
    all.

    Normalisation, rotation and quantization are folded into dense weights, unless the format keeps them
    packed. What was imported and is unchanged is written with the same tensors, bit for bit.

    Args:
        dtype: float32, float16 or bfloat16, in which tensors are written; None: those in which they were
            imported, where they hold every value, else float32.
        options: the format's own.

    Raises:
        ConfigError: if the coder has no dense form, something is at ``out`` already, or an option does not
            fit.
        ArtifactError: if there is no sound coder at ``path``, or the format has no place for this one.
    """
    check_free(out)
    write = _writing(path, form, registry, dtype, options)
    with sigterm_interrupts(), disk_errors(out), swapped(out, fresh=True) as written:
        try:
            write(written)
        except QsaeError as error:
            error.rename(written, out)
            raise
        if not written.exists():
            raise ConfigError(f"the format {form} has written nothing", where=str(out))


def check_free(out: pathlib.Path) -> None:
    """Refuse to write over anything.

    Raises:
        ConfigError: if something is at ``out`` already.
        UnwritableError: if there can be nothing.
    """
    with disk_errors(out):
        if out.exists() or out.is_symlink():
            raise ConfigError(
                "there is something of that name already", where=str(out), next="choose another --out"
            )


def _writing(
    path: pathlib.Path,
    form: str,
    registry: Registry,
    dtype: str | None,
    options: Mapping[str, Any] | None,
) -> Callable[[pathlib.Path], None]:
    """What writes the stored coder, or one for each layer, to a path."""
    writer = compose_format(form, registry, options)
    if isinstance(writer, PackedFormat):
        if dtype is not None:
            raise ConfigError(f"{form} keeps weights packed, and writes none as {dtype}", where=str(path))
        return functools.partial(writer.pack, artifact_folder(path))
    folder = set_folder(path)
    if folder is None:
        place = artifact_folder(path)
        return functools.partial(writer.write, _exported(place, _run_of(place), form, registry, dtype))
    run = _run_of(folder)
    places = member_folders(folder).items()
    several = {name: _exported(place, run, form, registry, dtype) for name, place in places}
    return functools.partial(writer.write_set, several)


def _run_of(folder: pathlib.Path) -> pathlib.Path:
    """The run whose trained coder, or coders, a folder holds; of others the folder itself."""
    run = Run(folder.parent.parent)
    return run.path if run.final == folder and run.config_file.is_file() else folder


def _exported(
    folder: pathlib.Path, run: pathlib.Path, form: str, registry: Registry, dtype: str | None
) -> Checkpoint:
    """A stored coder as a checkpoint for a format."""
    coder = load(folder, registry=registry, map_large=True)
    description = read_description(folder)
    source, config = description["source"], description["config"]
    imported = source.get(IMPORTED) or {}
    kind: Literal["sae", "transcoder"] = "sae" if coder.is_autoencoder else "transcoder"
    settings = imported.get("settings") if imported.get("format") == form else None
    return Checkpoint(
        in_types(coder.form(), dtype or imported.get("dtypes") or "float32"),
        kind,
        Provenance.of_record(source),
        settings or {},
        components={slot: config[slot] for slot in (*CODER_SLOTS, *PART_SLOTS) if slot in config},
        run=run,
    )


def in_types(form: Form, dtypes: str | Mapping[str, str]) -> Form:
    """With tensors of the one type; or of the type of each, if those hold all values, else float32.

    Raises:
        ConfigError: if a value is too large for the one type.
    """
    if isinstance(dtypes, str):
        converted = form.in_dtypes(TYPES[dtypes])
        for name, tensor in converted.tensors().items():
            if not all(bool(rows.isfinite().all()) for rows in tensor.split(ROWS_AT_ONCE)):
                raise ConfigError(
                    f"{name} has values that {dtypes} does not hold",
                    where="--dtype",
                    allowed="bfloat16 or float32, which do",
                )
        return converted
    known = {name: TYPES[kind] for name, kind in dtypes.items() if kind in TYPES}
    tensors = form.tensors()
    for name, wanted in known.items():
        for rows in tensors[name].split(ROWS_AT_ONCE) if name in tensors else ():
            if not torch.equal(rows.to(wanted).to(rows.dtype), rows):
                return form.in_dtypes(torch.float32)
            let_go(rows)
    return form.in_dtypes(known)
