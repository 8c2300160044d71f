"""Files of strangers: read as their own libraries read them, and refused where they could do harm."""

from __future__ import annotations

import io
import json
import os
import pathlib
import pickle
import struct
import zipfile

import numpy
import pytest
import torch
from safetensors.torch import save_file

from qsae_core.errors import ArtifactError
from qsae_core.reading import (
    file_in,
    is_file_in,
    json_settings,
    npz_tensors,
    only_tensors,
    safetensors_names,
    safetensors_tensors,
    torch_contents,
    yaml_settings,
)
from qsae_core.reading.pickled import RefusedError, contents

GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(6, 4, generator=GENERATOR)
STATE = {
    "weight": WEIGHT,
    "half": WEIGHT.half(),
    "bfloat16": WEIGHT.bfloat16(),
    "double": WEIGHT.double(),
    "k": torch.tensor(5, dtype=torch.int32),
    "flags": torch.tensor([True, False]),
    "transposed": WEIGHT.T,
    "a part": WEIGHT[2:4, 1:3],
    "parameter": torch.nn.Parameter(WEIGHT.clone()),
    "activation": "TopK",
    "numbers": {"a": 1.5, "b": [1, None, True, -3, 10**12], 7: ()},
}


def saved(tmp_path, value, name="a.pt", **options):
    torch.save(value, tmp_path / name, **options)
    return tmp_path / name


def same(found, wanted):
    if isinstance(wanted, torch.Tensor):
        return found.dtype == wanted.dtype and torch.equal(found, wanted)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[k], v) for k, v in wanted.items())
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_saved_is_read_as_torch_reads_it(tmp_path, protocol):
    path = saved(tmp_path, STATE, pickle_protocol=protocol)
    assert same(torch_contents(path), torch.load(path, weights_only=False))  # written right here
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    path = saved(tmp_path, module.state_dict(), pickle_protocol=protocol)
    assert same(only_tensors(torch_contents(path), path), dict(module.state_dict()))


def test_tensors_are_views_of_the_file_and_do_not_write_to_it(tmp_path):
    path = saved(tmp_path, {"a": WEIGHT, "b": WEIGHT[1]})
    before = path.read_bytes()
    found = torch_contents(path)
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()
    found["a"].zero_()
    assert path.read_bytes() == before


def test_more_than_tensors_is_no_state_dict(tmp_path):
    path = saved(tmp_path, STATE)
    with pytest.raises(ArtifactError, match=r"more than tensors: activation, numbers"):
        only_tensors(torch_contents(path), path)
    path = saved(tmp_path, [WEIGHT])
    with pytest.raises(ArtifactError, match=r"holds list"):
        only_tensors(torch_contents(path), path)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def other_files(folder):
    """What -> (path, what the error says)."""
    made = {
        "code": (saved(folder, {"a": Touch(folder / "ran")}, "code.pt"), "names __builtin__.getattr"),
        "a module": (
            saved(folder, torch.nn.Linear(2, 2), "module.pt"),
            "names torch.nn.modules.linear.Linear",
        ),
        "a set": (saved(folder, {"a": {1, 2}}, "set.pt"), "names __builtin__.set"),
        "an old file": (
            saved(folder, STATE, "old.pt", _use_new_zipfile_serialization=False),
            "cannot be read .File is not a zip file",
        ),
        "a plain pickle": (folder / "plain.pt", "not a zip file"),
        "a sparse tensor": (
            saved(folder, WEIGHT.to_sparse(), "sparse.pt"),
            "names torch._utils._rebuild_sparse",
        ),
        "complex values": (saved(folder, WEIGHT.to(torch.complex64), "complex.pt"), "ComplexFloatStorage"),
    }
    (folder / "plain.pt").write_bytes(pickle.dumps({"a": 1}))
    return made


