"""Files of tensors: the same bytes for the same content, and readable by whom the folder is for."""

import os

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qsae_core.artifact.tensor_files import load_part, load_tensors, save_tensors
from qsae_core.results.files import atomic_file, atomic_folder

TENSORS = {
    "W": torch.arange(12.0).view(4, 3),
    "b": torch.ones(3, dtype=torch.uint8),
    "größe": torch.zeros(()),
}


def test_the_same_content_is_the_same_file(tmp_path):
    parts = {f"level {i}": {"W": TENSORS["W"][:i]} for i in range(1, 5)}
    written = set()
    for n in range(8):  # the library's own order changes from file to file
        path = tmp_path / f"{n}.safetensors"
        save_tensors(path, TENSORS, "text", parts)
        written.add(path.read_bytes())
    assert len(written) == 1
    with safe_open(path, "pt") as reader:
        assert set(reader.metadata()) == {
            "sha256",
            *(f"sha256 {p}" for p in parts),
        }
    for found in (load_file(path), load_tensors(path, "text")):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    part = load_part(path, "level 2", {"W": (0, 2), "b": (0, 0), "größe": (0, 0)}, "text")
    assert torch.equal(part["W"], TENSORS["W"][:2])


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    """safetensors makes files that nobody else may read; a file by itself and one in a folder are mended."""
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "a.safetensors") as path:
            save_tensors(path, TENSORS)
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "below").mkdir()
            save_tensors(folder / "below" / "a.safetensors", TENSORS)
        (tmp_path / "b.txt").write_text("")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o640}
