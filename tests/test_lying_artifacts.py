"""A stored coder that says one thing and holds another, under checksums that fit: refused before it is used.

``tests/hostile_fields.py`` changes every value and every tensor of every kind; here are the ones to read.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
import hostile_fields

import qsae_core
from qsae_core.artifact.tensor_files import save_tensors
from qsae_core.errors import ArtifactError
from qsae_core.plugins.records import load_plugins


def stored(place: pathlib.Path, slot: str = "sae", name: str = "vanilla", **parts) -> pathlib.Path:
    """24 latents of width 16, one of the sizes of ``hostile_fields``."""
    registry = load_plugins().registry
    hostile_fields._store(hostile_fields._tree(registry, slot, name, **parts), place, registry)
    qsae_core.load(place)
    return place


def altered(place: pathlib.Path, name: str, change) -> None:
    tensors = load_file(place / "coder.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    save_tensors(place / "coder.safetensors", tensors, (place / "coder.json").read_text())


def described(place: pathlib.Path, keys: tuple, value) -> None:
    description = json.loads((place / "coder.json").read_text())
    holder = description
    for key in keys[:-1]:
        holder = holder[key]
    assert keys[-1] in holder if isinstance(holder, dict) else True
    holder[keys[-1]] = value
    text = json.dumps(description)
    (place / "coder.json").write_text(text)
    save_tensors(place / "coder.safetensors", load_file(place / "coder.safetensors"), text)


def refusal(place: pathlib.Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        qsae_core.load(place)
    assert caught.value.where is not None
    assert caught.value.next is not None
    return str(caught.value)


PLANES = {
    "rtn": ({"use": "rtn", "n_bits": 4}, "[3, 24, 2], and in the coder uint8 [4, 24, 2]"),
    "hqq": ({"use": "hqq", "n_bits": 4}, "[3, 24, 2], and in the coder uint8 [4, 24, 2]"),
    "nf4": ({"use": "nf4"}, "[3, 24, 2], and in the coder uint8 [4, 24, 2]"),
    "lsq": ({"use": "lsq", "n_bits": 3}, "[2, 24, 2], and in the coder uint8 [3, 24, 2]"),
    "twos-complement": ({"use": "twos-complement"}, "[3, 24, 2], and in the coder uint8 [4, 24, 2]"),
    "residual-binary": ({"use": "residual-binary"}, "[1, 24, 2], and in the coder uint8 [2, 24, 2]"),
    # 24 rows of four parts of four columns: 16 vectors, whose numbers take four bits
    "vector": ({"use": "vector", "codebook_bits": 4}, "3 bit planes, and numbers of 16 vectors take 4"),
    "mixed": ({"use": "mixed"}, "take 96 bytes of codes, and there are 95"),
}
"""24 rows of 16 columns: two bytes a row and plane. Mixed has 2 bits a weight: 24 x 16 x 2 / 8 bytes."""


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("matrix", ["W_dec", "W_enc"])
def test_bit_planes_that_are_cut(name, matrix, tmp_path):
    block, said = PLANES[name]
    place = stored(tmp_path / "coder", quantizer=block)
    altered(place, f"{matrix}.codes", lambda codes: codes[:-1])
    assert said in refusal(place)
    assert matrix in refusal(place)


def test_bit_planes_that_are_cut_together_with_the_layout(tmp_path):
    place = stored(tmp_path / "coder", quantizer={"use": "rtn", "n_bits": 4})
    altered(place, "W_dec.codes", lambda codes: codes[:-1])
    described(place, ("layout", "W_dec", "layout", "n_bits"), 3)
    assert "W_dec.codes is uint8 [3, 24, 2], and in the coder uint8 [4, 24, 2]" in refusal(place)


def test_codes_that_are_no_point(tmp_path):
    """6 bits have 63 points, numbered from 0: the code 63 is none. Five trits make at most 242."""
    place = stored(tmp_path / "rtn", quantizer={"use": "rtn", "n_bits": 6})
    altered(place, "W_dec.codes", lambda codes: codes | 1)
    assert "a code is 63, and there are 63 points from 0 on" in refusal(place)
    place = stored(tmp_path / "ste", quantizer={"use": "ste", "grid": "ternary"})
    altered(place, "W_dec.codes", lambda codes: codes.clone().fill_(243))
    assert "the byte 243 of the codes" in refusal(place)


@pytest.mark.parametrize("key", [("shape", 0), ("shape", 1)])
@pytest.mark.parametrize("size", [10**12, 10**30, 2**40])
def test_a_size_beyond_the_file_allocates_nothing(key, size, tmp_path):
    place = stored(tmp_path / "coder", quantizer={"use": "rtn"})
    described(place, ("layout", "W_dec", *key), size)
    tracemalloc.start()
    try:
        said = refusal(place)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()  # whatever runs later in this process would be several times slower
    assert most < 2**24
    assert f"layout.W_dec.shape.{key[1]} is {size}, and the tensors of the coder have " in said


@pytest.mark.parametrize("keys", [("shape", "d_in"), ("config", "sae", "n_latents")])
def test_other_sizes_beyond_the_file(keys, tmp_path):
    place = stored(tmp_path / "coder")
    described(place, keys, 2**31 - 1)
    assert f"{'.'.join(keys)} is 2147483647, and the tensors of the coder have" in refusal(place)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("W_dec.scales", lambda t: torch.cat([t, t[:1]]), "bfloat16 [25], and in the coder bfloat16 [24]"),
        ("W_dec.scales", lambda t: t.double(), "float64 [24], and in the coder bfloat16 [24]"),
        ("b_enc", lambda t: t.double(), "float64 [24], and in the coder float32 [24]"),
        ("b_enc", lambda t: t[None], "float32 [1, 24], and in the coder float32 [24]"),
        ("norm_in.scale", lambda t: t[None], "float32 [1], and in the coder float32 []"),
        ("norm_in.scale", lambda t: t * 0, "norm_in.scale is to be above 0"),
        ("norm_in.signs", lambda t: t * 2, "norm_in.signs are to be -1 and 1"),
    ],
)
def test_tensors_of_another_type_or_shape(name, change, said, tmp_path):
    place = stored(tmp_path / "coder", quantizer={"use": "rtn"})
    altered(place, name, change)
    assert said in refusal(place)


def test_matrices_of_floats_that_are_none(tmp_path):
    place = stored(tmp_path / "coder")
    altered(place, "W_dec.weight", lambda t: t.double())
    assert "W_dec.weight is float64 [24, 16], and in the coder float32 [24, 16]" in refusal(place)
    altered(place, "W_dec.weight", lambda t: t.float().flatten())
    assert "W_dec.weight is float32 [384], and in the coder float32 [24, 16]" in refusal(place)


def test_a_number_that_is_infinite_in_float32(tmp_path):
    place = stored(tmp_path / "coder", name="jumprelu")
    described(place, ("config", "activation", "theta0"), 1e308)
    said = refusal(place)
    assert "theta0 1e+308 is out of float32's range" in said
    assert "allowed: 0, or a size from 1.4e-45 to 3.4e38" in said


def test_float_masters_of_another_shape(tmp_path):
    place = stored(tmp_path / "coder", quantizer={"use": "rtn"})
    masters = load_file(place / "masters.safetensors")
    masters["W_dec.weight"] = masters["W_dec.weight"][:-1].contiguous()
    save_tensors(place / "masters.safetensors", masters, (place / "coder.json").read_text())
    coder = qsae_core.load(place)
    with pytest.raises(
        ArtifactError, match=r"W_dec.weight is float32 \[23, 16\], and in the coder float32 \[24, 16\]"
    ):
        coder.dictionary(quantized=False)


def test_levels_that_there_are_not(tmp_path):
    place = stored(tmp_path / "coder", quantizer={"use": "lsq", "n_bits": 3})
    count = json.loads((place / "coder.json").read_text())["levels"]["count"]
    assert count == 3
    described(place, ("levels", "cuts"), {})
    described(place, ("levels", "count"), 2)
    assert "it says 2 levels, and the coder has 3" in refusal(place)