def test_anything_else_of_torch_is_refused_with_what_to_do(tmp_path):
    for what, (path, fault) in other_files(tmp_path).items():
        with pytest.raises(ArtifactError, match=fault) as caught:
            torch_contents(path)
        assert caught.value.where == str(path), what
        if "zip" not in fault:
            assert "save_file" in caught.value.next, what
    assert not (tmp_path / "ran").exists()


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The zip with other contents of some entries; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**entries, **change(entries)}.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def test_sizes_are_compared_with_the_file(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"24 values of torch.float32 are described, and there is 92 bytes"
    ):
        torch_contents(rewritten(saved(tmp_path, WEIGHT), lambda e: {"a/data/0": e["a/data/0"][:-4]}))
    with pytest.raises(ArtifactError, match=r"are described, and there is nothing"):
        torch_contents(rewritten(saved(tmp_path, WEIGHT), lambda e: {"a/data/0": None}))
    big = b"K\x06K\x04\x86"  # the shape (6, 4)
    for shape in (b"K\x07K\x04\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"K\x00K\x04\x86"):
        path = saved(tmp_path, WEIGHT)
        with pytest.raises(ArtifactError, match=r"does not lie within its 24 values"):
            torch_contents(
                rewritten(path, lambda e, new=shape: {"a/data.pkl": e["a/data.pkl"].replace(big, new)})
            )
    repeated = saved(tmp_path, torch.ones(1).expand(10**9, 10**9))  # a stride of 0
    with pytest.raises(ArtifactError, match=r"does not lie within its 1 values"):
        torch_contents(repeated)


def test_compressed_and_overlapping_entries_are_refused(tmp_path):
    path = rewritten(saved(tmp_path, WEIGHT), lambda e: {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match=r"compressed in a way not read here"):
        torch_contents(path)
    path = saved(tmp_path, {"a": WEIGHT, "b": WEIGHT.clone()})
    data = bytearray(path.read_bytes())
    first, second = (data.find(struct.pack("<4s", b"PK\x01\x02"), start) for start in (0, 0))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        offsets = [info.header_offset for info in archive.infolist() if "/data/" in info.filename]
    at = data.rfind(struct.pack("<I", offsets[1]))  # in the directory, the second tensor's place
    assert (first, second) != (-1, -1)
    data[at : at + 4] = struct.pack("<I", offsets[0])
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=r"share bytes|does not lie|cannot be read"):
        torch_contents(path)


def test_big_endian_files_are_refused(tmp_path):
    path = rewritten(saved(tmp_path, WEIGHT), lambda e: {"a/byteorder": b"big"})
    with pytest.raises(ArtifactError, match=r"little-endian"):
        torch_contents(path)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "damaged .*pickle exhausted"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "names os.system"),
        (b"\x80\x02K\x01K\x02R.", "calls what is no name"),
        (b"\x80\x02}K\x01b.", "gives a state"),
        (b"\x80\x02X\xff\xff\xff\xffab.", "damaged .*expected"),
        (b"\x80\x02]q\x00h\x00a.", None),  # a list in itself: only its depth tells
        (b"\x80\x02ccollections\nOrderedDict\n.", "holds no value"),
        (b"\x80\x02}]K\x01s.", "text or numbers"),
    ],
)
def test_pickled_parts_by_hand(data, fault):
    if fault is None:
        found = contents(data)
        assert found[0] is found
        return
    with pytest.raises(RefusedError, match=fault):
        contents(data)


def test_lists_in_lists_take_no_time(tmp_path):
    """Forty lists, each twice in the next, are 10^12 values if they are written out."""
    deep = [1]
    for _ in range(40):
        deep = [deep, deep]
    with pytest.raises(ArtifactError, match=r"too many"):
        torch_contents(saved(tmp_path, deep))
    circle: list = []
    circle.append(circle)
    with pytest.raises(ArtifactError, match=r"within one another"):
        torch_contents(saved(tmp_path, circle))


