"""Other libraries' checkpoints: which format a path has, what it holds, and a stored coder written in one."""

from __future__ import annotations

import json
import pathlib
import tempfile
from typing import TYPE_CHECKING

from qsae_core.artifact.artifact import load
from qsae_core.artifact.description import read_description
from qsae_core.artifact.places import artifact_folder
from qsae_core.compose.compose import compose_format
from qsae_core.contracts.format import Checkpoint
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.kinds import QUANTIZER_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def format_of(path: pathlib.Path, registry: Registry) -> str:
    """The name of the one installed format that recognizes a file or folder.

    Raises:
        ArtifactError: if none does, or several do.
    """
    names = registry.names("format")
    known = [name for name in names if compose_format(name, registry).recognizes(path)]
    if len(known) == 1:
        return known[0]
    installed = ", ".join(names) or "none, because no plugin with a format is installed"
    if known:
        what, further = f"is of several formats: {', '.join(known)}", f"--format {known[0]}"
    elif not path.exists():
        what, further = "there is no such file or folder", "give a checkpoint's own file or folder"
    else:
        what, further = "is of none of the installed formats", "install the plugin of its format"
    raise ArtifactError(what, where=str(path), allowed=installed, next=further)


def open_checkpoint(path: pathlib.Path, registry: Registry, form: str) -> Checkpoint:
    """What a file or folder of a format holds, checked.

    Raises:
        ArtifactError: if it is damaged, of another format, or a variant with no dense form.
        PluginError: if there is no such format.
    """
    checkpoint = compose_format(form, registry).read(path)
    where = f"{path} (format {form})"
    checkpoint.dense.validate(where)
    try:
        json.dumps(dict(checkpoint.source), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"its source is not JSON ({error})", where=where) from error
    wrong = [slot for slot in checkpoint.components if slot not in SLOTS or slot in QUANTIZER_SLOTS]
    if wrong:
        allowed = ", ".join(slot for slot in SLOTS if slot not in QUANTIZER_SLOTS)
        raise ArtifactError(f"the format chooses a component for {wrong[0]!r}", where=where, allowed=allowed)
    return checkpoint


def export_checkpoint(path: pathlib.Path, out: pathlib.Path, form: str, registry: Registry) -> None:
    """Write the stored coder at ``path`` in another library's format, whole or not at all.

    Normalisation, rotation and quantization are folded into dense float32 weights.

    Raises:
        ConfigError: if the coder has no dense form, or something is at ``out`` already.
        ArtifactError: if there is no sound coder at ``path``, or the format has no place for this one.
    """
    if out.exists():
        raise ConfigError(
            "there is something of that name already", where=str(out), next="choose another --out"
        )
    writer = compose_format(form, registry)
    folder = artifact_folder(path)
    dense = load(folder, registry=registry).dense()
    source = read_description(folder)["source"]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as holder:
            written = pathlib.Path(holder) / out.name
            writer.write(dense, written, source)
            written.rename(out)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error}", where=str(out)) from error
