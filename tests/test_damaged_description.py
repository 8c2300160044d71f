"""``coder.json`` with any key missing, null or of another type: an ArtifactError, never a traceback."""

from __future__ import annotations

import copy
import json
import pathlib
import shlex
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import artifact, places, tensor_files
from qsae_core.artifact import description as coder_json
from qsae_core.errors import ArtifactError, QsaeError

SMALL = (
    "--n-latents 32 --data synthetic --preset tiny --steps 4 --batch-size 128 --statistics-tokens 256 "
    "--eval-tokens 512 --eval-every 0 --threads 1 --eval reconstruction --no-compare-float --device cpu"
)
Keys = tuple[str | int, ...]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> pathlib.Path:
    """Nested and quantized, so that every kind of entry is there."""
    out = tmp_path_factory.mktemp("results")
    line = (
        f"train --sae matryoshka --k 4 --quantizer ste --n-bits 4 --set sae.group_sizes=[8,24] {SMALL} --out"
    )
    result = CliRunner().invoke(cli, [*shlex.split(line), str(out)])
    assert result.exit_code == 0, result.output
    (final,) = out.glob("*/*/*/checkpoints/final")
    return final


@pytest.fixture
def coder(original, tmp_path) -> pathlib.Path:
    """A copy that a test may damage."""
    return pathlib.Path(shutil.copytree(original, tmp_path / "coder"))


def description_of(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / coder_json.DESCRIPTION).read_text())


def write(folder: pathlib.Path, description: Any, *, signed: bool) -> None:
    """Put it in place; ``signed`` with the checksums that go with it, as an edit of both files would."""
    text = json.dumps(description)
    (folder / coder_json.DESCRIPTION).write_text(text)
    if not signed:
        return
    file = folder / places.TENSORS
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensor_files.save_tensors(file, tensors, text, {"level 1": first_level(tensors)})