# --- numpy


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_what_numpy_saved_is_read_as_numpy_reads_it(tmp_path, save):
    arrays = {
        "W_enc": numpy.random.default_rng(0).normal(size=(6, 4)).astype("float32"),
        "columns": numpy.asfortranarray(numpy.arange(12.0).reshape(3, 4)),
        "big_endian": numpy.arange(5, dtype=">f4"),
        "k": numpy.array(3, dtype="int64"),
        "empty": numpy.zeros((0, 4), dtype="float32"),
    }
    save(tmp_path / "a.npz", **arrays)
    found = npz_tensors(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert numpy.array_equal(found[name].numpy(), array), name


def test_other_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    numpy.savez(path, a=numpy.array([{}, 1], dtype=object))
    with pytest.raises(ArtifactError, match=r"values of type object"):
        npz_tensors(path)
    numpy.savez(path, a=numpy.array(["text"]))
    with pytest.raises(ArtifactError, match=r"values of type <U4"):
        npz_tensors(path)
    numpy.savez_compressed(path, a=numpy.zeros(2**26, dtype="float32"))  # 256 MB of zeros in 256 kB
    with pytest.raises(ArtifactError, match=r"would be 268435584 bytes from"):
        npz_tensors(path)
    numpy.savez(path, a=numpy.zeros(8))
    with pytest.raises(ArtifactError, match=r"64 bytes of values, and its header says 640000000"):
        npz_tensors(
            rewritten(path, lambda e: {"a.npy": e["a.npy"].replace(b"(8,), }       ", b"(80000000,), }")})
        )
    with pytest.raises(ArtifactError, match=r"a.txt is no array"):
        npz_tensors(rewritten(path, lambda e: {"a.npy": None, "a.txt": b"text"}))


# --- safetensors, settings, places


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": WEIGHT, "b": torch.tensor(3)}, path)
    found = safetensors_tensors(path)
    assert torch.equal(found["a"], WEIGHT)
    assert safetensors_names(path) == {"a": (6, 4), "b": ()}
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    header["a"]["shape"] = [600000, 400000]
    text = json.dumps(header).encode()
    broken = {
        "half": whole[: len(whole) // 2],
        "lying": len(text).to_bytes(8, "little") + text + whole[-100:],
    }
    broken |= {"long": (2**62).to_bytes(8, "little") + whole[8:], "empty": b""}
    for what, data in broken.items():
        path.write_bytes(data)
        for read in (safetensors_tensors, safetensors_names):
            with pytest.raises(ArtifactError, match=r"cannot be read"):
                print(what, read(path))


def test_settings(tmp_path):
    path = tmp_path / "settings"
    path.write_text('{"a": [1, null, {"b": "c"}]}')
    assert json_settings(path) == yaml_settings(path) == {"a": [1, None, {"b": "c"}]}
    path.write_text("a: 1\nb: [x, y]\n")
    assert yaml_settings(path) == {"a": 1, "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "of_json", "of_yaml"),
    [
        ("[1, 2]", "is no mapping, but list", "is no mapping, but list"),
        ('{"a": NaN}', "NaN is no JSON", None),
        ("{", "not valid JSON", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "not valid JSON", "alias"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid JSON", "could not determine a constructor"),
        ("a: 2020-01-01\n", "not valid JSON", "not JSON serializable"),
        ("[" * 100_000, "not valid JSON", "not valid YAML"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "not valid JSON|is no", "not valid YAML"),
        ("\ud800", "not valid JSON", "not valid YAML"),
        ('{"a": "' + "b" * 2**22 + '"}', "too large", "too large"),
    ],
)
def test_other_settings_are_refused(tmp_path, text, of_json, of_yaml):
    path = tmp_path / "settings"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for read, fault in ((json_settings, of_json), (yaml_settings, of_yaml)):
        if fault is not None:
            with pytest.raises(ArtifactError, match=fault):
                read(path)


def test_names_lead_nowhere_else(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside.json"
    (folder / "sub").mkdir(parents=True)
    outside.write_text("{}")
    (folder / "own.json").write_text("{}")
    (folder / "sub" / "link.json").symlink_to("../own.json")
    (folder / "out.json").symlink_to(outside)
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "fifo")
    for name in ("own.json", "sub/link.json"):
        assert file_in(folder, name) == folder / name
    refused = {"out.json": "a link out of the folder", "circle": "no such file", "fifo": "no regular file"}
    refused |= {
        name: "not in the folder"
        for name in ("../outside.json", str(outside), "sub/../../outside.json", "a\0b")
    }
    refused |= {"sub": "no regular file", "none": "no such file"}
    for name, fault in refused.items():
        assert not is_file_in(folder, name)
        with pytest.raises(ArtifactError, match=fault):
            file_in(folder, name)
    for path in (folder / "fifo", folder, folder / "none"):
        for read in (safetensors_tensors, torch_contents, npz_tensors, json_settings):
            with pytest.raises(ArtifactError, match=r"no regular file|no such file"):
                read(path)


def test_a_snapshot_of_the_hubs_cache_links_to_its_blobs(tmp_path):
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / "0123"
    (snapshot / "layers.9.mlp").mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / "abc").write_text("{}")
    (snapshot / "layers.9.mlp" / "cfg.json").symlink_to("../../../blobs/abc")
    assert json_settings(file_in(snapshot / "layers.9.mlp", "cfg.json")) == {}
    (repo / "secret").write_text("{}")
    (snapshot / "other.json").symlink_to("../../secret")
    with pytest.raises(ArtifactError, match=r"a link out of the folder"):
        file_in(snapshot, "other.json")