def first_level(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What level 1, the first 8 latents, reads: codes run over rows in their second dimension."""
    dims = {"W_enc.weight": 0, "W_dec.codes": 1, "W_dec.scales": 0, "b_enc": 0}
    return {n: t.narrow(dims[n], 0, 8).contiguous() if n in dims else t for n, t in tensors.items()}


def paths(tree: Any) -> Iterator[Keys]:
    """The keys to every value, at every depth; of a list those of its first and last."""
    entries: list[tuple[str | int, Any]] = []
    if isinstance(tree, dict):
        entries = list(tree.items())
    elif isinstance(tree, list) and tree:
        entries = list({i: tree[i] for i in (0, len(tree) - 1)}.items())
    for key, value in entries:
        yield (key,)
        yield from ((key, *rest) for rest in paths(value))


def changed(tree: Any, keys: Keys, change: Callable[[Any, str | int], None]) -> Any:
    tree = copy.deepcopy(tree)
    parent = tree
    for key in keys[:-1]:
        parent = parent[key]
    change(parent, keys[-1])
    return tree


def delete(parent: Any, key: str | int) -> None:
    del parent[key]


def put(value: Any) -> Callable[[Any, str | int], None]:
    def change(parent: Any, key: str | int) -> None:
        parent[key] = value

    return change


def extend(parent: Any, key: str | int) -> None:
    """One more entry, or another number or text."""
    value = parent[key]
    if isinstance(value, dict):
        value["more"] = 1
    elif isinstance(value, list):
        value.append(value[0] if value else 1)
    elif isinstance(value, str):
        parent[key] = value + "x"
    else:
        parent[key] = (value or 0) + 1


UNREAD = [("config", "data"), ("config", "versions")]
"""Whose options no reader of a coder looks at: the checksum alone covers them."""
MUTATIONS = {
    "deleted": delete,
    "null": put(None),
    "true": put(True),
    "a number": put(3),
    "a negative number": put(-1),
    "a fraction": put(0.5),
    "a text": put("other"),
    "an empty list": put([]),
    "a list": put([["other"]]),
    "an empty mapping": put({}),
    "a mapping": put({"use": {}, "other": []}),
    "one more": extend,
}


READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    "load": qsae_core.load,
    "load of a level": lambda path: qsae_core.load(path, level=1),
    "level_bytes": artifact.level_bytes,
}


@pytest.mark.parametrize("signed", [False, True], ids=["altered", "with matching checksum"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_key_at_every_depth(coder, mutation, signed):
    description, wrong = description_of(coder), []
    every = [keys for keys in paths(description) if keys[:2] not in UNREAD]
    assert len(every) > 120
    for keys in every:
        write(coder, changed(description, keys, MUTATIONS[mutation]), signed=signed)
        for name, read in READERS.items():
            error = raised(read, coder)
            if error is not None and not (isinstance(error, QsaeError) and str(coder) in str(error)):
                wrong.append(f"{name}, {'.'.join(map(str, keys))}: {type(error).__name__}: {error}")
    assert wrong == [], "\n".join(wrong)


def raised(read: Callable[[pathlib.Path], Any], path: pathlib.Path) -> Exception | None:
    try:
        read(path)
    except Exception as error:
        return error
    return None


def refusal(folder: pathlib.Path, keys: str, change: Callable[[Any, str | int], None], **how: bool) -> str:
    """What ``load`` says of the folder after one change; it is an ArtifactError with the command to go on."""
    path = [int(key) if key.isdecimal() else key for key in keys.split(".")]
    write(folder, changed(description_of(folder), tuple(path), change), **how)
    with pytest.raises(ArtifactError) as caught:
        qsae_core.load(folder)
    assert caught.value.allowed
    assert caught.value.next == "copy the whole folder again from its source"
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "change", "what"),
    [
        ("config", delete, "is damaged: it has no config"),
        ("config", put(None), "is damaged: config: Input should be a mapping (got None)"),
        ("config.sae", delete, "config has not exactly one of sae and transcoder"),
        ("config.quantizer.use", delete, "config.quantizer names no component under 'use'"),
        ("distributions", delete, "it has no distributions"),
        ("distributions", put(None), "distributions: Input should be a mapping (got None)"),
        ("distributions.quantizer", delete, "quantizer is not in both config and distributions"),
        (
            "distributions.sae.version",
            put(3),
            "distributions.sae.version: Input should be a valid string (got 3)",
        ),
        ("layout", delete, "it has no layout"),
        ("layout.W_dec.level_rows", put([8]), "layout.W_dec.level_rows has 1 entries for 2 levels"),
        ("levels", delete, "it has no levels"),
        ("levels", put(None), "levels: Input should be a mapping (got None)"),
        ("levels.count", put("2"), "levels.count: Input should be a valid integer (got '2')"),
        ("levels.cuts.b_enc.1", put([8, 16, 32]), "levels.cuts.b_enc has 3 entries for 2 levels"),
        ("shape.more", put(1), "shape.more is not known"),
    ],
)
def test_what_is_wrong_is_named_whatever_the_checksum_says(coder, keys, change, what):
    said = [refusal(coder, keys, change, signed=False)]
    said.append(raised_again(coder))
    for text in said:
        assert f"{coder / coder_json.DESCRIPTION}: is damaged: " in text
        assert what in text


def raised_again(folder: pathlib.Path) -> str:
    """The same with a matching checksum."""
    write(folder, description_of(folder), signed=True)
    return str(raised(qsae_core.load, folder))


def test_an_edited_coder_with_a_matching_checksum(coder):
    whole = description_of(coder)
    whole["config"]["sae"] |= {"n_latents": 40, "group_sizes": [8, 32]}
    write(coder, whole, signed=True)
    said = refusal(coder, "source", put({}), signed=True)
    assert f"{coder}: does not fit the coder that it describes (W_" in said
    assert "is [32, 64], and in the coder [40, 64])" in said


def test_an_edited_width_with_a_matching_checksum(coder):
    said = refusal(coder, "shape.d_out", put(65), signed=True)
    assert f"{coder / coder_json.DESCRIPTION}: SAE 'matryoshka' reconstructs its input" in said
    assert "from d=64 to d=65" in said


@pytest.mark.parametrize(
    "keys", [("metrics",), ("evaluate",), ("train",), ("train", "batch_size"), ("run", "seed")]
)
@pytest.mark.parametrize("command", ["evaluate", "compare --evaluate"])
def test_what_the_run_was_is_missing(coder, command, keys):
    write(coder, changed(description_of(coder), ("config", *keys), delete), signed=False)
    result = CliRunner().invoke(cli, [*command.split(), str(coder)])
    assert result.exit_code == 2, result.output
    assert f"coder.json: is damaged: it has no {'.'.join(('config', *keys))}" in result.stderr


def test_a_description_that_cannot_be_read_or_is_nested_without_end(coder):
    file = coder / coder_json.DESCRIPTION
    file.write_text("[" * 100_000)
    assert "is not valid JSON" in str(raised(qsae_core.load, coder))
    file.unlink()
    file.mkdir()
    error = raised(coder_json.read_description, coder)
    assert isinstance(error, ArtifactError)
    assert error.what == "cannot be read: Is a directory"
